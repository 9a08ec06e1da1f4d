"""The database file: who may open it, in which format it is, and copies of it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite.file import Durability, LogFile, Unusable, copy_database
from chatsvc.store.sqlite.schema import APPLICATION_ID, MIGRATIONS
from tests.fakes import counter
from tests.faulty_vfs import Disk

ONE_MORE = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO more VALUES ('new');"
BROKEN = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO nothing VALUES (1);"


class _Files(SynchronousTestCase):
    """Files in a directory of the test's own; each new log is called by the next number."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "chat.sqlite"
        self.new_epoch = counter("epoch-")

    def open(
        self,
        path: Path | None = None,
        *,
        durability: Durability = "full",
        migrations: Sequence[str] = MIGRATIONS,
    ) -> LogFile:
        """Open a file, until the end of the test."""
        file = LogFile(
            path or self.path,
            new_epoch=self.new_epoch,
            durability=durability,
            migrations=migrations,
        )
        file.open()
        self.addCleanup(file.close)
        return file

    def refused(self, *words: str, path: Path | None = None) -> str:
        """Check that the file is refused in so many words, and that it is left as it was."""
        path = path or self.path
        before = path.read_bytes() if path.is_file() else None
        with self.assertRaises(Unusable) as caught:
            self.open(path)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(path.read_bytes() if path.is_file() else None, before)
        return str(caught.exception)

    def raw(self, path: Path | None = None) -> apsw.Connection:
        """The database as another program sees it."""
        connection = apsw.Connection(str(path or self.path))
        self.addCleanup(connection.close)
        return connection

    def names(self) -> set[str]:
        """What there is in the directory."""
        return {path.name for path in self.directory.iterdir()}


class WhoMayOpenIt(_Files):
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


class WhereItIs(_Files):
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


class TheFormat(_Files):
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
        self.assertEqual(connection.execute("SELECT * FROM log").get, (1, "epoch-1", 0, 0, None))
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


class Migrations(_Files):
    """An older file becomes one of the present format; a copy of it is kept."""

    def old(self) -> None:
        """Have a file of the first format, with something in it."""
        file = self.open()
        connection = file.connect()
        connection.execute("UPDATE log SET head = 7")
        connection.close()
        file.close()

    def test_it_is_copied_first(self) -> None:
        """The copy opens as what it was; the file has what the migration brings, and its log."""
        self.old()
        self.open(migrations=[*MIGRATIONS, ONE_MORE])
        now = self.raw()
        self.assertEqual(now.pragma("user_version"), len(MIGRATIONS) + 1)
        self.assertEqual(
            now.execute("SELECT name, head, epoch FROM more, log").get[1:], (7, "epoch-1")
        )
        copy = self.directory / f"chat.sqlite.format-{len(MIGRATIONS)}"
        self.assertEqual(self.raw(copy).pragma("user_version"), len(MIGRATIONS))
        self.open(copy)
        self.assertEqual(self.raw(copy).execute("SELECT head, epoch FROM log").get, (7, "epoch-1"))

    def test_it_is_done_once(self) -> None:
        """The next start finds the format as it should be, and copies nothing."""
        self.old()
        self.open(migrations=[*MIGRATIONS, ONE_MORE]).close()
        before = self.names()
        self.open(migrations=[*MIGRATIONS, ONE_MORE])
        self.assertEqual(self.names() - {"chat.sqlite-wal", "chat.sqlite-shm"}, before)

    def test_several_are_done_at_once_and_in_order(self) -> None:
        """With one copy, of the format there was."""
        self.old()
        scripts = [ONE_MORE, "ALTER TABLE more ADD COLUMN age INTEGER", "UPDATE more SET age = 3"]
        self.open(migrations=[*MIGRATIONS, *scripts])
        self.assertEqual(self.raw().execute("SELECT * FROM more").get, ("new", 3))
        self.assertEqual(self.raw().pragma("user_version"), len(MIGRATIONS) + 3)
        copies = {name for name in self.names() if ".format-" in name}
        self.assertEqual(copies, {f"chat.sqlite.format-{len(MIGRATIONS)}"})

    def test_a_name_that_is_taken_is_left_alone(self) -> None:
        """The copy is numbered."""
        self.old()
        name = f"chat.sqlite.format-{len(MIGRATIONS)}"
        for taken in (name, f"{name}-2"):
            (self.directory / taken).write_bytes(b"something else")
        self.open(migrations=[*MIGRATIONS, ONE_MORE])
        self.assertEqual((self.directory / name).read_bytes(), b"something else")
        self.assertEqual(
            self.raw(self.directory / f"{name}-3").execute("SELECT head FROM log").get, 7
        )

    def test_one_that_fails_changes_nothing(self) -> None:
        """Nor do those before it; the file can be used as before."""
        self.old()
        before = self.path.read_bytes()
        with self.assertRaises(Unusable):
            self.open(migrations=[*MIGRATIONS, "UPDATE log SET head = 8", BROKEN])
        self.assertEqual(self.path.read_bytes(), before)
        self.open()
        self.assertEqual(self.raw().execute("SELECT head, epoch FROM log").get, (7, "epoch-1"))

    def test_one_that_fails_leaves_no_copy(self) -> None:
        """However often it is tried, the disk is not filled with copies of what is still there."""
        self.old()
        for _ in range(2):
            with self.assertRaises(Unusable):
                self.open(migrations=[*MIGRATIONS, BROKEN])
        self.assertEqual([name for name in self.names() if ".format-" in name], [])


class TheEpoch(_Files):
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


class Copies(_Files):
    """`copy_database`."""

    def setUp(self) -> None:
        """Have a log with something in it that is written to."""
        super().setUp()
        self.writer = self.open().connect()
        self.addCleanup(self.writer.close)
        self.target = self.directory / "copy"
        self.write(2000)

    def write(self, count: int) -> None:
        """Commit so much in one transaction: as many marks as the head says."""
        with self.writer:
            self.writer.execute("UPDATE log SET head = head + ?", (count,))
            self.writer.execute(
                "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT ?) "
                "INSERT INTO marks SELECT hex(randomblob(200)), i, 1 FROM n",
                (count,),
            )

    def copy(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Copy over a connection of its own."""
        source = apsw.Connection(str(self.path))
        try:
            copy_database(source, self.target, progress)
        finally:
            source.close()

    def test_it_is_of_one_moment(self) -> None:
        """Whatever is committed while it is made."""
        told: list[tuple[int, int]] = []

        def progress(done: int, total: int) -> None:
            told.append((done, total))
            self.write(100)

        self.copy(progress)
        copy = self.raw(self.target)
        self.assertEqual(copy.execute("SELECT head FROM log").get, 2000)
        self.assertEqual(copy.execute("SELECT count(*) FROM marks").get, 2000)
        self.assertEqual(copy.pragma("integrity_check"), "ok")
        self.assertGreater(len(told), 1)
        self.assertEqual(told, sorted(told))
        self.assertEqual({total for _, total in told}, {told[-1][0]})

    def test_it_is_one_file_for_its_owner(self) -> None:
        """Nothing beside it is needed; a server opens it as it is."""
        before = self.names()
        self.copy()
        self.assertEqual(self.names() - before, {"copy"})
        self.assertEqual(self.target.stat().st_mode & 0o077, 0)
        self.assertEqual(self.raw(self.target).pragma("journal_mode"), "delete")
        self.open(self.target)

    def test_nothing_is_overwritten(self) -> None:
        """A file that is there stays as it is."""
        self.target.write_bytes(b"something else")
        self.assertRaises(FileExistsError, self.copy)
        self.assertEqual(self.target.read_bytes(), b"something else")

    def test_a_failure_leaves_nothing_behind(self) -> None:
        """Neither a part of the copy, nor anything beside it."""
        before = self.names()
        self.assertRaises(ZeroDivisionError, self.copy, lambda done, _: done // 0)
        self.assertEqual(self.names(), before)
        self.copy()

    def test_it_needs_a_place(self) -> None:
        """Where there is no directory, nothing is made."""
        self.target = self.directory / "missing" / "copy"
        self.assertRaises(FileNotFoundError, self.copy)
