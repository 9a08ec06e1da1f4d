"""The log of the store in memory, in runs (:mod:`chatsvc.store.spans`).

An entry is in at most three runs, and in one of everything sent to topics, always in the order of
the log: so what is oldest is first everywhere, and expiry takes it off the front of each.
"""

from __future__ import annotations

import heapq
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from itertools import islice
from operator import attrgetter

from chatsvc.messages.entries import Entry
from chatsvc.store.reading import Found
from chatsvc.store.runs import Run
from chatsvc.store.spans import Mark, Span, received_by, runs_of
from chatsvc.topics import NameTree

__all__ = ["MemoryLog", "cost"]

_seq = attrgetter("seq")


def cost(entry: Entry) -> int:
    """About how many bytes an entry takes, with its places in the runs."""
    return 600 + 2 * len(entry.msg or "") + len(entry.data or b"")


def _mark(entry: Entry) -> Mark:
    address = entry.address
    return Mark(entry.seq, entry.sender, address.name if address.kind == "topic" else None)


class MemoryLog:
    """See the module; it is a :class:`~chatsvc.store.reading.LogSpans`.

    ``head`` and ``floor`` are the last entry that was stored and that was removed, ``bytes`` and
    ``retained_bytes`` what the stored ones and the retained ones cost.
    """

    def __init__(self) -> None:
        self.head = 0
        self.floor = 0
        self.bytes = 0
        self.retained_bytes = 0
        self._all: deque[Entry] = deque()
        self._runs: defaultdict[str, Run] = defaultdict(Run)
        self._topics = Run()
        self._retained: dict[str, Entry] = {}
        self._retained_names: NameTree[str] = NameTree()

    # --- changing ---

    def append(self, entry: Entry) -> None:
        """Add what is newer than all that is here."""
        self.head = entry.seq
        self.bytes += cost(entry)
        self._all.append(entry)
        for name in runs_of(entry):
            self._runs[name].append(entry)
        if entry.address.kind == "topic":
            self._topics.append(entry)

    @property
    def oldest(self) -> Entry | None:
        """The oldest entry."""
        return self._all[0] if self._all else None

    def remove_oldest(self) -> Entry:
        """Remove the oldest entry, and return it."""
        entry = self._all.popleft()
        self.floor = entry.seq
        self.bytes -= cost(entry)
        for name in runs_of(entry):
            self._runs[name].drop_first()
            if not self._runs[name]:
                del self._runs[name]
        if entry.address.kind == "topic":
            self._topics.drop_first()
        return entry

    # --- what the rules ask ---

    def has_message(self, run: str, seq: int) -> bool:
        """Whether ``seq`` is in a run."""
        return run in self._runs and self._runs[run].find(seq) is not None

    def has_any(self, run: str) -> bool:
        """Whether there is an entry in a run."""
        return run in self._runs

    def count_received(self, user: str, above: int) -> int:
        """How many direct messages of others to ``user`` are above ``above``."""
        return self.count([Span(received_by(user), above, self.head)], 0)

    # --- spans ---

    def _found(self, spans: Sequence[Span]) -> Iterator[tuple[Run, Span]]:
        return ((self._runs[span.run], span) for span in spans if span.run in self._runs)

    def _merged(self, spans: Sequence[Span], *, newest_first: bool) -> Iterator[Entry]:
        parts = [
            (run.down if newest_first else run.up)(span.after, span.until)
            for run, span in self._found(spans)
        ]
        return heapq.merge(*parts, key=_seq, reverse=newest_first)

    def count(self, spans: Sequence[Span], most: int) -> int:  # noqa: ARG002 - counting is cheap
        """How many entries there are in all."""
        return sum(run.count(span.after, span.until) for run, span in self._found(spans))

    def read(self, spans: Sequence[Span], limit: int, *, newest_first: bool = False) -> Found:
        """The first ``limit`` entries of all spans together."""
        found = list(islice(self._merged(spans, newest_first=newest_first), limit + 1))
        return Found(found[:limit], len(found) <= limit)

    def marks(self, spans: Sequence[Span], limit: int) -> list[Mark]:
        """The newest ``limit`` of all spans together, newest first."""
        return [_mark(entry) for entry in islice(self._merged(spans, newest_first=True), limit)]

    def topics(
        self, after: int, until: int, limit: int, *, newest_first: bool = False
    ) -> list[Mark]:
        """The first ``limit`` of everything sent to topics."""
        part = (self._topics.down if newest_first else self._topics.up)(after, until)
        return [_mark(entry) for entry in islice(part, limit)]

    # --- retained messages ---

    @property
    def retained_count(self) -> int:
        """How many topics have a retained message."""
        return len(self._retained)

    def retained_of(self, topic: str) -> Entry | None:
        """The retained message of a topic."""
        return self._retained.get(topic)

    def retain(self, topic: str, entry: Entry | None) -> None:
        """Keep an entry as the retained message of a topic, or none."""
        old = self._retained.pop(topic, None)
        self.retained_bytes -= 0 if old is None else cost(old)
        self._retained_names.discard(topic, topic)
        if entry is not None:
            self.retained_bytes += cost(entry)
            self._retained[topic] = entry
            self._retained_names.add(topic, topic)

    def retained(self, topic_filter: str) -> Iterator[tuple[int, str]]:
        """Where the retained messages of the topics that match stand, and of which topics."""
        names = self._retained_names.select(topic_filter)
        return ((self._retained[name].seq, name) for name in names)

    def read_retained(self, topics: Sequence[str]) -> Found:
        """The retained messages of these topics."""
        return Found([self._retained[topic] for topic in topics], whole=True)
