"""A log of a million messages costs no more to read than one of a thousand, and takes no memory.

Costs are counted, not timed: what SQLite's machine does for a question, in steps.
"""

from __future__ import annotations

import functools
import gc
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.store import Append, DeviceKey, Interest
from chatsvc.store.reading import Reading
from chatsvc.store.sqlite.file import READER_CACHE, LogFile
from chatsvc.store.sqlite.reader import PAGE_BYTES, Reader
from chatsvc.store.sqlite.records import CachedTables
from chatsvc.store.sqlite.writer import COUNTED, Job, Task, Writer
from tests.fakes import DAY, make_clock
from tests.store_suite.driver import group, seqs, to, topic

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
UPDATE log SET head = {count};
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


class ReadingMuch(GrowthCase):
    """What is read costs the same, however much is stored."""

    def cost(self, stored: int, number: int, read: Read) -> Costs:
        """What it costs to read so many entries where so many are stored."""
        reader = self.reader(self.open(stored))
        with reader.snapshot():
            costs = Costs(reader._connection)
            entries = read(Reading(reader, reader, QUOTA), stored)
            reader._connection.trace_v2(0)
        self.assertEqual(len(entries), number)
        return costs

    def check(self, number: int, read: Read, base: int = FEW) -> None:
        """Check that reading so many entries costs the same with few stored and with many."""
        few, many = (self.cost(stored, number, read) for stored in (base, MANY))
        self.assertGreater(few.steps, number)
        self.assertLessEqual(many.steps, few.steps * DEEPER)
        self.assertLessEqual(many.scanned, few.scanned * DEEPER)

    def test_the_newest_of_a_conversation(self) -> None:
        """Fifty of a direct one, of a group and of a topic."""
        for user, address in (("alice", to("bob")), ("carol", group("g0")), ("erin", topic("a/0"))):
            self.check(50, newest(user, address))

    def test_the_conversation_around_a_message(self) -> None:
        """Fifty before and fifty after one in the middle."""
        bob = to("bob")
        self.check(50, lambda r, n: r.history("alice", bob, None, n // 2, 50).entries)
        self.check(50, lambda r, n: r.history("alice", bob, n // 2, None, 50).entries)

    def test_a_page_of_a_resume(self) -> None:
        """Of somebody with direct messages, or with many groups; the first and a last one."""
        for user in ("alice", "carol"):
            self.check(100, page(user))
            self.check(100, page(user, 900))

    def test_a_page_of_topics(self) -> None:
        """Of a durable filter with a wildcard, of a connection's, and of stored matches."""
        interests = [Interest("+/0", 0)]
        self.check(100, page("dave"), ENOUGH)
        self.check(100, page("dave", 9000), ENOUGH)
        self.check(100, lambda r, _: r.feed("frank", 0, 0, interests, 100).entries, ENOUGH)
        self.check(100, lambda r, n: r.matches("a/0", 0, n, 100).entries, ENOUGH)
        self.check(100, lambda r, n: r.matches("+/0", 0, n, 100).entries, ENOUGH)

    def test_where_a_reader_begins(self) -> None:
        """Whoever is nearly up to date is looked up at once."""
        for user in ("alice", "carol", "dave"):

            def start(reading: Reading, stored: int, user: str = user) -> Sequence[Entry]:
                self.assertIsNone(reading.start(user, stored - 500).loss)
                return ()

            self.check(0, start)


class WritingMuch(GrowthCase):
    """What is written costs the same, however much is stored."""

    def cost(self, stored: int, jobs: Sequence[Job]) -> Costs:
        """What it costs to commit a batch where so many are stored."""
        writer = self.writer(self.open(stored))
        proven: dict[DeviceKey, int] = {("alice", None): stored - 5000}
        writer.commit([Task(lambda rules: rules.save_positions(proven))])
        costs = Costs(writer._connected())
        for outcome in writer.commit(jobs):
            self.assertNotIsInstance(outcome.result, Exception)
        writer._connected().trace_v2(0)
        return costs

    def check(self, jobs: Sequence[Job]) -> None:
        """Check that a batch costs the same with few stored and with many."""
        few, many = (self.cost(stored, jobs) for stored in (ENOUGH, MANY))
        self.assertLessEqual(many.steps, few.steps * DEEPER)
        self.assertLessEqual(many.scanned, few.scanned * DEEPER)

    def test_a_batch(self) -> None:
        """A message with a key, one that replies, one to somebody for whom much waits."""
        self.check(
            [
                Append(op="send", user="bob", address=to("alice"), msg="hi", key="k", digest=b"d"),
                Append(op="send", user="carol", address=group("g0"), msg="hi", reply_to=13),
                Append(op="send", user="bob", address=topic("a/0"), msg="hi", retain=True),
                Append(op="join", user="bob", address=group("g0")),
            ]
        )

    def test_a_step_of_expiry(self) -> None:
        """It looks at what it removes, and at nothing that stays."""
        few, many = (self.expiry(stored) for stored in (ENOUGH, MANY))
        self.assertLessEqual(many.steps, few.steps * DEEPER)
        self.assertLessEqual(many.scanned, few.scanned * DEEPER)

    def expiry(self, stored: int) -> Costs:
        """What a step of expiry costs, which is not kept."""
        writer = self.writer(self.open(stored))
        connection = writer._connected()
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("INSERT INTO unseen VALUES ('u1', 'erin', 5)")
        costs = Costs(connection)
        self.clock.advance(40 * DAY)
        self.assertTrue(writer.expire())
        connection.trace_v2(0)
        connection.execute("ROLLBACK")
        return costs


class Memory(GrowthCase):
    """What the store keeps in memory does not grow with the log."""

    def setUp(self) -> None:
        """Have memory watched."""
        filled(FEW), filled(MANY)
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

    def taken(self) -> int:
        """Bytes that are in use by Python."""
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def kept(self, stored: int) -> int:
        """How many bytes a writer and a reader keep, when they have done something."""
        file = self.open(stored)
        before = self.taken()
        writer, reader = self.writer(file), self.reader(file)
        writer.commit([Append(op="send", user="bob", address=to("alice"), msg="hi")])
        after = 0
        while after < min(stored, 20 * FEW):
            with reader.snapshot():
                after = Reading(reader, reader, QUOTA).feed("alice", after, after, [], 500).upto
        return self.taken() - before

    def test_no_more_with_a_large_log(self) -> None:
        """A writer and a reader keep as much with a million messages as with a thousand."""
        self.kept(FEW)
        self.assertLess(abs(self.kept(MANY) - self.kept(FEW)), KIB)

    def test_sqlite_keeps_no_more_than_its_cache(self) -> None:
        """A reader that has gone through much holds few megabytes of the file."""
        reader = self.reader(self.open(MANY))
        connection = reader._connection
        self.assertGreater(connection.execute("SELECT sum(octet_length(body)) FROM entries").get, 0)
        used, _ = connection.status(apsw.SQLITE_DBSTATUS_CACHE_USED)
        self.assertLess(used, 1.25 * READER_CACHE * 1024)
        self.assertGreater(used, READER_CACHE * 1024 / 2)

    def test_records_that_nobody_uses_are_forgotten(self) -> None:
        """Groups and users stay in memory as far as there is room for their rows."""
        file = self.opened(Path(self.mktemp()))
        writer = self.writer(file)
        users = [f"u{number}" for number in range(300)]
        writer.commit([Append(op="join", user=user, address=group(user)) for user in users])
        tables = CachedTables(writer._connected, room=100)
        for user in users:
            self.assertIsNotNone(tables.find_user(user))
            self.assertIsNotNone(tables.find_group(user))
        tables.trim()
        self.assertEqual(list(tables._groups), users[-12:])
        self.assertEqual(list(tables._users), users[-12:])
        self.assertIsNotNone(tables.find_user("u0"))

    def test_what_is_written_is_not_kept(self) -> None:
        """Counts of what waits are kept for so many receivers; messages and keys are not."""
        writer = self.writer(self.opened(Path(self.mktemp())))
        names = [f"u{number}" for number in range(COUNTED + 1)]
        writer.commit([Task(lambda rules: [rules.admit(name) for name in names])])
        self.send_to(names, writer, "first")
        before = self.taken()
        self.send_to(names, writer, "second")
        self.assertLess(self.taken() - before, 200 * KIB)
        self.assertEqual(writer.head, 2 * len(names))

    def send_to(self, names: Sequence[str], writer: Writer, key: str) -> None:
        """Send something to everybody, in several batches."""
        for first in range(0, len(names), FEW):
            batch = names[first : first + FEW]
            writer.commit([self.direct(name, f"{key} {name}") for name in batch])
            self.assertLessEqual(len(writer._received), COUNTED)

    def direct(self, name: str, key: str) -> Append:
        """A message with a key."""
        return Append(op="send", user="bob", address=to(name), msg="hi", key=key, digest=b"d")


class LargeMessages(GrowthCase):
    """A page is bounded in bytes, not only in messages."""

    BOB = to("bob")
    LARGE = 500_000

    def test_a_page_is_cut_and_goes_on(self) -> None:
        """Of large messages it has few, at least one, and the next goes on where it ended."""
        file = self.opened(Path(self.mktemp()))
        writer, reader = self.writer(file), self.reader(file)
        large = [self.message("x" * self.LARGE) for _ in range(20)]
        small = [self.message("y") for _ in range(50)]
        writer.commit([*large, *small])
        found: list[int] = []
        after, complete = 0, False
        while not complete:
            with reader.snapshot():
                reading = Reading(reader, reader, QUOTA)
                page = reading.feed("bob", after, after, [], 200)
                history = reading.history("bob", to("alice"), after, None, 200)
            self.check_size(page.entries)
            self.assertEqual(seqs(history.entries), seqs(page.entries))
            self.assertEqual(history.complete, page.complete)
            found += seqs(page.entries)
            after, complete = page.upto, page.complete
        self.assertEqual(found, list(range(1, 71)))

    def test_the_newest_are_cut_too(self) -> None:
        """A page backwards, of a conversation and of retained messages."""
        file = self.opened(Path(self.mktemp()))
        writer, reader = self.writer(file), self.reader(file)
        writer.commit([self.message("x" * self.LARGE) for _ in range(5)])
        topics = [topic(f"a/{number}") for number in range(5)]
        writer.commit([self.message("x" * self.LARGE, name, retain=True) for name in topics])
        with reader.snapshot():
            reading = Reading(reader, reader, QUOTA)
            history = reading.history("bob", to("alice"), None, None, 200)
            retained = reading.retained("a/+", 0, 10, 200)
        self.check_size(history.entries)
        self.assertEqual(seqs(history.entries)[-1], 5)
        self.assertFalse(history.complete)
        self.check_size(retained.entries)
        self.assertEqual(seqs(retained.entries)[0], 6)
        self.assertFalse(retained.complete)

    def check_size(self, entries: Sequence[Entry]) -> None:
        """Check that a page has something, and ends with the entry that fills it."""
        self.assertGreater(len(entries), 0)
        before_last = sum(len(entry.msg or "") for entry in entries[:-1])
        self.assertLess(before_last, PAGE_BYTES)

    def message(self, msg: str, address: Address = BOB, *, retain: bool = False) -> Append:
        """A message of alice's."""
        return Append(op="send", user="alice", address=address, msg=msg, retain=retain)
