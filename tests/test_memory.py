"""The store in memory: the rules of every store, and what only this one has.

That is the bound in bytes, the budget of retained messages, and that nothing of what expired stays.
"""

from __future__ import annotations

import gc
from types import FunctionType, ModuleType
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Loss, Receipt, Store
from chatsvc.store.memory import MemoryStore
from chatsvc.store.reading import SCAN
from chatsvc.store.rules import MAX_DEVICES
from chatsvc.store.runs import Run
from tests import store_conformance
from tests.fakes import DAY, MIB, make_store
from tests.store_suite.driver import StoreCase, group, seqs, to, topic


class TheStoreInMemory(store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps the rules of every store."""

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store with room for every test."""
        return make_store(clock, retention=retention, quota=quota)


class _Bounded(StoreCase, SynchronousTestCase):
    """A store of which the test says how much it holds."""

    max_bytes = 64 * MIB

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store with that bound."""
        return make_store(clock, retention=retention, quota=quota, max_bytes=self.max_bytes)

    def bound(self, max_bytes: int, *, retention: float = 30 * DAY) -> None:
        """Open a store with another bound."""
        self.max_bytes = max_bytes
        self.open(retention=retention)


def reachable(root: object, kind: type[Any]) -> list[Any]:
    """All objects of a kind that ``root`` holds on to, however deep."""
    seen = {id(root)}
    pending, found = [root], []
    while pending:
        for item in gc.get_referents(pending.pop()):
            if id(item) in seen or isinstance(item, (type, ModuleType, FunctionType, Clock)):
                continue
            seen.add(id(item))
            pending.append(item)
            if isinstance(item, kind):
                found.append(item)
    return found


class TheBoundInBytes(_Bounded):
    """`max_bytes`: beyond it the oldest entries go."""

    def test_the_oldest_go_when_it_is_full(self) -> None:
        """What is kept stays within the bound, and is the newest."""
        self.bound(MIB)
        for _ in range(40):
            self.send("alice", to("bob"), "x" * 50_000)
        kept = seqs(self.feed("bob"))
        self.assertEqual(kept, list(range(kept[0], 41)))
        held = sum(len(entry.msg or "") for entry in reachable(self.store, Entry))
        self.assertEqual(held, 50_000 * len(kept))
        self.assertLessEqual(held, MIB)
        self.assertGreater(len(kept), 5)

    def test_readers_who_were_behind_are_told(self) -> None:
        """What went is a loss as if it had been too old; who had got there is not told."""
        self.bound(MIB)
        self.admit("bob")
        for _ in range(40):
            self.send("alice", to("bob"), "x" * 50_000, present=True)
        floor = seqs(self.feed("bob"))[0] - 1
        self.check_losses([self.page("bob").loss], Loss(0, floor, "retention"))
        self.check_losses([self.page("bob", floor).loss])

    def test_data_counts_as_text_does(self) -> None:
        """Neither escapes the bound."""
        self.bound(MIB)
        for _ in range(40):
            self.send("alice", topic("a"), None, data=b"1" * 100_000)
        self.assertLessEqual(len(self.matching("a")), 10)

    def test_many_small_ones_are_bounded_too(self) -> None:
        """Each entry counts for more than its text."""
        self.bound(MIB)
        for _ in range(10_000):
            self.send("alice", topic("a"), "")
        self.assertLess(len(reachable(self.store, Entry)), 5000)

    def test_one_too_big_for_all_of_it_is_announced(self) -> None:
        """It is acknowledged and shown to who is there, and the store goes on."""
        self.bound(1000)
        big = self.send("alice", to("bob"), "x" * 5000)
        self.assertEqual(seqs(self.announced), [big])
        self.assertEqual(self.feed("bob"), [])
        small = self.send("alice", to("bob"))
        self.assertEqual((small, seqs(self.feed("bob"))), (big + 1, [small]))


class TheBudgetOfRetainedMessages(_Bounded):
    """Retained messages do not expire, so they may take half of the bound at most."""

    def fill(self) -> int:
        """Retain as much as there is room for; how many topics that is."""
        for number in range(1000):
            before = self.store.head
            try:
                self.send("alice", topic(f"t/{number}"), "x" * 10_000, retain=True)
            except Refused as refused:
                self.assertEqual(refused.code, Code.QUOTA_EXCEEDED)
                self.assertEqual(self.store.head, before)
                return number
        self.fail("there is no bound")
        return 0

    def test_beyond_it_a_message_is_refused(self) -> None:
        """Nothing is stored, the key is not bound, and what was retained stays."""
        self.bound(MIB)
        count = self.fill()
        self.assertIn(count, range(10, 53))
        self.refuse(
            Code.QUOTA_EXCEEDED,
            "send",
            "alice",
            topic("new"),
            msg="x" * 10_000,
            key="k",
            digest=b"1",
            retain=True,
        )
        sent = self.append("send", "alice", topic("new"), msg="x", key="k", digest=b"2")
        self.assertFalse(sent.dup)
        self.assertEqual(len(self.retained("t/+")), count)
        self.assertEqual(self.retained("new"), [])

    def test_replacing_takes_no_more_room(self) -> None:
        """A topic's retained message gives its room to the next of its size."""
        self.bound(MIB)
        count = self.fill()
        for _ in range(200):
            self.send("alice", topic("t/0"), "y" * 10_000, retain=True)
        self.assertEqual(len(self.retained("#")), count)

    def test_clearing_makes_room(self) -> None:
        """As much as the cleared one had taken."""
        self.bound(MIB)
        count = self.fill()
        for _ in range(3):
            self.send("alice", topic("t/0"), "", retain=True)
            self.send("alice", topic("new"), "x" * 10_000, retain=True)
            self.send("alice", topic("new"), "", retain=True)
            self.send("alice", topic("t/0"), "x" * 10_000, retain=True)
        self.assertEqual(len(self.retained("#")), count)

    def test_it_leaves_room_for_the_log(self) -> None:
        """With the budget spent, messages are still kept."""
        self.bound(MIB)
        self.fill()
        places = [self.send("alice", to("bob"), "x" * 1000) for _ in range(100)]
        self.assertEqual(seqs(self.feed("bob")), places)


class NothingStays(_Bounded):
    """Of what expired the store holds nothing on to."""

    def live(self) -> None:
        """Let all kinds of things be stored."""
        self.subscribe("bob", "a/#")
        self.join("devs", "alice", "bob")
        for number in range(300):
            self.send("alice", to(f"u{number % 7}"), reply_to=None)
            self.send("alice", topic(f"a/{number}"), key=f"k{number}", digest=b"1")
            self.send("bob", group("devs"))
            self.send("bob", to("bob"))
        self.leave("devs", "alice")

    def test_no_expired_entry_is_reachable(self) -> None:
        """Not from any run, conversation, user or key."""
        self.bound(64 * MIB, retention=100)
        self.live()
        self.assertEqual(len(reachable(self.store, Entry)), self.store.head)
        self.announced.clear()
        self.let_pass(110)
        self.assertEqual(reachable(self.store, Entry), [])
        self.assertEqual([len(run) for run in reachable(self.store, Run)], [0])

    def test_only_the_young_are_reachable(self) -> None:
        """Each entry that is left is held, and no other."""
        self.bound(64 * MIB, retention=100)
        self.live()
        self.let_pass(60)
        self.announced.clear()
        self.live()
        self.let_pass(60)
        held = sorted(seqs(reachable(self.store, Entry)))
        self.assertEqual(held, seqs(self.announced))

    @settings(deadline=None, database=None, max_examples=25)
    @given(
        st.lists(
            st.tuples(st.sampled_from(["bob", "alice", "zed", "a", "a/b"]), st.integers(0, 30)),
            max_size=60,
        )
    )
    def test_what_is_held_is_what_is_young(self, sent: list[tuple[str, int]]) -> None:
        """Whatever was sent where and when, exactly the entries within the retention are held."""
        self.bound(64 * MIB, retention=100)
        self.admit("bob")
        for name, pause in sent:
            self.send("alice", topic(name) if name.startswith("a") else to(name))
            self.let_pass(pause)
        young = int((self.clock.seconds() - 100) * 1000)
        expected = [entry for entry in self.announced if entry.ts >= young]
        self.announced.clear()
        found: list[Entry] = sorted(reachable(self.store, Entry), key=lambda entry: entry.seq)
        self.assertEqual(found, expected)

    def test_expiry_goes_in_steps(self) -> None:
        """However much is too old at once, a turn removes a part, and the next ones the rest."""
        self.bound(64 * MIB, retention=100)
        self.subscribe("bob", "a")
        for _ in range(2000):
            self.send("alice", topic("a"))
        self.clock.rightNow += 101
        assert isinstance(self.store, MemoryStore)
        self.store.expire()
        self.assertEqual(len(self.feed("bob")), 1500)
        self.clock.advance(0)
        self.assertEqual(self.feed("bob"), [])

    def test_who_is_refused_leaves_no_trace(self) -> None:
        """A sender whose room for unseen names is used up cannot make the store remember more."""
        for _ in range(1000):
            self.send("alice", to("zed"))
        before = len(reachable(self.store, object))
        for number in range(100):
            self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to(f"new{number}"), msg="hi")
        self.announced.clear()
        self.assertLess(len(reachable(self.store, object)), before + 100)


class LookingThroughTopics(_Bounded):
    """A page for a wildcard looks at so many entries, and the next goes on from there."""

    def test_nothing_is_lost_between_two_looks(self) -> None:
        """What matches is found on either side of where a page stopped looking."""
        self.subscribe("bob", "+/b")
        wanted = {SCAN + step for step in (-1, 0, 1, 2)}
        for number in range(2 * SCAN):
            self.send("alice", topic("a/b" if number in wanted else "a"))
        places = sorted(number + 1 for number in wanted)
        self.assertEqual(self.page("bob").upto, SCAN)
        for after in range(5):
            self.assertEqual(seqs(self.feed("bob", after)), places)
            self.assertEqual(seqs(self.matching("+/b", after)), places)


class TheProcess(_Bounded):
    """What holds as long as the process runs, and no longer."""

    def test_a_key_is_kept_whatever_goes(self) -> None:
        """Neither age nor size ends the binding of a key."""
        self.bound(MIB, retention=10)
        first = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        for _ in range(100):
            self.send("alice", to("bob"), "x" * 50_000)
        self.let_pass(1000)
        again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.assertEqual(again, Receipt(first.seq, first.ts, dup=True))

    def test_each_store_is_a_log_of_its_own(self) -> None:
        """It has the name it was given, and begins empty."""
        stores = [MemoryStore(self.clock, name, retention=1, quota=1, max_bytes=1) for name in "ab"]
        self.assertEqual([store.epoch for store in stores], ["a", "b"])
        self.assertEqual([store.head for store in stores], [0, 0])

    def test_every_answer_is_there_at_once(self) -> None:
        """Each Deferred has fired when it is returned."""
        self.assertEqual(self.successResultOf(self.store.subscribe("bob", "a")), 0)
        self.assertEqual(self.successResultOf(self.store.feed("bob", 0, 0, [], 1)).upto, 0)

    def test_a_stopped_store_expires_nothing(self) -> None:
        """No timer is left, also when it is stopped twice."""
        self.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.successResultOf(self.store.stop())

    def test_the_devices_of_a_user_are_bounded(self) -> None:
        """One more than the most is refused; known ones and other users' are not."""
        for number in range(MAX_DEVICES):
            self.start_for("bob", f"d{number}")
        failure = self.failureResultOf(self.store.start_for("bob", "more", None))
        self.assertEqual(failure.value.code, Code.QUOTA_EXCEEDED)
        self.assertEqual(self.start_for("bob", "d0").after, 0)
        self.assertEqual(self.start_for("alice", "more").after, 0)
