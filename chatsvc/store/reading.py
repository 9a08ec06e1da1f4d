"""What readers are given of the log: feeds, replays, history.

The same for every store that can show its log as spans (:class:`LogSpans`) and tell who belongs
where (:class:`Belonging`). What a user hears is put together from the runs of its conversations
(:mod:`chatsvc.store.spans`), within its intervals (:mod:`chatsvc.store.tables`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from chatsvc.messages.entries import Address, Entry
from chatsvc.store import Interest, Loss, Member, Page, Slice, Start
from chatsvc.store.rules import not_member
from chatsvc.store.spans import (
    Mark,
    Span,
    events_of,
    messages_of,
    published_to,
    received_by,
    said_in,
    sent_by,
)
from chatsvc.store.tables import Interval, User
from chatsvc.topics import FilterTree
from chatsvc.topics import matches as is_match

__all__ = ["SCAN", "Belonging", "Found", "LogSpans", "Reading"]

MAX_RETAINED_REPLAY: Final = 1000
SCAN: Final = 2000
"""Entries that one page looks at to find what a wildcard matches."""
COUNT: Final = 20_000
"""Entries sent to topics that are looked at to find where a quota cuts; a reader may get more."""
CHUNK: Final = 1000
"""Marks that are read at once to find that place."""

_seq = attrgetter("seq")


class Found(NamedTuple):
    """Entries in the order asked for; ``whole`` when there are no more."""

    entries: Sequence[Entry]
    whole: bool


class LogSpans(Protocol):
    """The log as spans. At least one entry is given where there is one; few, if they are large."""

    @property
    def head(self) -> int:
        """The last entry that may be shown."""

    @property
    def floor(self) -> int:
        """The last entry that retention removed."""

    def count(self, spans: Sequence[Span], most: int) -> int:
        """How many entries there are in spans of conversations; counting may end above ``most``."""

    def read(self, spans: Sequence[Span], limit: int, *, newest_first: bool = False) -> Found:
        """The first ``limit`` entries of all spans together, oldest or newest first."""

    def marks(self, spans: Sequence[Span], limit: int) -> Sequence[Mark]:
        """The newest ``limit`` of all spans together, newest first."""

    def topics(
        self, after: int, until: int, limit: int, *, newest_first: bool = False
    ) -> Sequence[Mark]:
        """The first ``limit`` of everything sent to topics, ``after`` < seq <= ``until``."""

    def retained(self, topic_filter: str) -> Iterable[tuple[int, str]]:
        """Where the retained messages of the topics that match stand, and of which topics."""

    def read_retained(self, topics: Sequence[str]) -> Found:
        """The retained messages of these topics, which all have one, in the same order."""


class Belonging(Protocol):
    """Who belongs where."""

    def find_user(self, name: str) -> User | None:
        """What is known of a user, None before it is spoken of."""

    def born(self, group: str, user: str) -> int | None:
        """The first entry of a group that ``user`` is a member of, None where it is none."""

    def members(self, group: str, after: str | None, limit: int) -> Sequence[Member]:
        """The first ``limit`` members by name, those after ``after``."""


class Reading:
    """See the module. ``quota`` is in messages."""

    def __init__(self, log: LogSpans, belonging: Belonging, quota: int) -> None:
        self._log = log
        self._belonging = belonging
        self._quota = quota

    def _user(self, name: str) -> User:
        return self._belonging.find_user(name) or User(name, self._log.head)

    # --- where a reader begins ---

    def start(self, user: str, after: int) -> Start:
        """Where a reader begins who is after ``after``: with what the quota leaves of the rest."""
        cut = self._quota_cut(user, after)
        return Start(after, cut, Loss(after, cut, "quota") if cut > after else None)

    def _quota_cut(self, user: str, after: int) -> int:
        """The seq up to which groups and topics are beyond the quota."""
        record = self._user(user)
        spans = list(self._messages(record, after))
        held = list(record.every_filter(self._log.floor))
        count = self._log.count(spans, self._quota)
        if held and count <= self._quota:
            count += len(self._log.topics(after, self._log.head, self._quota + 1))
        if count <= self._quota:
            return after
        sources = [self._down(spans)] if spans else []
        if filters := _tree_of(held, ()):
            topics = islice(self._topics_down(after), COUNT)
            sources.append(mark for mark in topics if _hears(filters, mark))
        waiting = (
            mark
            for mark in heapq.merge(*sources, key=_seq, reverse=True)
            if mark.sender != record.name
        )
        beyond = next(islice(waiting, self._quota, None), None)
        return after if beyond is None else beyond.seq

    def _down(self, spans: Sequence[Span]) -> Iterator[Mark]:
        """All marks of the spans together, newest first."""
        until = self._log.head
        while True:
            below = [Span(s.run, s.after, min(s.until, until)) for s in spans if s.after < until]
            chunk = self._log.marks(below, CHUNK) if below else ()
            yield from chunk
            if len(chunk) < CHUNK:
                return
            until = chunk[-1].seq - 1

    def _topics_down(self, after: int) -> Iterator[Mark]:
        until = self._log.head
        while True:
            chunk = self._log.topics(after, until, CHUNK, newest_first=True)
            yield from chunk
            if len(chunk) < CHUNK:
                return
            until = chunk[-1].seq - 1

    # --- what it is given ---

    def _heard(self, record: User, after: int) -> Iterator[tuple[str, int, int]]:
        """The groups that the user hears or heard, and from where to where."""
        head = self._log.head
        for name, intervals in record.groups.items():
            for interval in intervals:
                until = head if interval.until is None else min(interval.until, head)
                if max(after, interval.after) < until:
                    yield name, max(after, interval.after), until

    def _messages(self, record: User, after: int) -> Iterator[Span]:
        for name, low, until in self._heard(record, after):
            yield Span(said_in(name), low, until)

    def _spans(self, record: User, after: int, shared_after: int) -> Iterator[Span]:
        """The spans of all that a user hears but topics."""
        yield Span(received_by(record.name), after, self._log.head)
        yield Span(sent_by(record.name), after, self._log.head)
        for name, low, until in self._heard(record, shared_after):
            yield Span(said_in(name), low, until)
            yield Span(events_of(name), low, until)

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Page:
        """See :meth:`chatsvc.store.Store.feed`."""
        record = self._user(user)
        floor = self._log.floor
        oldest = min((interest.after for interest in interests), default=self._log.head)
        known = max(after, min(record.created, oldest))
        loss = Loss(known, floor, "retention") if known < floor else None
        after = max(after, floor)
        low = max(after, shared_after)
        horizon = self._log.head
        hits: list[Span] = []
        held = list(record.every_filter(floor))
        if held or interests:
            filters = _tree_of(held, interests)
            hits, horizon = self._scan(low, horizon, limit, lambda mark: _hears(filters, mark))
        spans = [*hits, *self._spans(record, after, low)]
        page = self._page(spans, horizon, self._log.head, limit, loss)
        if all(entry.audience is None for entry in page.entries):
            return page
        heard = [e for e in page.entries if e.audience is None or user in e.audience]
        return Page(heard, page.upto, page.complete, loss)

    def _scan(
        self, after: int, until: int, limit: int, wanted: Callable[[Mark], bool]
    ) -> tuple[list[Span], int]:
        """What is wanted of the next few of everything sent to topics, and how far that looked."""
        hits: list[Span] = []
        marks = self._log.topics(after, until, SCAN + 1)
        for count, mark in enumerate(marks):
            if count == SCAN or len(hits) > limit:
                return hits, mark.seq - 1
            if wanted(mark):
                hits.append(Span(published_to(mark.topic or ""), mark.seq - 1, mark.seq))
        return hits, until

    def _page(
        self, spans: Sequence[Span], horizon: int, until: int, limit: int, loss: Loss | None
    ) -> Page:
        """The first ``limit`` entries of ``spans``, which are all there are up to ``horizon``."""
        below = [Span(s.run, s.after, min(s.until, horizon)) for s in spans if s.after < horizon]
        found = self._log.read(below, limit)
        if not found.whole:
            return Page(found.entries, found.entries[-1].seq, complete=False, loss=loss)
        return Page(found.entries, horizon, horizon == until, loss)

    def matches(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        """See :meth:`chatsvc.store.Store.matches`."""
        lost = min(self._log.floor, until)
        loss = Loss(after, lost, "retention") if after < lost else None
        after = max(after, self._log.floor)
        spans, horizon = [Span(published_to(topic_filter), after, until)], until
        if "+" in topic_filter or "#" in topic_filter:
            spans, horizon = self._scan(
                after, until, limit, lambda mark: is_match(topic_filter, mark.topic or "")
            )
        return self._page(spans, horizon, until, limit, loss)

    def retained(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        """See :meth:`chatsvc.store.Store.matches`."""
        there = (found for found in self._log.retained(topic_filter) if found[0] <= until)
        newest = heapq.nlargest(MAX_RETAINED_REPLAY + 1, there)
        loss = None
        if len(newest) > MAX_RETAINED_REPLAY:
            cut, _ = newest.pop()
            loss = Loss(after, cut, "quota") if after < cut else None
        wanted = [topic for seq, topic in reversed(newest) if seq > after]
        found = self._log.read_retained(wanted[:limit])
        if found.whole and len(wanted) <= limit:
            return Page(found.entries, until, complete=True, loss=loss)
        return Page(found.entries, found.entries[-1].seq, complete=False, loss=loss)

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Slice:
        """See :meth:`chatsvc.store.Store.history`."""
        low = 0
        runs = [messages_of(user, address)]
        if address.kind == "group":
            low = self._born(user, address.name) - 1
            if after is not None:
                runs.append(events_of(address.name))
        low = max(low, after or 0)
        top = self._log.head if before is None else min(before - 1, self._log.head)
        spans = [Span(run, low, top) for run in runs if low < top]
        found = self._log.read(spans, limit, newest_first=after is None)
        return Slice(found.entries if after is not None else found.entries[::-1], found.whole)

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> tuple[list[Member], bool]:
        """See :meth:`chatsvc.store.Store.members`."""
        self._born(user, group)
        members = self._belonging.members(group, after, limit + 1)
        return list(members[:limit]), len(members) <= limit

    def acquainted(self, user: str, other: str) -> bool:
        """See :meth:`chatsvc.store.Store.acquainted`."""
        if self._user(user).roles.keys() & self._user(other).roles.keys():
            return True
        talk = messages_of(user, Address("to", other))
        return self._log.count([Span(talk, 0, self._log.head)], 0) > 0

    def _born(self, user: str, group: str) -> int:
        born = self._belonging.born(group, user)
        if born is None:
            raise not_member(user, group)
        return born


def _tree_of(
    durable: Iterable[Interval], interests: Sequence[Interest]
) -> FilterTree[tuple[int, int | None]]:
    """The stretches of the log in which each filter is heard, by filter."""
    tree: FilterTree[tuple[int, int | None]] = FilterTree()
    for interval in durable:
        tree.add(interval.what, (interval.after, interval.until))
    for interest in interests:
        tree.add(interest.topic_filter, (interest.after, None))
    return tree


def _hears(filters: FilterTree[tuple[int, int | None]], mark: Mark) -> bool:
    return any(
        after < mark.seq and (until is None or mark.seq <= until)
        for after, until in filters.match(mark.topic or "")
    )
