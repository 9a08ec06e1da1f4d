"""A part of the log in memory, oldest first."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from operator import attrgetter

from chatsvc.messages.entries import Entry

__all__ = ["Run"]

_seq = attrgetter("seq")


class Run:
    """Entries in the order of the log, dropped from the front.

    Dropped places are kept until they are half of the list, so that dropping costs next to nothing.
    """

    __slots__ = ("_entries", "_start")

    def __init__(self) -> None:
        self._entries: list[Entry | None] = []
        self._start = 0

    def __len__(self) -> int:
        return len(self._entries) - self._start

    def append(self, entry: Entry) -> None:
        """Add what is newer than all that is here."""
        self._entries.append(entry)

    def drop_first(self) -> None:
        """Drop the oldest."""
        self._entries[self._start] = None
        self._start += 1
        if self._start * 2 > len(self._entries):
            del self._entries[: self._start]
            self._start = 0

    def _above(self, seq: int) -> int:
        return bisect_right(self._entries, seq, lo=self._start, key=_seq)

    def count(self, after: int, until: int) -> int:
        """How many there are with ``after`` < seq <= ``until``."""
        return max(0, self._above(until) - self._above(after))

    def find(self, seq: int) -> Entry | None:
        """The entry at ``seq``, if it is here."""
        index = self._above(seq) - 1
        entry = self._entries[index] if index >= self._start else None
        return entry if entry is not None and entry.seq == seq else None

    def up(self, after: int, until: int) -> Iterator[Entry]:
        """Those with ``after`` < seq <= ``until``, oldest first."""
        for index in range(self._above(after), len(self._entries)):
            entry = self._entries[index]
            if entry is None or entry.seq > until:
                return
            yield entry

    def down(self, after: int, until: int) -> Iterator[Entry]:
        """Those with ``after`` < seq <= ``until``, newest first."""
        for index in range(self._above(until) - 1, self._start - 1, -1):
            entry = self._entries[index]
            if entry is None or entry.seq <= after:
                return
            yield entry
