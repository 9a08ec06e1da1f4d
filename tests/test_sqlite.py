"""The store on SQLite: the rules of every store, kept in turns, from rows, anew and in threads."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code
from chatsvc.store import Append, Loss, Receipt, Store
from chatsvc.store.sqlite import SqliteStore, places
from chatsvc.store.sqlite.file import Durability, LogFile
from chatsvc.store.sqlite.records import ROOM
from tests import store_conformance
from tests.fakes import DAY, ClockLane, appended
from tests.store_suite.driver import StoreCase, group, seqs, to

__all__ = ["ClockLane"]

T = TypeVar("T")


def make_sqlite(
    path: Path,
    clock: Clock,
    *,
    retention: float = 30 * DAY,
    quota: int = 10_000,
    durability: Durability = "normal",
    room: int = ROOM,
    unplaced: int = places.MANY,
) -> SqliteStore:
    """A store without threads, not started."""
    file = LogFile(path, new_epoch=lambda: "epoch-1", durability=durability)
    lane = ClockLane(clock)
    return SqliteStore(
        file, clock, lane, lane, retention=retention, quota=quota, room=room, unplaced=unplaced
    )


class _InTurns(StoreCase):
    """What is to be done is done as the clock is advanced."""

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store in a file of its own."""
        return make_sqlite(Path(self.mktemp()), clock, retention=retention, quota=quota)

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with, in this turn of the clock or those that follow."""
        self.clock.advance(0)
        return super().result(deferred)


class TheStoreOnSqlite(_InTurns, store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps the rules of every store."""


class WithoutRoomInMemory(_InTurns, store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps them too where each batch finds nothing of groups and users in memory.

    So whatever the rules change has been written as rows, and is read from these as it was.
    """

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store whose writer keeps no records."""
        path = Path(self.mktemp())
        return make_sqlite(path, clock, retention=retention, quota=quota, room=0)


class WithPlacesNowAndThen(_InTurns, store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps them too where what is read is in part in the index and in part not yet."""

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store whose writer gives three entries at once their places."""
        path = Path(self.mktemp())
        return make_sqlite(path, clock, retention=retention, quota=quota, unplaced=3)


class Reborn:
    """A store in a file that is stopped, and started again as another one, as often as one likes.

    Whoever holds on to one of its methods calls that of the store there is now.
    """

    def __init__(self, make: Callable[[], SqliteStore]) -> None:
        self._make = make
        self._store = make()
        self._announce: Callable[[Entry], None] = lambda _: None
        self._running = False

    def __getattr__(self, name: str) -> Any:
        if not callable(getattr(self._store, name)):
            return getattr(self._store, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            return getattr(self._store, name)(*args, **kwargs)

        return call

    def start(self, announce: Callable[[Entry], None]) -> Deferred[None]:
        """Start the first."""
        self._announce = announce
        self._running = True
        return self._store.start(announce)

    def stop(self) -> Deferred[None]:
        """Stop the last."""
        self._running = False
        return self._store.stop()

    def restart(self) -> None:
        """Stop the present one, and start the next when that is done."""
        if self._running:
            self._store.stop().addCallback(lambda _: self._begin())

    def _begin(self) -> Deferred[None]:
        self._store = self._make()
        return self._store.start(self._announce)


class StartedAgain(_InTurns, store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps them too when it is stopped and started again at any time between two commands.

    So whatever holds survives that: the log, groups, filters, positions, devices, retained
    messages, keys, what waits for whom, what has been lost, the head and the epoch.
    """

    answers = 0

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store that can be started again on its file."""
        path = Path(self.mktemp())
        self.answers = 0
        reborn = Reborn(lambda: make_sqlite(path, clock, retention=retention, quota=quota))
        return cast("Store", reborn)

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with; after some, more and more seldom, a restart."""
        result = super().result(deferred)
        self.answers += 1
        if self.answers in TURNS and isinstance(self.store, Reborn):
            self.store.restart()
            self.clock.advance(0)
        return result


class KeysAreForEver(_InTurns, SynchronousTestCase):
    """A command with a key is done once, however often the server was started meanwhile."""

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store that can be started again on its file."""
        path = Path(self.mktemp())
        reborn = Reborn(lambda: make_sqlite(path, clock, retention=retention, quota=quota))
        return cast("Store", reborn)

    def restart(self) -> None:
        """Stop the store, and start it again."""
        assert isinstance(self.store, Reborn)
        self.store.restart()
        self.clock.advance(0)

    def test_a_retry_gets_the_first_receipt(self) -> None:
        """After a restart, and after another; other content is a conflict still."""
        first = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        for _ in range(2):
            self.restart()
            again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
            self.assertEqual(again, Receipt(first.seq, first.ts, dup=True))
            self.refuse(Code.KEY_CONFLICT, "send", "alice", to("bob"), msg="ho", key="k")
        self.assertEqual(seqs(self.feed("bob")), [first.seq])

    def test_it_does_when_its_entry_is_long_gone(self) -> None:
        """A year later; a leaving that nobody could repeat now is told of as well."""
        self.open(retention=100)
        first = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.join("devs", "alice")
        left = self.append("leave", "alice", group("devs"), key="l", digest=b"2")
        self.restart()
        self.let_pass(200)
        self.restart()
        self.assertEqual(self.feed("bob"), [])
        again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.assertEqual(again, Receipt(first.seq, first.ts, dup=True))
        again = self.append("leave", "alice", group("devs"), key="l", digest=b"2")
        self.assertEqual(again, Receipt(left.seq, left.ts, dup=True))
        self.refuse(Code.KEY_CONFLICT, "send", "alice", to("bob"), msg="ho", key="k")

    def test_a_log_that_is_empty_goes_on_where_it_was(self) -> None:
        """No `seq` is given twice, and the epoch stays."""
        self.open(retention=100)
        last = self.send("alice", to("bob"))
        epoch = self.store.epoch
        self.let_pass(200)
        self.restart()
        self.assertEqual((self.store.head, self.store.epoch), (last, epoch))
        self.check_losses([self.page("bob").loss], Loss(0, last, "retention"))
        self.assertEqual(self.send("alice", to("bob")), last + 1)


TURNS = {number * (number + 1) // 2 for number in range(200)}
"""After how many answers a store is started again: 1, 3, 6, 10, …"""


class Back:
    """The way back from threads to the one that tests: what was done waits here to be told."""

    def __init__(self) -> None:
        self.under_way = 0
        self._done: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()

    def put(self, tell: Callable[[], None]) -> None:
        """Called in a thread: ``tell`` is to be called in the test's."""
        self._done.put(tell)

    def take(self) -> None:
        """Tell the next thing, once it is done."""
        tell = self._done.get(timeout=30)
        self.under_way -= 1
        tell()


class RealThreads:
    """A lane with real threads, of which the test itself takes what they have done."""

    def __init__(self, back: Back, threads: int) -> None:
        self._back = back
        self._pool = ThreadPoolExecutor(threads)

    def start(self) -> None:
        """Threads begin when they are needed."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` in a thread."""
        answer: Deferred[T] = Deferred()

        def tell(done: Future[T]) -> None:
            error = done.exception()
            if error is None:
                answer.callback(done.result())
            else:
                answer.errback(Failure(error))

        self._back.under_way += 1
        done = self._pool.submit(work)
        done.add_done_callback(lambda done: self._back.put(lambda: tell(done)))
        return answer

    def stop(self) -> None:
        """Wait for the threads to end."""
        self._pool.shutdown()


class InThreads(store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps them too where one real thread writes and others read."""

    back: Back

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store with threads."""
        self.back = Back()
        file = LogFile(Path(self.mktemp()), new_epoch=lambda: "epoch-1", durability="normal")
        writing, reading = RealThreads(self.back, 1), RealThreads(self.back, 3)
        return SqliteStore(file, clock, writing, reading, retention=retention, quota=quota)

    def settle(self) -> None:
        """Wait until nothing is under way any more."""
        self.clock.advance(0)
        while self.back.under_way:
            self.back.take()
            self.clock.advance(0)

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with, when the threads have nothing left to do."""
        self.settle()
        return super().result(deferred)

    def let_pass(self, seconds: float) -> None:
        """Let time pass, with all that is done meanwhile."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            self.settle()

    def test_reads_beside_writes_are_each_of_one_moment(self) -> None:
        """However many are under way, each page is whole up to where it says."""
        pending: list[Deferred[Any]] = []
        for _ in range(30):
            for _ in range(10):
                append = Append(op="send", user="alice", address=to("bob"), msg="hi")
                pending.append(appended(self.store.append, append))
            self.clock.advance(0)
            pages = [self.store.feed("bob", 0, 0, [], 1000) for _ in range(3)]
            for page in pages:
                page.addCallback(
                    lambda page: self.assertEqual(seqs(page.entries), list(range(1, page.upto + 1)))
                )
            pending += pages
        for answer in pending:
            self.result(answer)
        self.assertEqual(seqs(self.announced), list(range(1, 301)))
