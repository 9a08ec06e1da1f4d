"""The log as spans and who belongs where, read from the database.

One statement reads any number of spans together: a recursive query whose queue holds the next entry
of each span and gives out the lowest (or the highest), as a merging of sorted lists does. It costs
one look into the index for each span and for each entry found, however much is stored.

The newest entries are not in the index yet (:mod:`chatsvc.store.sqlite.places`): they are kept in
memory, as a log of their own that ends where the reader's snapshot does. All of them are newer than
all that the index has, so what is in both is simply one after the other.

Whatever a statement finds comes as one row of JSON, made by SQLite: a thread gives up Python's lock
at every row, and has to wait for the reactor to have it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

import apsw
import msgspec

from chatsvc.messages.entries import Entry
from chatsvc.store import Member
from chatsvc.store.memory_log import MemoryLog, cost
from chatsvc.store.reading import Found
from chatsvc.store.spans import Mark, Span
from chatsvc.store.sqlite.records import load_user
from chatsvc.store.tables import User
from chatsvc.topics import matches

__all__ = ["STATEMENTS", "Reader"]

PAGE_BYTES: Final = 512 * 1024
"""What is read at once is cut here, so that a page of large messages takes no more memory."""
NAMES: Final = 5000
"""Topics with a retained message that are looked at by one statement."""

_encode = msgspec.json.Encoder().encode
_entries = msgspec.json.Decoder(list[Entry]).decode
_marks = msgspec.json.Decoder(list[Mark]).decode
_pairs = msgspec.json.Decoder(list[tuple[int, str]]).decode
_members = msgspec.json.Decoder(list[tuple[str, str]]).decode


def _next(run: str, after: str, until: str, order: str) -> str:
    """An expression for the first or last entry of a span, NULL where it is empty."""
    return f"""(SELECT seq FROM places
        WHERE run = {run} AND seq > {after} AND seq <= {until} ORDER BY seq {order} LIMIT 1)"""


def _merged(order: str) -> str:
    """A WITH clause for ``merged``: the first ?2 entries of the spans in ?1, in that order."""
    low, high = ("m.seq", "m.high") if order == "ASC" else ("m.low", "m.seq - 1")
    return f"""
    WITH RECURSIVE
    span (run, low, high) AS (
        SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?1)),
    merged (seq, run, low, high) AS (
        SELECT e.seq, s.run, s.low, s.high FROM span AS s
        CROSS JOIN entries AS e ON e.seq = {_next("s.run", "s.low", "s.high", order)}
        UNION ALL
        SELECT e.seq, m.run, m.low, m.high FROM merged AS m
        CROSS JOIN entries AS e ON e.seq = {_next("m.run", low, high, order)}
        ORDER BY 1 {order} LIMIT ?2)"""


def _read(order: str) -> str:
    """The number of entries found, and as many bodies as a page may have."""
    return f"""{_merged(order)},
    sized (seq, before) AS MATERIALIZED (
        SELECT seq, sum(octet_length(body)) OVER (ORDER BY seq {order}) - octet_length(body)
        FROM merged CROSS JOIN entries USING (seq))
    SELECT (SELECT count(*) FROM sized),
        '[' || group_concat(body, ',' ORDER BY seq {order}) || ']'
    FROM (SELECT seq, before FROM sized ORDER BY seq {order} LIMIT ?2 - 1)
    CROSS JOIN entries USING (seq) WHERE before < ?3"""


def _topics(order: str) -> str:
    return f"""
    SELECT json_group_array(json_array(seq, sender, topic) ORDER BY seq {order})
    FROM (SELECT seq, sender, topic FROM entries INDEXED BY entries_topic
          WHERE topic IS NOT NULL AND seq > ? AND seq <= ? ORDER BY seq {order} LIMIT ?)"""


STATEMENTS: Final = {
    "bounds": "SELECT head, floor, placed FROM log",
    "newest": """
        SELECT '[' || group_concat(body, ',' ORDER BY seq) || ']' FROM entries WHERE seq > ?""",
    "count": """
        SELECT count(*) FROM (
            SELECT 1 FROM json_each(?1) AS span CROSS JOIN places
            ON run = value ->> 0 AND seq > value ->> 1 AND seq <= value ->> 2 LIMIT ?2)""",
    "read": _read("ASC"),
    "read back": _read("DESC"),
    "marks": f"""{_merged("DESC")}
        SELECT json_group_array(json_array(seq, sender, topic) ORDER BY seq DESC)
        FROM merged CROSS JOIN entries USING (seq)""",
    "topics": _topics("ASC"),
    "topics back": _topics("DESC"),
    "retained": "SELECT json_array(json_array(seq, topic)) FROM retained WHERE topic = ?",
    "retained below": """
        SELECT json_group_array(json_array(seq, topic) ORDER BY topic)
        FROM (SELECT seq, topic FROM retained WHERE topic > ? AND topic < ?
              ORDER BY topic LIMIT ?)""",
    "read retained": """
        WITH sized (number, topic, before) AS MATERIALIZED (
            SELECT key, topic, sum(octet_length(body)) OVER (ORDER BY key) - octet_length(body)
            FROM json_each(?1) CROSS JOIN retained ON topic = value)
        SELECT '[' || group_concat(body, ',' ORDER BY number) || ']'
        FROM sized CROSS JOIN retained USING (topic) WHERE before < ?2""",
    "born": """
        SELECT g.born FROM members AS m JOIN groups AS g ON g.name = m.name
        WHERE m.name = ? AND m.user = ?""",
    "members": """
        SELECT json_group_array(json_array(user, role) ORDER BY user)
        FROM (SELECT user, role FROM members WHERE name = ? AND user > ? ORDER BY user LIMIT ?)""",
}
"""By name, so that a test can ask how SQLite would go about each."""


class Reader:
    """See the module. What it tells is of one moment: that of its :meth:`snapshot`."""

    def __init__(self, connection: apsw.Connection) -> None:
        self.head = 0
        self.floor = 0
        self._connection = connection
        self._placed = 0
        self._newest = MemoryLog()

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read what was committed before this begins, whatever is committed meanwhile."""
        with self._connection:
            self.head, self.floor, placed = self._connection.execute(STATEMENTS["bounds"]).get
            if placed != self._placed:
                self._placed, self._newest = placed, MemoryLog()
            if self.head > (known := max(placed, self._newest.head)):
                bodies = self._connection.execute(STATEMENTS["newest"], (known,)).get
                for entry in _entries(bodies or "[]"):
                    self._newest.append(entry)
            while self._newest.oldest is not None and self._newest.oldest.seq <= self.floor:
                self._newest.remove_oldest()
            yield

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    # --- the log as spans ---

    def _placed_part(self, spans: Sequence[Span]) -> list[Span]:
        """What of these spans is in the index."""
        placed = self._placed
        return [Span(s.run, s.after, min(s.until, placed)) for s in spans if s.after < placed]

    def count(self, spans: Sequence[Span], most: int) -> int:
        """How many entries there are in spans of conversations, as far as ``most`` and one."""
        values = (_text(self._placed_part(spans)), most + 1)
        placed = int(self._connection.execute(STATEMENTS["count"], values).get)
        return placed + self._newest.count(spans, most)

    def read(self, spans: Sequence[Span], limit: int, *, newest_first: bool = False) -> Found:
        """The first ``limit`` entries of all spans together, or fewer where they are large."""
        parts = [self._read_placed, self._read_newest]
        entries: list[Entry] = []
        for read in reversed(parts) if newest_first else parts:
            found = read(spans, limit - len(entries), newest_first=newest_first)
            entries += found.entries
            if not found.whole:
                return Found(entries, whole=False)
        return Found(entries, whole=True)

    def _read_placed(self, spans: Sequence[Span], limit: int, *, newest_first: bool) -> Found:
        placed = self._placed_part(spans)
        if not placed:
            return Found([], whole=True)
        statement = STATEMENTS["read back" if newest_first else "read"]
        values = (_text(placed), limit + 1, PAGE_BYTES)
        count, bodies = self._connection.execute(statement, values).get
        entries = _entries(bodies or "[]")
        return Found(entries, len(entries) == count)

    def _read_newest(self, spans: Sequence[Span], limit: int, *, newest_first: bool) -> Found:
        found, whole = self._newest.read(spans, limit, newest_first=newest_first)
        size = 0
        for number, entry in enumerate(found):
            if size > PAGE_BYTES:
                return Found(found[:number], whole=False)
            size += cost(entry)
        return Found(found, whole)

    def marks(self, spans: Sequence[Span], limit: int) -> list[Mark]:
        """The newest ``limit`` of all spans together, newest first."""
        newest = self._newest.marks(spans, limit)
        placed = self._placed_part(spans)
        if len(newest) == limit or not placed:
            return newest
        values = (_text(placed), limit - len(newest))
        return newest + _marks(self._connection.execute(STATEMENTS["marks"], values).get)

    def topics(
        self, after: int, until: int, limit: int, *, newest_first: bool = False
    ) -> list[Mark]:
        """The first ``limit`` of everything sent to topics."""
        statement = STATEMENTS["topics back" if newest_first else "topics"]
        return _marks(self._connection.execute(statement, (after, until, limit)).get)

    # --- retained messages ---

    def retained(self, topic_filter: str) -> Iterator[tuple[int, str]]:
        """Where the retained messages of the topics that match stand, and of which topics."""
        levels = topic_filter.split("/")
        fixed = next((n for n, level in enumerate(levels) if level in ("+", "#")), len(levels))
        prefix = "/".join(levels[:fixed])
        if prefix:
            found = self._connection.execute(STATEMENTS["retained"], (prefix,)).get
            yield from self._matching(topic_filter, _pairs(found or "[]"))
        if fixed == len(levels):
            return
        low, high = (f"{prefix}/", f"{prefix}0") if prefix else ("", "\U0010ffff")
        while True:  # "0" is what comes after "/"
            values = (low, high, NAMES)
            pairs = _pairs(self._connection.execute(STATEMENTS["retained below"], values).get)
            yield from self._matching(topic_filter, pairs)
            if len(pairs) < NAMES:
                return
            _, low = pairs[-1]

    @staticmethod
    def _matching(topic_filter: str, pairs: list[tuple[int, str]]) -> Iterator[tuple[int, str]]:
        return (pair for pair in pairs if matches(topic_filter, pair[1]))

    def read_retained(self, topics: Sequence[str]) -> Found:
        """The retained messages of these topics, or fewer where they are large."""
        values = (_text(topics), PAGE_BYTES)
        entries = _entries(
            self._connection.execute(STATEMENTS["read retained"], values).get or "[]"
        )
        return Found(entries, len(entries) == len(topics))

    # --- who belongs where ---

    def find_user(self, name: str) -> User | None:
        """What is known of a user, None before it is spoken of."""
        return load_user(self._connection, name)

    def born(self, group: str, user: str) -> int | None:
        """The first entry of a group that ``user`` is a member of, None where it is none."""
        found: int | None = self._connection.execute(STATEMENTS["born"], (group, user)).get
        return found

    def members(self, group: str, after: str | None, limit: int) -> list[Member]:
        """The first ``limit`` members of a group by name, those after ``after``."""
        values = (group, after or "", limit)
        found = self._connection.execute(STATEMENTS["members"], values).get
        return [Member(*member) for member in _members(found)]


def _text(values: Sequence[object]) -> str:
    return _encode(values).decode()
