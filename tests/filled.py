"""Logs of a thousand and of a million messages, and what it costs to use them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.store.reading import Reading
from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.reader import Reader
from chatsvc.store.sqlite.writer import Writer
from tests.fakes import DAY, make_clock

FEW, MANY = 1_000, 1_000_000
ENOUGH = 10_000
"""So many that a page with a wildcard looks at as many messages to topics as it ever does."""
QUOTA = 10_000
KIB = 1024
GROUPS = 100
"""All of them carol's; dave keeps one filter with a wildcard."""
DEEPER = 1.5
"""What a look into a higher tree may cost more."""

Read: TypeAlias = Callable[[Reading, int], Sequence[Entry]]
"""A reading, which is told how many entries are stored."""

FILL = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1),
part (number, talk, sender, kind, name) AS (VALUES
    (0, 'd/alice|bob', 'alice', 'to', 'bob'),
    (1, 'd/alice|bob', 'bob', 'to', 'alice'),
    (2, 'd/alice|bob', 'bob', 'to', 'alice'),
    (3, 'g/g0', 'erin', 'group', 'g0'),
    (4, 'g/g*', 'erin', 'group', 'g*'),
    (5, 't/a/0', 'erin', 'topic', 'a/0'),
    (6, 't/a/*', 'erin', 'topic', 'a/*'),
    (7, 'd/erin|u*', 'erin', 'to', 'u*'),
    (8, 'd/erin|u*', 'erin', 'to', 'u*'),
    (9, 't/b/*', 'erin', 'topic', 'b/*')),
message (seq, talk, sender, kind, name) AS (
    SELECT i, replace(talk, '*', i / 10 % ?2), sender, kind, replace(name, '*', i / 10 % ?2)
    FROM n JOIN part ON number = i % 10)
INSERT INTO entries (seq, ts, talk, sender, receiver, topic, body)
SELECT seq, 1000000000, talk, sender, iif(kind = 'to', name, NULL), iif(kind = 'topic', name, NULL),
    format('{"seq":%d,"ts":1000000000,"kind":"message","sender":"%s",'
        || '"address":{"kind":"%s","name":"%s"},"msg":"hi"}', seq, sender, kind, name)
FROM message
"""
"""The first ?1 entries, as the writer makes them: to people, to ?2 groups, to topics."""
BESIDE = """
INSERT INTO users SELECT value, 0, 1, 0 FROM json_each('["alice","bob","carol","dave","erin"]');
WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < {groups} - 1)
INSERT INTO groups SELECT 'g' || i, 1, 1 FROM n;
INSERT INTO members SELECT name, 'carol', 'owner', 1 FROM groups;
INSERT INTO hearings SELECT 'carol', 'group', name, 0, NULL FROM groups;
INSERT INTO hearings VALUES ('dave', 'topic', 'a/+', 0, NULL);
UPDATE log SET head = {count}, placed = {count};
"""


@functools.cache
def directory() -> TemporaryDirectory[str]:
    """Where the files are; it is removed at the end."""
    return TemporaryDirectory(prefix="chatsvc-growth-")


@functools.cache
def filled(count: int) -> Path:
    """A file with so many entries, and the few that tests add, on which nothing depends."""
    path = Path(directory().name) / str(count)
    file = LogFile(path, new_epoch=lambda: "epoch-1")
    file.open()
    connection = file.connect()
    connection.pragma("synchronous", "off")
    with connection:
        connection.execute(FILL, (count, GROUPS))
        connection.execute(places.STATEMENTS["place"], (0, count))
        connection.execute(BESIDE.format(groups=GROUPS, count=count))
    connection.close()
    file.close()
    return path


class GrowthCase(SynchronousTestCase):
    """A test that opens files of any size."""

    def open(self, stored: int) -> LogFile:
        """A file with so many entries."""
        return self.opened(filled(stored))

    def opened(self, path: Path) -> LogFile:
        """A file of the store, which others may open too."""
        file = LogFile(path, new_epoch=lambda: "epoch-1", durability="normal")
        file.open()
        file.close()
        return file

    def reader(self, file: LogFile) -> Reader:
        """A reader."""
        reader = Reader(file.connect_reader())
        self.addCleanup(reader.close)
        return reader

    def writer(self, file: LogFile) -> Writer:
        """A writer."""
        self.clock = make_clock()
        writer = Writer(file, self.clock, retention=30 * DAY, quota=QUOTA)
        writer.open()
        self.addCleanup(writer.close)
        return writer


class Costs:
    """What SQLite's machine has done over a connection: steps, and those from row to row."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.steps = 0
        self.scanned = 0
        connection.trace_v2(apsw.SQLITE_TRACE_PROFILE, self._add)

    def _add(self, event: Any) -> None:
        self.steps += event["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]
        self.scanned += event["stmt_status"]["SQLITE_STMTSTATUS_FULLSCAN_STEP"]


def newest(user: str, address: Address) -> Read:
    """The newest messages of a conversation."""
    return lambda reading, _: reading.history(user, address, None, None, 50).entries


def page(user: str, before_end: int | None = None) -> Read:
    """What a user missed, from the beginning or from so far before the end."""

    def read(reading: Reading, stored: int) -> Sequence[Entry]:
        after = 0 if before_end is None else stored - before_end
        return reading.feed(user, after, after, [], 100).entries

    return read
