"""A power cut at any moment: what was acknowledged is on the disk."""

from __future__ import annotations

import functools
import itertools
from bisect import bisect_right
from random import Random

import apsw

from chatsvc.store import Receipt
from chatsvc.store.sqlite.file import Durability, LogFile
from tests.day import DAY, NEVER, Day, DayCase, Tables
from tests.faulty_vfs import Platter, contents


class APowerCut(DayCase):
    """At any moment, with any part of what was not synced on the disk."""

    def recorded(self, durability: Durability) -> tuple[Day, Platter, list[Tables]]:
        """A day, the disk as it was before, and what was in the file before and after each step."""
        day = self.started(durability=durability)
        platter = Platter(contents(day.directory, "log"))
        states = [self.killed(day)]
        day.after_step = lambda: states.append(self.killed(day))
        day.play()
        self.assertEqual(day.disk.count, len(day.disk.operations))
        return day, platter, states

    def opened(self, files: dict[str, bytes], *, boot: str | None = None) -> Tables:
        """What is in the file once the next server has opened it, perhaps in another boot."""
        directory = self.place(files)
        if boot is not None:
            connection = apsw.Connection(str(directory / "log"), vfs=self.sound.name)
            connection.execute("UPDATE log SET boot = ? WHERE boot IS NOT NULL", (boot,))
            connection.close()
        file = LogFile(directory / "log", new_epoch=lambda: "epoch-2", vfs=self.sound.name)
        file.open()
        file.close()
        return self.tables(contents(directory, "log"))

    def test_the_platter_knows_the_files(self) -> None:
        """What the operations make of them is what they are."""
        day, platter, _ = self.recorded("full")
        platter.do(day.disk.operations)
        self.assertEqual(platter.after_kill(), contents(day.directory, "log"))
        day.stop()

    def test_what_was_acknowledged_is_there(self) -> None:
        """And of what was under way all or nothing; the log keeps its name."""
        day, platter, states = self.recorded("full")
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            for random in (None, Random(number)):
                found = self.opened(platter.after_cut(random))
                self.check_one_of(found, states[answered : answered + 2], number)
            self.clear()
        day.directory.mkdir(parents=True)
        day.stop()

    def test_without_a_sync_the_end_may_be_gone_and_the_log_has_another_name(self) -> None:
        """With durability "normal" the beginning of the log is there, and it is a new epoch."""
        day, platter, states = self.recorded("normal")
        lost = 0
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            for random in (None, Random(number)):
                found = self.opened(platter.after_cut(random), boot="an earlier one")
                self.assertEqual(found["log"][0][1], "epoch-2")
                where = self.where(found, states)
                self.assertLessEqual(where, answered + 1)
                lost += where < answered
            self.clear()
        self.assertGreater(lost, 0)
        day.directory.mkdir(parents=True)
        day.stop()

    def where(self, found: Tables, states: list[Tables]) -> int:
        """After which step a file is as it is found, whatever the log is called."""
        for number, state in reversed(list(enumerate(states))):
            (_, _, *rest, _), (_, _, *known, _) = found["log"][0], state["log"][0]
            if {**found, "log": rest} == {**state, "log": known}:
                return number
        self.fail("it is as it never was")
        return -1

    def test_a_killed_process_loses_nothing_without_a_sync(self) -> None:
        """With durability "normal" too all is there, and in the same boot it is the same log."""
        day, platter, states = self.recorded("normal")
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            found = self.opened(platter.after_kill())
            self.assertEqual(found["log"][0][1], "epoch-1")
            self.assertIn(self.where(found, states), (answered, answered + 1))
            self.clear()
        day.directory.mkdir(parents=True)
        day.stop()

    def test_a_system_may_forget_what_it_could_not_sync(self) -> None:
        """Then the next sync says nothing of it; what is acknowledged after that is kept."""
        day = self.started(checkpoint=NEVER)
        day.play()
        syncs = [n for n, op in enumerate(day.disk.operations, 1) if op.kind == "sync"]
        self.assertGreater(len(syncs), len(DAY))
        day.stop()
        for number, lasting in itertools.product(syncs, (False, True)):
            day = self.started(checkpoint=NEVER)
            platter = Platter(contents(day.directory, "log"), forgetful=True)
            day.after_step = functools.partial(self.check_acknowledged, day, platter, number)
            day.disk.fail(number, lasting=lasting)
            day.play()
            day.stop()
            self.clear()

    def check_acknowledged(self, day: Day, platter: Platter, number: int) -> None:
        """Check that all that was acknowledged so far is there after a power cut now."""
        platter.do(day.disk.operations)
        day.disk.operations.clear()
        found = self.opened(platter.after_cut())
        floor = found["log"][0][3]
        there = {seq for seq, *_ in found["entries"]}
        for place, result in day.results.items():
            if isinstance(result, Receipt) and result.seq > floor:
                self.assertIn(result.seq, there, f"{place}, when sync {number} failed")
