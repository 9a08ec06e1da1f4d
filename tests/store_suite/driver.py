"""What the parts of the suite have in common: a store to test, and short words for its methods.

Nothing here looks inside a store, and nothing relies on a Deferred having fired already: each
answer goes through :meth:`StoreCase.result`, and time through :meth:`StoreCase.let_pass`, which the
test case of a store that works in another thread overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, Interest, Loss, Page, Receipt, Slice, Start, Store
from tests.fakes import DAY, appended, make_clock

if TYPE_CHECKING:
    _Case = SynchronousTestCase
else:
    _Case = object  # so that trial runs the parts only through a store's own test case

T = TypeVar("T")

ENOUGH = 1000
"""A limit that no test's page reaches."""


def to(name: str) -> Address:
    """A user's address."""
    return Address("to", name)


def group(name: str) -> Address:
    """A group's address."""
    return Address("group", name)


def topic(name: str) -> Address:
    """A topic's address."""
    return Address("topic", name)


def seqs(entries: Iterable[Entry]) -> list[int]:
    """Where entries stand."""
    return [entry.seq for entry in entries]


class StoreCase(_Case):
    """A test of a store. :meth:`open` gives it another empty one, as often as it likes."""

    clock: Clock
    store: Store
    announced: list[Entry]

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A new and empty store, not started."""
        raise TypeError("a store's own test case says how to make it")

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with; what it fails with is raised."""
        results: list[T | Failure] = []
        deferred.addBoth(results.append)
        self.assertEqual(len(results), 1, "it has not fired")
        if isinstance(results[0], Failure):
            results[0].raiseException()
        return results[0]

    def let_pass(self, seconds: float) -> None:
        """Let time pass, until the store has done what is to be done by then."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)

    # --- life ---

    def setUp(self) -> None:
        """Open a store with room for all that most tests do."""
        self._stop: Callable[[], None] = lambda: None
        self.addCleanup(self.close)
        self.open()

    def open(
        self,
        *,
        retention: float = 30 * DAY,
        quota: int = 10_000,
        hear: Callable[[Entry], None] | None = None,
    ) -> None:
        """Stop the store, and start an empty one; ``hear`` is told of what it announces too."""
        self._stop()
        self.clock = make_clock()
        self.announced = announced = []
        store = self.store = self.make_store(self.clock, retention=retention, quota=quota)

        def announce(entry: Entry) -> None:
            announced.append(entry)
            if hear is not None:
                hear(entry)

        self.result(store.start(announce))
        self._stop = lambda: self.result(store.stop())

    def close(self) -> None:
        """Stop the store for good."""
        stop, self._stop = self._stop, lambda: None
        stop()

    # --- appending ---

    def append(self, op: Any, user: str, address: Address, **content: Any) -> Receipt:
        """Append one thing, and wait until it is stored."""
        append = Append(op=op, user=user, address=address, **content)
        return self.result(appended(self.store.append, append))

    def send(self, user: str, address: Address, msg: str | None = "hi", **content: Any) -> int:
        """Store a message; where it stands."""
        return self.append("send", user, address, msg=msg, **content).seq

    def join(self, name: str, *users: str) -> int:
        """Have users join a group, in order; where the last one's entry stands."""
        return [self.append("join", user, group(name)).seq for user in users][-1]

    def leave(self, name: str, user: str) -> int:
        """Have a user leave a group; where the entry stands."""
        return self.append("leave", user, group(name)).seq

    def refuse(self, code: Code, op: Any, user: str, address: Address, **content: Any) -> None:
        """Check that the store refuses to append this, and that nothing is stored."""
        before = (self.store.head, list(self.announced))
        with self.assertRaises(Refused) as caught:
            self.append(op, user, address, **content)
        self.assertEqual(caught.exception.code, code)
        self.assertEqual((self.store.head, self.announced), before)

    def announced_as(self, kind: str) -> list[Entry]:
        """What was announced of this kind."""
        return [entry for entry in self.announced if entry.kind == kind]

    # --- reading ---

    def admit(self, *users: str) -> None:
        """Have users be names that have been seen."""
        for user in users:
            self.result(self.store.admit(user))

    def start_for(self, user: str, device: str | None = None, since: int | None = None) -> Start:
        """Where a reader begins."""
        return self.result(self.store.start_for(user, device, since))

    def page(
        self,
        user: str,
        after: int = 0,
        shared_after: int | None = None,
        interests: Mapping[str, int] | None = None,
        limit: int = ENOUGH,
    ) -> Page:
        """One page of a user's feed."""
        wanted = [Interest(name, low) for name, low in (interests or {}).items()]
        shared = after if shared_after is None else shared_after
        return self.result(self.store.feed(user, after, shared, wanted, limit))

    def feed(
        self,
        user: str,
        after: int = 0,
        shared_after: int | None = None,
        interests: Mapping[str, int] | None = None,
        limits: Sequence[int] = (ENOUGH,),
    ) -> list[Entry]:
        """All of a user's feed, read in pages of these limits in turn."""
        shared = after if shared_after is None else shared_after
        return self.read_all(
            lambda low, limit: self.page(user, low, shared, interests, limit), after, limits
        )

    def read_all(
        self, read: Callable[[int, int], Page], after: int, limits: Sequence[int], until: int = -1
    ) -> list[Entry]:
        """All that a reader gets page by page, each of which is sound."""
        found: list[Entry] = []
        end = self.store.head if until < 0 else until
        for turn in range(10_000):
            limit = limits[turn % len(limits)]
            page = read(after, limit)
            self.assertLessEqual(len(page.entries), limit)
            places = [after, *seqs(page.entries)]
            self.assertEqual(places, sorted(set(places)), "not in increasing order")
            self.assertLessEqual(places[-1], page.upto)
            found += page.entries
            if page.complete:
                self.assertEqual(page.upto, end)
                return found
            self.assertGreater(page.upto, after, "a page that brings nobody further")
            after = page.upto
        self.fail("the pages have no end")
        return found

    def matching(
        self,
        topic_filter: str,
        after: int = 0,
        until: int | None = None,
        *,
        retained: bool = False,
        limits: Sequence[int] = (ENOUGH + 1,),
    ) -> list[Entry]:
        """All stored messages of topics that match, read in pages of these limits in turn."""
        end = self.store.head if until is None else until
        matches = self.store.matches
        return self.read_all(
            lambda low, n: self.result(matches(topic_filter, low, end, n, retained=retained)),
            after,
            limits,
            end,
        )

    def retained(self, topic_filter: str) -> list[int]:
        """Where the retained messages of the topics that match stand."""
        return seqs(self.matching(topic_filter, retained=True))

    def history(
        self,
        user: str,
        address: Address,
        *,
        after: int | None = None,
        before: int | None = None,
        limit: int = ENOUGH,
    ) -> Slice:
        """Part of a conversation."""
        return self.result(self.store.history(user, address, after, before, limit))

    def roles(self, user: str, name: str) -> dict[str, str]:
        """The members of a group with their roles, as ``user`` is told."""
        members, complete = self.result(self.store.members(user, name, None, ENOUGH))
        self.assertTrue(complete)
        return {member.user: member.role for member in members}

    def subscribe(self, user: str, topic_filter: str) -> int:
        """Keep a durable subscription; above what it holds."""
        return self.result(self.store.subscribe(user, topic_filter))

    def unsubscribe(self, user: str, topic_filter: str) -> None:
        """End a durable subscription."""
        self.result(self.store.unsubscribe(user, topic_filter))

    def proven(self, user: str, seq: int, device: str | None = None) -> None:
        """Move a position."""
        self.result(self.store.save_positions({(user, device): seq}))

    def check_losses(self, losses: Iterable[Loss | None], *expected: Loss) -> None:
        """Check what a reader is told it may miss."""
        self.assertEqual([loss for loss in losses if loss is not None], list(expected))
