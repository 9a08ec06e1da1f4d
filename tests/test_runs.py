"""Runs of entries."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.store.runs import Run
from tests.store_suite.driver import seqs

SETTINGS = settings(deadline=None, database=None, max_examples=100)
BY_STATES = settings(deadline=None, database=None, max_examples=60, stateful_step_count=40)


def entry_at(seq: int) -> Entry:
    """An entry of a group."""
    return Entry(seq=seq, ts=0, kind="message", sender="alice", address=Address("group", "devs"))


def run_of(*places: int, dropped: int = 0) -> Run:
    """A run of entries at these places, of which the first few are dropped."""
    run = Run()
    for seq in places:
        run.append(entry_at(seq))
    for _ in range(dropped):
        run.drop_first()
    return run


class _RunMachine(RuleBasedStateMachine):
    """A run beside a plain list of what should be in it."""

    def __init__(self) -> None:
        super().__init__()
        self.run_ = Run()
        self.kept: list[int] = []
        self.last = 0

    @rule(step=st.integers(1, 5), count=st.integers(1, 5))
    def append(self, step: int, count: int) -> None:
        """What is newer comes last; places need not be dense."""
        for _ in range(count):
            self.last += step
            self.run_.append(entry_at(self.last))
            self.kept.append(self.last)

    @precondition(lambda self: self.kept)
    @rule(count=st.integers(1, 5))
    def drop(self, count: int) -> None:
        """What is oldest goes first."""
        for _ in range(min(count, len(self.kept))):
            self.run_.drop_first()
            del self.kept[0]

    @rule(after=st.floats(0, 1), until=st.floats(0, 1))
    def read(self, after: float, until: float) -> None:
        """Both directions give what lies between the bounds."""
        low, high = int(after * (self.last + 2)), int(until * (self.last + 2))
        expected = [seq for seq in self.kept if low < seq <= high]
        assert seqs(self.run_.up(low, high)) == expected
        assert seqs(self.run_.down(low, high)) == expected[::-1]
        assert self.run_.count(low, high) == len(expected)

    @rule(place=st.floats(0, 1))
    def look(self, place: float) -> None:
        """An entry is found at its place, and counted above those before."""
        seq = int(place * (self.last + 2))
        found = self.run_.find(seq)
        assert (found.seq if found is not None else None) == (seq if seq in self.kept else None)
        assert self.run_.count(seq, self.last) == sum(1 for kept in self.kept if kept > seq)

    @invariant()
    def it_is_as_long_as_what_is_in_it(self) -> None:
        """Its length counts what was not dropped, and dropped places are at most as many."""
        assert len(self.run_) == len(self.kept)
        assert len(self.run_._entries) <= 2 * len(self.kept)


class ARun(SynchronousTestCase):
    """`Run`."""

    def test_it_reads_as_a_list_would(self) -> None:
        """Whatever was appended and dropped before."""
        run_state_machine_as_test(_RunMachine, settings=BY_STATES)

    def test_an_empty_one_has_nothing(self) -> None:
        """Neither before the first nor after the last."""
        for run in (Run(), run_of(1, 2, 3, dropped=3)):
            self.assertEqual((len(run), run.count(0, 9), run.find(1)), (0, 0, None))
            self.assertEqual((list(run.up(0, 9)), list(run.down(0, 9))), ([], []))

    def test_bounds_are_after_and_up_to(self) -> None:
        """The lower one is exclusive, the upper inclusive."""
        run = run_of(2, 4, 6, 8)
        self.assertEqual(seqs(run.up(2, 6)), [4, 6])
        self.assertEqual(seqs(run.down(2, 6)), [6, 4])
        self.assertEqual(seqs(run.up(3, 3)), [])

    def test_a_dropped_entry_is_let_go_at_once(self) -> None:
        """Its place may be kept for a while, but not the entry."""
        run = run_of(1, 2, 3, 4, 5, dropped=1)
        self.assertIsNone(run.find(1))
        self.assertEqual(seqs(entry for entry in run._entries if entry is not None), [2, 3, 4, 5])

    def test_dropping_moves_the_others_seldom(self) -> None:
        """Dropping all of 1,024 closes the gap some ten times, not once for each."""
        run = run_of(*range(1, 1025))
        lengths = [len(run._entries)]
        for _ in range(1024):
            run.drop_first()
            lengths.append(len(run._entries))
        moved = sum(1 for before, after in pairwise(lengths) if after < before)
        self.assertIn(moved, range(1, 13))
        self.assertEqual(lengths[-1], 0)
