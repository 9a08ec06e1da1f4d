"""How a file becomes one of a newer format, and how one is copied."""

from __future__ import annotations

from collections.abc import Callable

import apsw

from chatsvc.store.sqlite.file import Unusable, copy_database
from chatsvc.store.sqlite.schema import MIGRATIONS
from tests.log_files import FileCase

ONE_MORE = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO more VALUES ('new');"
BROKEN = "CREATE TABLE more (name TEXT) STRICT; INSERT INTO nothing VALUES (1);"


class Migrations(FileCase):
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


class Copies(FileCase):
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
