"""The log as spans, read from the database, against a plain list of entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.store import Member
from chatsvc.store.spans import Mark, Span, runs_of
from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.reader import NAMES, PAGE_BYTES, Reader
from chatsvc.store.sqlite.schema import columns_of
from chatsvc.store.sqlite.statements import Insert
from chatsvc.store.sqlite.writer import INSERT_ENTRIES, PUT_RETAINED, _text
from chatsvc.topics import matches
from tests.store_suite.driver import group, seqs, to, topic

Kind: TypeAlias = Literal["message", "joined", "left", "role"]

USERS = ("a", "b", "a-b")
GROUPS = ("a", "devs")
TOPICS = ("a", "a/b")
HEAD = 60
"""The last place that entries stand at here, or less."""


kinds: st.SearchStrategy[Kind] = st.sampled_from(("message", "joined", "left", "role"))


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Any entries, at any places in order."""
    addresses = [*map(to, USERS), *map(group, GROUPS), *map(topic, TOPICS)]
    found = []
    for seq in sorted(draw(st.sets(st.integers(1, HEAD), min_size=20))):
        address = draw(st.sampled_from(addresses))
        kind = draw(kinds) if address.kind == "group" else "message"
        sender = draw(st.sampled_from(USERS))
        found.append(Entry(seq=seq, ts=seq, kind=kind, sender=sender, address=address))
    return found


RUNS = (
    *("d/a|a", "d/a|a-b", "d/a|b", "d/b|b", "d/a-b|b", "d/a-b|a-b"),
    *("g/a", "g/devs", "e/a", "e/devs", "t/a", "t/a/b"),
    *(f"{letter}/{user}" for letter in "sr" for user in USERS),
    "d/zed|zed",
)

ends = st.integers(-1, HEAD + 2)
span_lists = st.lists(
    st.builds(
        Span, st.sampled_from(RUNS), st.integers(-1, HEAD // 2), st.integers(HEAD // 3, HEAD + 2)
    ),
    min_size=3,
    max_size=12,
)


def within(entries: Iterable[Entry], span: Span) -> list[Entry]:
    """The entries of a span."""
    return [e for e in entries if span.run in runs_of(e) and span.after < e.seq <= span.until]


def apart(entries: Sequence[Entry], spans: Iterable[Span]) -> tuple[list[Span], list[Entry]]:
    """Those of the spans that have no entry in common with one before, and what they have."""
    kept: list[Span] = []
    held: list[Entry] = []
    for span in spans:
        more = within(entries, span)
        if not {*seqs(more)} & {*seqs(held)}:
            kept.append(span)
            held += more
    return kept, sorted(held, key=lambda entry: entry.seq)


def mark(entry: Entry) -> Mark:
    """What is told of an entry without reading it."""
    address = entry.address
    return Mark(entry.seq, entry.sender, address.name if address.kind == "topic" else None)


class _Reading(SynchronousTestCase):
    """A reader of a new file, and a connection that fills it."""

    def setUp(self) -> None:
        """Open both."""
        file = LogFile(Path(self.mktemp()), new_epoch=lambda: "e", durability="normal")
        file.open()
        self.addCleanup(file.close)
        self.connection = file.connect()
        self.addCleanup(self.connection.close)
        self.file = file
        self.reader = self.new_reader()

    def new_reader(self) -> Reader:
        """One more reader, which knows nothing yet."""
        reader = Reader(self.file.connect_reader())
        self.addCleanup(reader.close)
        return reader

    def write(self, entries: Sequence[Entry], placed: int = HEAD) -> None:
        """Have just these entries in the log, those up to ``placed`` with their places."""
        with self.connection:
            self.connection.execute("DELETE FROM entries")
            self.connection.execute("DELETE FROM places")
            rows = [(*columns_of(entry), _text(entry)) for entry in entries]
            INSERT_ENTRIES.run(self.connection, rows)
            self.connection.execute(places.STATEMENTS["place"], (0, placed))
            self.connection.execute("UPDATE log SET head = ?, placed = ?", (HEAD, placed))

    def fill(self, entries: Sequence[Entry], placed: int = HEAD) -> None:
        """As :meth:`write`, for a reader that has just come."""
        self.write(entries, placed)
        self.reader.close()
        self.reader = self.new_reader()
        with self.reader.snapshot():
            pass

    def retain(self, entries: Sequence[Entry]) -> None:
        """Have just these entries retained."""
        with self.connection:
            self.connection.execute("DELETE FROM retained")
            rows = [(entry.address.name, entry.seq, _text(entry)) for entry in entries]
            PUT_RETAINED.run(self.connection, rows)


class MergingSpans(_Reading):
    """Any spans of any entries, together in the order of the log."""

    def test_spans_are_read_in_either_order(self) -> None:
        """The first or the last of all together, and whether there are more."""

        @settings(deadline=None, database=None, max_examples=200)
        @given(logs(), span_lists, st.integers(1, 8), st.integers(0, HEAD))
        def hold(entries: list[Entry], wanted: list[Span], limit: int, placed: int) -> None:
            self.fill(entries, placed)
            spans, expected = apart(entries, wanted)
            whole = len(expected) <= limit
            self.assertEqual(self.reader.read(spans, limit), (expected[:limit], whole))
            expected.reverse()
            back = self.reader.read(spans, limit, newest_first=True)
            self.assertEqual(back, (expected[:limit], whole))
            marks = [mark(entry) for entry in expected[:limit]]
            self.assertEqual(self.reader.marks(spans, limit), marks)

        hold()

    def test_entries_of_conversations_are_counted(self) -> None:
        """At least as far as the most that is asked about, and one."""

        @settings(deadline=None, database=None, max_examples=100)
        @given(logs(), span_lists, st.integers(0, 12), st.integers(0, HEAD))
        def hold(entries: list[Entry], wanted: list[Span], most: int, placed: int) -> None:
            self.fill(entries, placed)
            spans = [span for span in wanted if span.run[0] not in "sr"]
            count = sum(len(within(entries, span)) for span in spans)
            self.assertEqual(min(self.reader.count(spans, most), most + 1), min(count, most + 1))

        hold()

    def test_all_that_was_sent_to_topics_is_one_run(self) -> None:
        """In either order, between two places."""

        @settings(deadline=None, database=None, max_examples=100)
        @given(entries=logs(), after=ends, until=ends, limit=st.integers(1, 12))
        def hold(entries: list[Entry], after: int, until: int, limit: int) -> None:
            self.fill(entries)
            expected = [
                mark(entry)
                for entry in entries
                if entry.address.kind == "topic" and after < entry.seq <= until
            ]
            self.assertEqual(self.reader.topics(after, until, limit), expected[:limit])
            back = self.reader.topics(after, until, limit, newest_first=True)
            self.assertEqual(back, expected[::-1][:limit])

        hold()

    def test_all_of_an_entry_comes_back(self) -> None:
        """Whatever stands in it."""
        entries = [
            Entry(
                seq=7,
                ts=123,
                kind="message",
                sender="a",
                address=to("b"),
                origin="s1",
                msg="\u0000\u2028é",
                data=b'{"a":[1e400]}',
                key="\u0000'",
                reply_to=2**53 + 1,
            ),
            Entry(
                seq=9,
                ts=2**53 + 1,
                kind="role",
                sender="a",
                address=group("devs"),
                user="b",
                role="owner",
                audience=frozenset({"a", "b"}),
            ),
        ]
        self.fill(entries)
        spans = [Span("s/a", 0, HEAD), Span("e/devs", 0, HEAD)]
        self.assertEqual(self.reader.read(spans, 10).entries, entries)

    def test_a_thousand_spans_are_read_at_once(self) -> None:
        """As of somebody in so many groups."""
        entries = [
            Entry(seq=seq, ts=0, kind="message", sender="a", address=group(f"g{seq % 1000}"))
            for seq in range(1, 2001)
        ]
        self.fill(entries, 2000)
        spans = [Span(f"g/g{number}", 0, 2000) for number in range(1000)]
        self.assertEqual(self.reader.read(spans, 2000), (entries, True))


class AsTheLogGrows(_Reading):
    """One reader, as entries come, get their places and expire."""

    def test_a_reader_goes_with_the_log(self) -> None:
        """Each snapshot has what was committed before it, wherever the index ends."""
        steps = st.lists(st.sampled_from(("come", "place", "expire", "look")), max_size=12)

        @settings(deadline=None, database=None, max_examples=150)
        @given(logs(), steps, span_lists)
        def hold(entries: list[Entry], steps: list[str], wanted: list[Span]) -> None:
            self.write([], 0)
            reader = self.new_reader()
            head = floor = 0
            for step in (*steps, "look"):
                there = [entry for entry in entries if floor < entry.seq <= head]
                if step == "come":
                    new = [entry for entry in entries if head < entry.seq][:4]
                    rows = [(*columns_of(entry), _text(entry)) for entry in new]
                    INSERT_ENTRIES.run(self.connection, rows)
                    head = new[-1].seq if new else head
                    self.connection.execute("UPDATE log SET head = ?", (head,))
                elif step == "place":
                    placed = self.connection.execute("SELECT placed FROM log").get
                    self.connection.execute(places.STATEMENTS["place"], (placed, head))
                    self.connection.execute("UPDATE log SET placed = ?", (head,))
                elif step == "expire" and there:
                    floor = there[len(there) // 2].seq
                    self.connection.execute(places.STATEMENTS["remove"], (0, floor))
                    self.connection.execute("DELETE FROM entries WHERE seq <= ?", (floor,))
                    self.connection.execute("UPDATE log SET floor = ?", (floor,))
                else:
                    spans, expected = apart(there, wanted)
                    with reader.snapshot():
                        self.assertEqual(reader.read(spans, HEAD), (expected, True))
            self.connection.execute("UPDATE log SET head = 0, floor = 0")

        hold()


class LargeMessages(_Reading):
    """A page is cut where it has become large, but never before its first entry."""

    def sized(self, *sizes: int) -> list[Entry]:
        """Entries with texts of so many bytes, one topic each."""
        return [
            Entry(
                seq=seq, ts=0, kind="message", sender="a", address=topic(f"t{seq}"), msg="x" * size
            )
            for seq, size in enumerate(sizes, 1)
        ]

    def test_a_page_is_cut_where_it_is_large(self) -> None:
        """What comes is the first in either order, and it is said that there is more."""
        entries = self.sized(300_000, 300_000, 10, 600_000, 10)
        spans = [Span(f"t/t{seq}", 0, HEAD) for seq in range(1, 6)]
        self.fill(entries)
        self.assertEqual(self.reader.read(spans, 10), (entries[:2], False))
        back = self.reader.read(spans, 10, newest_first=True)
        self.assertEqual(back, (entries[:2:-1], False))

    def test_a_page_of_new_ones_is_cut_as_well(self) -> None:
        """Wherever the index ends, what comes is less than two pages and its last entry."""
        entries = self.sized(300_000, 300_000, 10, 600_000, 10)
        spans = [Span(f"t/t{seq}", 0, HEAD) for seq in range(1, 6)]
        for placed in range(5):
            self.fill(entries, placed)
            for newest_first, ordered in ((False, entries), (True, entries[::-1])):
                found, whole = self.reader.read(spans, 10, newest_first=newest_first)
                self.assertEqual(found, ordered[: len(found)])
                self.assertEqual(whole, len(found) == len(entries))
                self.assertGreater(len(found), 0)
                most = sum(len(entry.msg or "") for entry in found[:-1])
                self.assertLess(most, 2 * PAGE_BYTES)
        self.fill(entries, 0)
        self.assertEqual(self.reader.read(spans, 10), (entries[:1], False))

    def test_one_too_large_for_a_page_comes_alone(self) -> None:
        """So that whoever reads gets further; alone in its span it is all there is."""
        entries = self.sized(2_000_000, 10)
        spans = [Span("t/t1", 0, HEAD), Span("t/t2", 0, HEAD)]
        for placed in (HEAD, 0):
            self.fill(entries, placed)
            self.assertEqual(self.reader.read(spans, 10), (entries[:1], False))
            self.assertEqual(self.reader.read(spans[:1], 10), (entries[:1], True))
            self.assertEqual(self.reader.read(spans, 1), (entries[:1], False))

    def test_retained_ones_are_cut_too(self) -> None:
        """In the order in which the topics are asked for."""
        entries = self.sized(10, 300_000, 300_000, 2_000_000)
        self.retain(entries)
        found = self.reader.read_retained(["t2", "t3", "t1"])
        self.assertEqual(found, (entries[1:3], False))
        found = self.reader.read_retained(["t4", "t1"])
        self.assertEqual(found, (entries[3:], False))
        found = self.reader.read_retained(["t3", "t1"])
        self.assertEqual(found, ([entries[2], entries[0]], True))
        self.assertEqual(self.reader.read_retained([]), ([], True))


levels = st.sampled_from(("a", "b", "0", "a0", "a.b", "a-b", "A", "@", "_", "."))
topic_names = st.lists(levels, min_size=1, max_size=3).map("/".join)


@st.composite
def topic_filters(draw: st.DrawFn) -> str:
    """Any filter over these levels."""
    parts = draw(st.lists(levels | st.just("+"), max_size=3))
    if not parts or draw(st.booleans()):
        parts.append("#")
    return "/".join(parts)


class RetainedTopics(_Reading):
    """Which topics have a retained message that a filter means."""

    def test_a_filter_finds_just_those_it_matches(self) -> None:
        """Whatever stands beside them in the order of names."""

        @settings(deadline=None, database=None, max_examples=200)
        @given(
            found=st.lists(topic_names, unique=True, max_size=20),
            wanted=st.lists(topic_filters(), min_size=1, max_size=5),
        )
        def hold(found: list[str], wanted: list[str]) -> None:
            self.retain(
                [
                    Entry(seq=seq, ts=0, kind="message", sender="a", address=topic(name))
                    for seq, name in enumerate(found, 1)
                ]
            )
            for topic_filter in wanted:
                expected = [p for p in enumerate(found, 1) if matches(topic_filter, p[1])]
                self.assertEqual(sorted(self.reader.retained(topic_filter)), expected)

        hold()

    def test_names_around_a_level_are_no_part_of_it(self) -> None:
        """What begins alike but goes on without a slash."""
        names = ["a", "a/b", "a/b/c", "a0", "a-b", "a.b", "aa", "a/", "b"]
        entries = [
            Entry(seq=seq, ts=0, kind="message", sender="a", address=Address("topic", name))
            for seq, name in enumerate(names, 1)
        ]
        self.retain(entries)
        self.assertEqual([name for _, name in self.reader.retained("a/#")], ["a", "a/b", "a/b/c"])
        self.assertEqual([name for _, name in self.reader.retained("a/+")], ["a/b"])
        self.assertEqual([name for _, name in self.reader.retained("a")], ["a"])

    def test_more_than_one_look_finds_are_all_found(self) -> None:
        """Each once."""
        names = sorted(f"t/{number}" for number in range(2 * NAMES + 1))
        with self.connection:
            PUT_RETAINED.run(self.connection, [(name, 1, "{}") for name in ["s", *names, "u"]])
        for topic_filter in ("t/#", "t/+"):
            self.assertEqual([name for _, name in self.reader.retained(topic_filter)], names)
        self.assertEqual(len(list(self.reader.retained("#"))), len(names) + 2)


class OfOneMoment(_Reading):
    """A snapshot is of what was committed before it began."""

    def test_what_is_committed_meanwhile_is_not_seen(self) -> None:
        """Neither entries, nor the head, nor who belongs where; the next snapshot has it all."""
        first = Entry(seq=1, ts=0, kind="message", sender="a", address=to("b"))
        spans = [Span("d/a|b", 0, HEAD)]
        self.fill([first])
        with self.reader.snapshot():
            self.assertEqual((self.reader.head, self.reader.floor), (HEAD, 0))
            self.write([])
            self.connection.execute("UPDATE log SET head = 99, floor = 98")
            Insert("users", 4).run(self.connection, [("a", 0, 1, 5)])
            Insert("groups", 3).run(self.connection, [("devs", 3, 1)])
            Insert("members", 4).run(self.connection, [("devs", "a", "owner", 3)])
            self.assertEqual(self.reader.read(spans, 5), ([first], True))
            self.assertIsNone(self.reader.find_user("a"))
            self.assertIsNone(self.reader.born("devs", "a"))
            self.assertEqual(self.reader.members("devs", None, 5), [])
            self.assertEqual((self.reader.head, self.reader.floor), (HEAD, 0))
        with self.reader.snapshot():
            self.assertEqual((self.reader.head, self.reader.floor), (99, 98))
            self.assertEqual(self.reader.read(spans, 5), ([], True))
            self.assertIsNotNone(self.reader.find_user("a"))
            self.assertEqual(self.reader.born("devs", "a"), 3)
            self.assertIsNone(self.reader.born("devs", "b"))
            self.assertEqual(self.reader.members("devs", None, 5), [Member("a", "owner")])
            self.assertEqual(self.reader.members("devs", "a", 5), [])

    def test_a_reading_that_fails_ends_its_moment(self) -> None:
        """The next one sees what was committed since."""
        with self.assertRaises(ZeroDivisionError), self.reader.snapshot():
            self.connection.execute("UPDATE log SET head = 99")
            _ = 1 // 0
        with self.reader.snapshot():
            self.assertEqual(self.reader.head, 99)
