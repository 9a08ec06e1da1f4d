"""The database file: who may open it, in which format it is, and copies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import apsw

from chatsvc.store.sqlite.file import Durability, LogFile
from chatsvc.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from tests.faulty_vfs import Disk
from tests.log_files import FileCase

ONE_MORE = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO more VALUES ('new');"
BROKEN = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO nothing VALUES (1);"


class WhoMayOpenIt(FileCase):
    """One server at a time."""

    def test_a_second_one_is_refused(self) -> None:
        """By the number of the process that has it; however the file is called."""
        self.open()
        link = self.directory / "link"
        link.symlink_to(self.path.name)
        roundabout = self.directory / ".." / self.directory.name / self.path.name
        for path in (self.path, link, roundabout):
            self.refused("in use by another server", f"(process {os.getpid()})", path=path)

    def test_who_was_refused_may_have_it_later(self) -> None:
        """As soon as the first has closed it; being refused takes nothing away."""
        first = self.open()
        self.refused("in use")
        self.refused("in use")
        first.close()
        self.open().close()
        self.open()

    def test_a_dead_process_does_not_hold_it(self) -> None:
        """However it ended."""
        program = (
            "import sys, time, pathlib\n"
            "from chatsvc.store.sqlite.file import LogFile\n"
            "LogFile(pathlib.Path(sys.argv[1]), new_epoch=lambda: 'e').open()\n"
            "print('open', flush=True)\n"
            "time.sleep(60)\n"
        )
        command = [sys.executable, "-c", program, str(self.path.absolute())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), "open\n")
            self.refused(f"(process {process.pid})")
            process.send_signal(signal.SIGKILL)
            process.wait()
        self.open()

    def test_a_file_that_is_refused_is_not_held(self) -> None:
        """Whoever mends it need not wait for this process to end."""
        self.path.write_bytes(b"x" * 8192)
        self.refused("not a database")
        self.path.unlink()
        self.open()


class WhereItIs(FileCase):
    """Paths."""

    def test_a_directory_is_refused(self) -> None:
        """And nothing is put beside it."""
        self.path.mkdir()
        self.refused(str(self.path.absolute()), "is a directory")
        self.assertEqual(self.names(), {"chat.sqlite"})

    def test_a_missing_directory_is_named(self) -> None:
        """It is not made: the name may be wrong."""
        missing = self.directory / "missing"
        self.refused(str(missing.absolute()), "is not a directory", path=missing / "chat.sqlite")
        self.assertEqual(self.names(), set())

    def test_a_link_leads_to_the_file(self) -> None:
        """What belongs to it stands beside the file, also where that is made only now."""
        elsewhere = (self.directory / "elsewhere").absolute()
        elsewhere.mkdir()
        self.path.symlink_to(elsewhere / "real")
        file = self.open()
        self.assertEqual(file.path, elsewhere / "real")
        self.assertEqual(self.names(), {"chat.sqlite", "elsewhere"})
        self.assertIn("real", {path.name for path in elsewhere.iterdir()})

    def test_a_new_file_is_for_its_owner_only(self) -> None:
        """As is the lock beside it."""
        file = self.open()
        for path in (file.path, Path(f"{file.path}.lock")):
            self.assertEqual(path.stat().st_mode & 0o077, 0)


class TheFormat(FileCase):
    """What a new file is, and which others are taken."""

    def test_a_new_file_says_what_it_is(self) -> None:
        """Whose it is, in which format; in write-ahead mode; its tables take what they should."""
        file = self.open()
        connection = self.raw()
        for pragma, value in (
            ("application_id", APPLICATION_ID),
            ("user_version", len(MIGRATIONS)),
            ("journal_mode", "wal"),
        ):
            self.assertEqual(connection.pragma(pragma), value)
        lax = "SELECT name FROM pragma_table_list WHERE NOT strict AND name NOT LIKE 'sqlite_%'"
        self.assertEqual(connection.execute(lax).fetchall(), [])
        self.assertEqual(connection.execute("SELECT * FROM log").get, (1, "epoch-1", 0, 0, 0, None))
        file.close()
        self.open()
        self.assertEqual(connection.execute("SELECT epoch FROM log").get, "epoch-1")

    def test_connections_are_as_safe_as_was_asked_for(self) -> None:
        """The writer syncs as the durability says, a reader cannot write."""
        levels: dict[Durability, int] = {"full": 2, "normal": 1}
        for durability, level in levels.items():
            file = self.open(self.directory / durability, durability=durability)
            writer, reader = file.connect(), file.connect_reader()
            self.addCleanup(writer.close)
            self.addCleanup(reader.close)
            self.assertEqual(writer.pragma("synchronous"), level)
            self.assertEqual(writer.pragma("journal_mode"), "wal")
            with self.assertRaises(apsw.ReadOnlyError):
                reader.execute("UPDATE log SET head = 1")

    def test_an_empty_file_is_taken_as_a_new_one(self) -> None:
        """As `mktemp` leaves one; so is one of which nothing but the mode was written."""
        self.path.touch()
        self.open()
        half = self.directory / "half"
        self.raw(half).pragma("journal_mode", "wal")
        self.open(half)
        self.assertEqual(self.raw(half).pragma("application_id"), APPLICATION_ID)

    def test_a_file_that_is_no_database_is_refused(self) -> None:
        """However short it is."""
        for content in (b"xy", b"not a database\n" * 1000, os.urandom(8192)):
            self.path.write_bytes(content)
            self.refused(str(self.path.absolute()), "is not a database of chatsvc")

    def test_a_database_of_another_program_is_refused(self) -> None:
        """With tables, a format or a mark of its own."""
        for statement in (
            "CREATE TABLE log (one)",
            "PRAGMA user_version = 1",
            "PRAGMA application_id = 7; CREATE TABLE t (x)",
        ):
            self.path.unlink(missing_ok=True)
            other = apsw.Connection(str(self.path))
            other.execute(statement)
            other.close()
            self.refused("is not a database of chatsvc")

    def test_a_newer_format_is_refused(self) -> None:
        """With both numbers."""
        self.open(migrations=[*MIGRATIONS, ONE_MORE]).close()
        self.refused("newer chatsvc", f"format is {len(MIGRATIONS) + 1}", f"to {len(MIGRATIONS)}")

    def test_a_file_without_its_tables_is_refused(self) -> None:
        """Whatever has taken one of them away."""
        self.open().close()
        connection = apsw.Connection(str(self.path))
        connection.execute("DROP TABLE hearings")
        connection.close()
        self.refused("hearings")

    def test_a_damaged_file_is_refused(self) -> None:
        """Where its head was overwritten, or its tail is gone."""
        self.open().close()
        sound = self.path.read_bytes()
        self.path.write_bytes(sound[:100] + b"\xff" * 4000 + sound[4100:])
        self.refused("is damaged; restore a backup")
        self.path.write_bytes(sound[: len(sound) // 2])
        self.refused("is damaged; restore a backup")
        self.path.write_bytes(sound)
        self.open()


class TheEpoch(FileCase):
    """The name of the log, which is another one where a power failure may have taken its end."""

    def epoch(self, durability: Durability, *, clean: bool = True) -> str:
        """Start and stop, and tell the log's name."""
        file = self.open(durability=durability)
        connection = file.connect()
        epoch = str(connection.execute("SELECT epoch FROM log").get)
        if clean:
            file.leave_clean(connection)
        connection.close()
        file.close()
        return epoch

    def go_down(self) -> None:
        """The machine is not the same boot any more as when the file was in use."""
        connection = self.raw()
        connection.execute("UPDATE log SET boot = 'another' WHERE boot IS NOT NULL")
        connection.close()

    def test_it_stays(self) -> None:
        """Over restarts, stopped or killed, however durable; and when the durability changes."""
        changes: list[Durability] = ["full", "normal", "normal", "full", "full"]
        for clean in (True, False):
            for durability in changes:
                self.assertEqual(self.epoch(durability, clean=clean), "epoch-1")

    def test_it_is_renewed_when_the_machine_went_down_in_normal(self) -> None:
        """Once: the next start, in either durability, has a new one that stays."""
        durabilities: list[Durability] = ["normal", "full"]
        for renewed, durability in enumerate(durabilities, 2):
            self.epoch("normal", clean=False)
            self.go_down()
            self.assertEqual(self.epoch(durability), f"epoch-{renewed}")
            self.assertEqual(self.epoch(durability), f"epoch-{renewed}")

    def test_it_stays_when_the_machine_went_down_after_a_clean_stop(self) -> None:
        """All was on the disk then."""
        self.epoch("normal")
        self.go_down()
        self.assertEqual(self.epoch("normal"), "epoch-1")

    def test_it_stays_when_the_machine_went_down_in_full(self) -> None:
        """All is on the disk always; also when the server ran in normal before, and was killed."""
        self.epoch("normal", clean=False)
        self.epoch("full", clean=False)
        self.go_down()
        self.assertEqual(self.epoch("full"), "epoch-1")

    def test_that_an_end_may_be_lost_is_on_the_disk_before_one_is_written(self) -> None:
        """Also where another program has the file open, so that closing it brings nothing there."""
        self.open().close()
        self.raw().execute("SELECT * FROM log").fetchall()
        disk = Disk()
        file = LogFile(self.path, new_epoch=self.new_epoch, durability="normal", vfs=disk.name)
        file.open()
        self.addCleanup(file.close)
        done = [each.kind for each in disk.operations if each.file.endswith("-wal")]
        self.assertIn("write", done)
        self.assertEqual(done[-1], "sync")
