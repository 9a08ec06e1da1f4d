"""A log is looked through, and everything that is wrong with it is told."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.file import Unusable
from chatsvc.store.sqlite.soundness import problems
from tests.logbook import sample, tables, written


class Soundness(SynchronousTestCase):
    """What does not fit together."""

    def setUp(self) -> None:
        """Write a log that is sound."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "chat.sqlite"
        with written(self.path) as log:
            sample(log)

    def after(self, *statements: str) -> list[str]:
        """What is wrong after something was done to the log; it is sound again then."""
        whole = self.path.read_bytes()
        with closing(apsw.Connection(str(self.path))) as connection:
            for statement in statements:
                connection.execute(statement)
        before = tables(self.path)
        found = list(problems(self.path))
        self.assertEqual(tables(self.path), before)
        self.path.write_bytes(whole)
        return found

    def test_a_sound_log_has_no_problems(self) -> None:
        """Also while it is open, and written to."""
        self.assertEqual(list(problems(self.path)), [])
        with written(self.path) as log:
            sample(log)
            self.assertEqual(list(problems(self.path)), [])

    def test_entries_stand_within_the_bounds(self) -> None:
        """Above the floor, up to the head."""
        for statement, words in (
            ("UPDATE log SET head = 12", "there is an entry 13, but the log ends with 12"),
            ("UPDATE log SET floor = 2", "there is an entry 2, but the log has expired up to 2"),
        ):
            self.assertEqual(self.after(statement), [words])
        self.assertEqual(
            self.after("DELETE FROM entries", "UPDATE log SET floor = 14"),
            ["the log has expired up to 14, but ends with 13"],
        )

    def test_columns_say_what_the_entry_says(self) -> None:
        """Each of them; and an entry is one."""
        for change in (
            "ts = 1",
            "talk = 'd/a|b'",
            "sender = 'bob'",
            "receiver = 'eve'",
            "receiver = NULL",
            "topic = 'a'",
            "body = replace(body, '\"seq\":2', '\"seq\":3')",
            "body = replace(body, 'alice', 'eve')",
            "body = ''",
        ):
            found = self.after(f"UPDATE entries SET {change} WHERE seq = 2")
            self.assertEqual(found, ["entry 2 is not what its columns say"], change)
        for change in ("seq = 3", "topic = 'a'", "body = '{}'"):
            found = self.after(f"UPDATE retained SET {change}")
            self.assertEqual(len(found), 1)
            self.assertIn("is not what its columns say", found[0])

    def test_entries_have_their_places(self) -> None:
        """Just those that they must have, as far as the log says that they have them."""
        self.place(5)
        self.assertEqual(list(problems(self.path)), [])
        run, seq = self.first_place()
        for statement, words in (
            (
                f"DELETE FROM places WHERE run = '{run}' AND seq = {seq}",
                f"entry {seq} has no place in {run}",
            ),
            (
                "UPDATE log SET placed = 4",
                "where it does not belong",
            ),
            (
                f"INSERT INTO places VALUES ('r/zed', {seq})",
                f"entry {seq} has a place in r/zed, where it does not belong",
            ),
            (
                f"INSERT INTO places VALUES ('{run}', 99)",
                f"entry 99 has a place in {run}, where it does not belong",
            ),
            ("UPDATE log SET placed = 99", "entries up to 99 have their places, but the log ends"),
        ):
            self.assertIn(words, "\n".join(self.after(statement)))

    def place(self, placed: int) -> None:
        """Give the entries up to this one their places, and no others."""
        with closing(apsw.Connection(str(self.path))) as connection:
            connection.execute("DELETE FROM places")
            connection.execute(places.STATEMENTS["place"], (0, placed))
            connection.execute("UPDATE log SET placed = ?", (placed,))

    def first_place(self) -> tuple[str, int]:
        """One of the places there are."""
        with closing(apsw.Connection(str(self.path))) as connection:
            run, seq = connection.execute("SELECT run, seq FROM places").fetchall()[0]
            return str(run), int(str(seq))

    def test_members_are_users_of_groups_and_hear_them(self) -> None:
        """And nobody else does."""
        for statement, words in (
            (
                "DELETE FROM users WHERE name = 'bob'",
                "bob is a member of devs, but no user",
            ),
            (
                "UPDATE members SET name = 'ops' WHERE user = 'bob'",
                "bob is a member of ops, which is no group",
            ),
            (
                "UPDATE hearings SET until = 13 WHERE user = 'bob' AND kind = 'group'",
                "bob is a member of devs, but does not hear it",
            ),
            (
                "DELETE FROM members WHERE user = 'bob'",
                "bob hears devs, but is no member of it",
            ),
            (
                "UPDATE hearings SET until = NULL WHERE user = 'alice'",
                "alice hears devs, but is no member of it",
            ),
        ):
            self.assertIn(words, self.after(statement))

    def test_damage_of_the_file_is_found(self) -> None:
        """Rows that do not stand in their order."""
        self.place(13)
        with closing(apsw.Connection(str(self.path))) as connection:
            connection.pragma("wal_checkpoint(truncate)")
            page, size = connection.execute(
                "SELECT rootpage, page_size FROM sqlite_schema, pragma_page_size"
                " WHERE name = 'places'"
            ).get
        content = bytearray(self.path.read_bytes())
        at = content.index(b"d/alice|bob", (page - 1) * size, page * size)
        content[at] = ord("x")
        self.path.write_bytes(content)
        self.assertIn("places", "".join(problems(self.path)))

    def test_worse_damage_is_told_as_well(self) -> None:
        """A page that cannot be read."""
        content = self.path.read_bytes()
        self.path.write_bytes(content[:8192] + b"x" * (len(content) - 8192))
        with self.assertRaisesRegex(Unusable, "is damaged; restore a backup"):
            list(problems(self.path))


class WhatIsNoLog(SynchronousTestCase):
    """It is said what it is instead, and it stays that."""

    def refuse(self, path: Path, words: str) -> None:
        """It cannot be checked, for that reason."""
        with self.assertRaisesRegex(Unusable, words):
            list(problems(path))

    def test_nothing_is_made(self) -> None:
        """Where there is nothing."""
        path = Path(self.mktemp())
        self.refuse(path, "is not there")
        self.assertFalse(path.exists())

    def test_a_directory_is_none(self) -> None:
        """Nor a device."""
        self.refuse(Path(), "is no file")
        self.refuse(Path("/dev/null"), "is no file")

    def test_another_file_is_none(self) -> None:
        """Empty, text, or another program's database."""
        path = Path(self.mktemp())
        for content in (b"", b"x" * 10_000):
            path.write_bytes(content)
            self.refuse(path, "is not a database of chatsvc")
            self.assertEqual(path.read_bytes(), content)
        path.unlink()
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE log (head INTEGER)")
        self.refuse(path, "is not a database of chatsvc")

    def test_another_format_is_told(self) -> None:
        """Older ones are for a server to change, newer ones for a newer program."""
        path = Path(self.mktemp())
        with written(path):
            pass
        with closing(apsw.Connection(str(path))) as connection:
            connection.pragma("user_version", 99)
        self.refuse(path, "is in format 99")
