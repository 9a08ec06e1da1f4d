"""A log of a million messages costs no more to read than one of a thousand, and takes no memory.

Costs are counted, not timed: what SQLite's machine does for a question, in steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from chatsvc.messages.entries import Entry
from chatsvc.store import Append, DeviceKey, Interest
from chatsvc.store.reading import Reading
from chatsvc.store.sqlite.writer import Job, Task
from tests.fakes import DAY
from tests.filled import DEEPER, ENOUGH, FEW, MANY, QUOTA, Costs, GrowthCase, Read, newest, page
from tests.store_suite.driver import group, to, topic


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
