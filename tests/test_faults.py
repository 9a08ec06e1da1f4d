"""A disk that fails anywhere: what was acknowledged is kept, and nothing else comes up.

A scripted day of a store is played over a disk that fails at the n-th thing done to it, once or
from then on until it is healed, for every n. What must be in the file then is what a day brings in
which nothing failed and the refused commands were never given.

The disk is harsher than real ones: what SQLite passes over in silence, such as a checkpoint that
fails after a commit, reaches the store as an error too. So a commit may be done though it seems to
have failed, and the store must stand that.
"""

from __future__ import annotations

import itertools
from typing import Any

import apsw
from twisted.python.failure import Failure

from chatsvc.messages.errors import Code
from chatsvc.store import Receipt
from tests.day import Ask, Day, DayCase, send
from tests.store_suite.driver import to


class AFailingDisk(DayCase):
    """Whatever fails, and whenever: no false `ok`, no lost one, and a sound file.

    All of the log is announced, in order, also what was committed though it was refused.
    """

    def run_all(self, step: int = 1, *, read: bool = False, broken: int = 1, **how: Any) -> None:
        """Play days in which the first operation fails, or another one, up to the last."""
        for number in itertools.count(1, step):
            day = self.started()
            day.disk.fail(number, **how)
            day.play(read=read, broken=broken)
            if not day.disk.failures:
                self.assertGreater(number, 150)
                day.stop()
                return
            self._check(day, number, how)

    def _check(self, day: Day, number: int, how: object) -> None:
        try:
            self.check(day)
        except BaseException as error:
            error.add_note(f"when operation {number} failed: {how}")
            raise
        self.clear()

    def test_it_fails_once(self) -> None:
        """At each operation in turn."""
        self.run_all()

    def test_it_fails_once_while_others_read(self) -> None:
        """Connections that read keep open what the one that writes opens anew."""
        self.run_all(read=True, error=apsw.FullError, short=True)

    def test_it_stays_broken(self) -> None:
        """Until it is healed, one batch later."""
        self.run_all(lasting=True, short=True)

    def test_it_stays_full_while_others_read(self) -> None:
        """They are served, and writing goes on when there is room."""
        self.run_all(2, read=True, lasting=True, error=apsw.FullError)

    def test_it_stays_broken_for_long(self) -> None:
        """Several batches are refused."""
        self.run_all(3, lasting=True, broken=3)

    def test_it_can_be_neither_written_nor_read(self) -> None:
        """Nothing at all is served, until it is healed."""
        self.run_all(3, lasting=True, blind=True, broken=2)

    def test_it_cannot_be_read(self) -> None:
        """From any read of a day on, for one batch, those of the one that writes included."""
        for number in itertools.count(1):
            day = self.started()
            day.disk.fail_reads(number)
            day.play(read=True)
            if not day.disk.failures:
                self.assertGreater(number, 20)
                day.stop()
                return
            self._check(day, number, "reads")

    def test_it_breaks_after_a_commit_and_once_more_when_it_is_healed(self) -> None:
        """What was committed though it was refused is announced, however often it must be read."""
        for number, read in itertools.product(range(2, 120, 8), range(1, 12)):
            day = self.started()
            day.disk.fail(number, lasting=True, blind=True)
            day.take(0.0, [(0, index) for index in range(5)])
            day.take(0.0, [(1, index) for index in range(4)])
            day.disk.heal()
            day.disk.fail_reads(read, lasting=False)
            day.take(0.0, [(2, 0)])
            day.take(0.0, [(3, 0)])
            there = [seq for seq, *_ in self.killed(day)["entries"]]
            told = [entry.seq for entry in day.announced]
            self.assertEqual(sorted(told), sorted(there), (number, read))
            self.assertEqual(told, sorted(told))
            day.stop()
            self.clear()

    def test_who_reads_is_told_and_served_again(self) -> None:
        """Whichever read fails, `unavailable` and nothing else; afterwards it is as before."""
        asks = (
            Ask("history", ("alice", to("bob"), None, None, 50)),
            Ask("feed", ("carol", 0, 0, [], 50)),
            Ask("members", ("carol", "devs", None, 50)),
        )
        for ask in asks:
            for number in itertools.count(1):
                if not self.reads_failed(ask, number):
                    self.assertGreater(number, 3)
                    break

    def reads_failed(self, ask: Ask, number: int) -> int:
        """How many reads failed, when all do from the ``number``-th on, for this command."""
        day = self.started()
        day.play()
        day.disk.fail_reads(number)
        result = day.ask(ask)
        failed = day.disk.failures
        day.disk.heal()
        expected = day.ask(ask)
        self.assertNotIsInstance(expected, Failure | Code)
        self.assertEqual(result, Code.UNAVAILABLE if failed else expected)
        self.assertIsInstance(day.ask(send("alice", to("bob"))), Receipt)
        day.stop()
        self.clear()
        return failed
