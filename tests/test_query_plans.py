"""How SQLite goes about the store's statements: by index, never by looking through a table."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite import expiry, places, reader, records, writer
from chatsvc.store.sqlite.file import Durability, LogFile

TABLES = (
    *("entries", "keys", "retained", "users", "devices", "unseen", "hearings", "groups"),
    *("members", "marks", "places"),
)
"""All tables that grow; the log's own has one row."""

SPANS = '[["d/u1|u2",0,900],["r/u1",0,900],["s/u1",0,900],["g/g1",0,900],["t/a/b",0,900]]'
VALUES: dict[str, tuple[Any, ...]] = {
    "reader bounds": (),
    "reader count": (SPANS, 10),
    "reader read": (SPANS, 51, 10_000),
    "reader read back": (SPANS, 51, 10_000),
    "reader marks": (SPANS, 51),
    "reader topics": (0, 900, 50),
    "reader topics back": (0, 900, 50),
    "reader retained": ("a/b",),
    "reader retained below": ("a/", "a0", 50),
    "reader read retained": ('["a/b","a/c"]', 10_000),
    "reader born": ("g1", "u1"),
    "reader members": ("g1", "", 50),
    "writer keys": ('[["u1","k1"],["u2","k2"]]',),
    "writer received": ("u1", 0, 50, 900),
    "writer message": ("d/u1|u2", 5),
    "writer any": ("d/u1|u2", 900),
    "writer above": (900,),
    "writer retained": ("a/b",),
    "writer clear": ("a/b",),
    "expiry oldest": (50,),
    "expiry unseen": (500,),
    "expiry expire": (100,),
    "writer stored": (),
    "writer bounds": (900, 100, 800),
    "places place": (0, 900),
    "places remove": (0, 900),
    "places waiting": (),
    "reader newest": (900,),
    "records user": ("u1",),
    "records group": ("g1",),
    "records mark": ("u1", "d/u1|u2"),
}
"""Example values for each statement, as it is given them."""

INDEXES: dict[str, set[str]] = {
    "reader count": {"places"},
    "reader read": {"places", "rowid"},
    "reader read back": {"places", "rowid"},
    "reader marks": {"places", "rowid"},
    "reader newest": {"rowid"},
    "reader topics": {"entries_topic"},
    "reader topics back": {"entries_topic"},
    "writer received": {"places", "rowid"},
    "writer message": {"rowid"},
    "writer any": {"places", "rowid"},
    "writer above": {"rowid"},
    "expiry unseen": {"rowid"},
    "expiry expire": {"rowid"},
    "places place": {"rowid"},
    "places remove": {"places", "rowid"},
    "places waiting": {"rowid"},
}
"""By what each statement looks into the log: its places, an index, or "rowid", its own order."""
IN_ORDER = {"expiry oldest"}
"""Statements that go through the log from its beginning, as far as their limit."""


def statements() -> Iterator[tuple[str, str]]:
    """Every statement that asks or changes something, by its module and name."""
    for module in (reader, writer, expiry, places):
        for name, statement in module.STATEMENTS.items():
            yield f"{module.__name__.rpartition('.')[2]} {name}", statement
    yield "records user", records._USER
    yield "records group", records._GROUP
    yield "records mark", records._MARK


def aliases(statement: str) -> dict[str, str]:
    """The tables of a statement by the names they have in it."""
    found = re.findall(
        rf"\b(?:FROM|JOIN|UPDATE)\s+({'|'.join(TABLES)})\b(?:\s+AS\s+(\w+))?", statement
    )
    return {alias or table: table for table, alias in found}


class PlansCase(SynchronousTestCase):
    """A test with a file of the store."""

    def setUp(self) -> None:
        """A new file, and the connection that writes."""
        self.file = self.open_file("full")
        self.connection = self.file.connect()
        self.addCleanup(self.connection.close)

    def open_file(self, durability: Durability) -> LogFile:
        """A file of its own."""
        path = Path(self.mktemp())
        file = LogFile(path, new_epoch=lambda: "epoch-1", durability=durability)
        file.open()
        self.addCleanup(file.close)
        return file

    def plan(self, statement: str, values: tuple[Any, ...]) -> list[str]:
        """What SQLite would do, line by line."""
        rows = self.connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)
        return [str(detail) for _, _, _, detail in rows]

    def fill(self) -> None:
        """Put something into each table, and let SQLite learn how it is spread."""
        numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
        for table, values in (
            (
                "entries (seq, ts, talk, sender, receiver, topic, body)",
                """i, i, CASE i % 3 WHEN 0 THEN 'd/u1|u2' WHEN 1 THEN 'g/g1' ELSE 't/a/b' END,
                'u' || (i % 7), iif(i % 3 = 0, 'u' || (i % 5), NULL),
                iif(i % 3 = 2, 'a/b', NULL), '{}'""",
            ),
            ("keys", "'u' || (i % 7), i, x'00', i, i"),
            ("retained", "'a/' || i, i, '{}'"),
            ("users", "'u' || i, i, i % 2, i"),
            ("devices", "'u' || (i % 7), i, i, i"),
            ("unseen", "'u' || i, 'u' || (i % 7), 1"),
            ("hearings", "'u' || (i % 7), 'group', i, i, NULL"),
            ("groups", "'g' || i, i, 1"),
            ("members", "'g' || (i % 7), 'u' || i, 'member', i"),
            ("places", "'d/u' || (i % 7), i"),
            ("marks", "'u' || (i % 7), 'd/' || i, i"),
        ):
            self.connection.execute(f"{numbers} INSERT INTO {table} SELECT {values} FROM n")
        self.connection.execute("ANALYZE")


class QueryPlans(PlansCase):
    """Whatever is stored, a statement looks at what it asks for."""

    def check_all(self) -> None:
        """Check the plan of every statement."""
        for name, statement in statements():
            plan = self.plan(statement, VALUES[name])
            names = aliases(statement)
            searched: set[str] = set()
            for line in plan:
                what, _, rest = line.partition(" ")
                table = names.get(rest.split()[0]) if what in ("SCAN", "SEARCH") else None
                if what == "SCAN" and name not in IN_ORDER:
                    self.assertIsNone(table, f"{name} looks through a table: {line}")
                if what == "SEARCH" and table == "entries":
                    index = re.search(r"INDEX (\w+)|(INTEGER PRIMARY KEY)", line)
                    self.assertIsNotNone(index, line)
                    searched.add(index[1] or "rowid" if index else "")
                if what == "SEARCH" and table == "places":
                    self.assertIn("USING PRIMARY KEY", line)
                    searched.add("places")
            self.assertEqual(searched, INDEXES.get(name, set()), f"{name}:\n" + "\n".join(plan))

    def test_every_statement_has_values(self) -> None:
        """So that none is forgotten here; and all tables are known."""
        self.assertEqual({name for name, _ in statements()}, set(VALUES))
        select = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        found = {name for (name,) in self.connection.execute(select)}
        self.assertEqual(found, {*TABLES, "log"})

    def test_on_a_new_file(self) -> None:
        """By index, though there is nothing to be found."""
        self.check_all()

    def test_on_a_filled_file(self) -> None:
        """By index, whatever SQLite has learned of what is stored."""
        self.fill()
        self.check_all()

    def test_the_oldest_are_the_first_of_the_log(self) -> None:
        """No sorting: what is to expire stands at the beginning."""
        self.fill()
        plan = self.plan(expiry.STATEMENTS["oldest"], (50,))
        self.assertIn("SCAN entries", plan)
        self.assertNotIn("USE TEMP B-TREE FOR ORDER BY", plan)

    def test_spans_are_merged_without_sorting_all_of_them(self) -> None:
        """A span is entered at its beginning, in the order of its index."""
        self.fill()
        for name in ("read", "read back", "marks"):
            for line in self.plan(reader.STATEMENTS[name], VALUES[f"reader {name}"]):
                if "places" in line:
                    self.assertIn("(run=? AND seq>? AND seq<?)", line)

    def test_rows_of_a_batch_are_found_by_their_keys(self) -> None:
        """What is written anew is deleted first, by its primary key."""
        self.fill()
        for kind, (delete, _, _) in records._KINDS.items():
            plan = self.plan(delete, ('[["u1","g1","a"]]',))
            self.assertIn("SEARCH", plan[0], kind)
            self.assertIn("PRIMARY KEY", plan[0], kind)


class Connections(PlansCase):
    """How connections are set up."""

    def test_a_commit_is_synced(self) -> None:
        """Each one with durability "full"; with "normal" when the log is brought into the file."""
        self.assertEqual(self.connection.pragma("synchronous"), 2)
        self.assertEqual(self.connection.pragma("journal_mode"), "wal")
        normal = self.open_file("normal").connect()
        self.addCleanup(normal.close)
        self.assertEqual(normal.pragma("synchronous"), 1)
        self.assertEqual(normal.pragma("journal_mode"), "wal")

    def test_who_reads_cannot_write(self) -> None:
        """Whatever it tries."""
        connection = self.file.connect_reader()
        self.addCleanup(connection.close)
        self.assertEqual(connection.pragma("query_only"), 1)
        self.assertEqual(connection.pragma("journal_mode"), "wal")
        with self.assertRaises(apsw.ReadOnlyError):
            connection.execute("UPDATE log SET head = 1")
