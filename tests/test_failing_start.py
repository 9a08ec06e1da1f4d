"""A disk that fails while a file is made, opened or migrated: nothing is half done."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import apsw

from chatsvc.store.sqlite.file import LogFile, Unusable
from chatsvc.store.sqlite.schema import MIGRATIONS
from tests.day import FIRST, RENAMED, Day, DayCase, Tables
from tests.faulty_vfs import Disk, Platter, contents


class FailingToStart(DayCase):
    """A disk that fails, or loses its power, while the file is made or migrated."""

    def begin(self, day: Day) -> None:
        """Start a store, which works or says why not."""
        result = day.start()
        if result is not None:
            self.assertIsInstance(result.value, Unusable)
            self.assertGreater(day.disk.failures, 0)
            day.disk.heal()
            day.disk.unregister()
            return
        day.stop()

    def check_start(self, directory: Path) -> None:
        """A store starts in this directory, empty, and works."""
        day = Day(directory, epoch="epoch-2")
        self.assertIsNone(day.start())
        self.assertEqual(day.ask(FIRST).seq, 1)
        self.assertIn(day.store.epoch, ("epoch-1", "epoch-2"))
        day.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_new_file(self) -> None:
        """It says what is wrong; the next start makes it, or finds it made."""
        for how in ({}, {"lasting": True, "error": apsw.FullError}, {"short": True}):
            for number in itertools.count(1):
                day = Day(self.place())
                day.disk.fail(number, **how)
                self.begin(day)
                self.check_start(day.directory)
                if not day.disk.failures:
                    self.assertGreater(number, 50)
                    break

    def test_a_file_that_cannot_be_read(self) -> None:
        """Whichever read fails."""
        day = self.started()
        day.stop()
        for number in itertools.count(1):
            again = Day(self.place(contents(day.directory, "log")))
            again.disk.fail_reads(number)
            self.begin(again)
            self.check_start(again.directory)
            if not again.disk.failures:
                self.assertGreater(number, 3)
                return

    def test_a_new_file_and_a_power_cut(self) -> None:
        """It is opened well, or made anew."""
        day = Day(self.place())
        self.assertIsNone(day.start())
        platter = Platter({"log": b""})
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            for random in (None, Random(number)):
                self.check_start(self.place(platter.after_cut(random)))
        day.stop()

    def migrate(self, directory: Path, disk: Disk) -> None:
        """Open a file with one migration more."""
        file = LogFile(
            directory / "log",
            new_epoch=lambda: "epoch-2",
            migrations=MIGRATIONS + RENAMED,
            vfs=disk.name,
        )
        file.open()
        file.close()

    def migrated(self) -> tuple[dict[str, bytes], Disk, list[Tables]]:
        """An old file, the disk that it was migrated on, and what is in it before and after."""
        day = self.started()
        day.play()
        day.stop()
        old = contents(day.directory, "log")
        disk = Disk()
        self.addCleanup(disk.unregister)
        directory = self.place(old)
        self.migrate(directory, disk)
        return old, disk, [self.tables(old), self.tables(contents(directory, "log"))]

    def test_a_migration(self) -> None:
        """It says what is wrong, and leaves the old file or the new one; the next start goes on."""
        old, disk, states = self.migrated()
        self.assertNotEqual(*states)
        failed = 0
        for number, lasting in itertools.product(range(1, disk.count + 1), (False, True)):
            directory = self.place(old)
            faulty = Disk()
            faulty.fail(number, lasting=lasting, short=lasting)
            try:
                self.migrate(directory, faulty)
            except Unusable:
                failed += 1
            faulty.unregister()
            self.check_one_of(self.tables(contents(directory, "log")), states, number)
            self.migrate(directory, self.sound)
            self.assertEqual(self.tables(contents(directory, "log")), states[1])
        self.assertGreater(failed, disk.count)

    def test_a_migration_and_a_power_cut(self) -> None:
        """The old file is there, or the new one."""
        old, disk, states = self.migrated()
        platter = Platter(old)
        for number, operation in enumerate(disk.operations, 1):
            platter.do([operation])
            for random in (None, Random(number)):
                directory = self.place(platter.after_cut(random))
                self.check_one_of(self.tables(contents(directory, "log")), states, number)
                self.migrate(directory, self.sound)
                self.assertEqual(self.tables(contents(directory, "log")), states[1])
