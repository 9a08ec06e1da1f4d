"""What the store keeps in memory does not grow with the log."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import apsw

from chatsvc.messages.entries import Address, Entry
from chatsvc.store import Append
from chatsvc.store.reading import Reading
from chatsvc.store.sqlite.file import READER_CACHE
from chatsvc.store.sqlite.reader import PAGE_BYTES
from chatsvc.store.sqlite.records import CachedTables
from chatsvc.store.sqlite.writer import COUNTED, Task, Writer
from tests.filled import FEW, KIB, MANY, QUOTA, GrowthCase, filled
from tests.store_suite.driver import group, seqs, to, topic


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
        self.assertLess(abs(self.kept(MANY) - self.kept(FEW)), 4 * KIB)

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
