"""What readers are given of the log: feeds, replays, history.

The same for every store that can show its log as runs (:class:`LogRuns`): stretches of entries in
the order of the log, read from any place in either direction. What a user hears is put together
from the runs of its conversations, within its intervals (:mod:`chatsvc.store.tables`).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from operator import attrgetter
from typing import Final, Protocol

from chatsvc.messages.entries import Address, Conversation, Entry, conversation
from chatsvc.store import Interest, Loss, Member, Page, Slice, Start
from chatsvc.store.rules import Rules
from chatsvc.store.tables import Interval, User
from chatsvc.topics import FilterTree
from chatsvc.topics import matches as is_match

__all__ = ["SCAN", "EntryRun", "LogRuns", "Reading", "TalkRuns"]

MAX_RETAINED_REPLAY: Final = 1000
SCAN: Final = 2000
"""Entries that one page looks at to find what a wildcard matches."""

COUNT: Final = 20_000
"""Entries sent to topics that are looked at to find where a quota cuts; a reader may get more."""

_seq = attrgetter("seq")


class EntryRun(Protocol):
    """Entries in the order of the log."""

    def count_above(self, seq: int) -> int:
        """How many are above ``seq``."""

    def up(self, after: int, until: int) -> Iterator[Entry]:
        """Those with ``after`` < seq <= ``until``, oldest first."""

    def down(self, after: int, until: int) -> Iterator[Entry]:
        """Those with ``after`` < seq <= ``until``, newest first."""


class TalkRuns(Protocol):
    """A conversation: all of its entries, and those of them that are messages."""

    @property
    def entries(self) -> EntryRun:
        """All."""

    @property
    def messages(self) -> EntryRun:
        """The messages."""


class LogRuns(Protocol):
    """The log as runs."""

    @property
    def head(self) -> int:
        """The last entry that may be shown."""

    @property
    def topics(self) -> EntryRun:
        """Everything sent to topics."""

    def talk(self, talk: Conversation) -> TalkRuns | None:
        """A conversation, None where nothing is stored of it."""

    def direct(self, user: str) -> EntryRun | None:
        """The direct messages to and from ``user``."""

    def retained(self, topic_filter: str) -> Iterable[Entry]:
        """The retained messages of the topics that match."""


class Reading:
    """See the module. ``quota`` is in messages."""

    def __init__(self, log: LogRuns, rules: Rules, quota: int) -> None:
        self._log = log
        self._rules = rules
        self._quota = quota

    def start_for(
        self, user: str, device: str | None, since: int | None, at_most: int | None
    ) -> Start:
        """See :meth:`chatsvc.store.Store.start_for`."""
        position = self._rules.position(user, device)
        after = position if since is None else since
        if at_most is not None:
            after = min(after, at_most)
        cut = self._quota_cut(self._rules.user(user), after)
        return Start(after, cut, Loss(after, cut, "quota") if cut > after else None)

    def _quota_cut(self, record: User, after: int) -> int:
        """The seq up to which groups and topics are cut off for a reader who is after ``after``."""
        spans = list(self._spans(record, after, after))
        held = list(record.every_filter(self._rules.floor))
        count = sum(run.count_above(low) for run, low, _ in spans)
        count += self._log.topics.count_above(after) if held else 0
        if count <= self._quota:
            return after
        filters = _tree_of(held, ())
        sources = [run.down(low, until) for run, low, until in spans]
        if filters:
            topics = islice(self._log.topics.down(after, self._log.head), COUNT)
            sources.append(entry for entry in topics if _hears(filters, entry))
        waiting = (
            entry
            for entry in heapq.merge(*sources, key=_seq, reverse=True)
            if entry.kind == "message" and entry.sender != record.name
        )
        beyond = next(islice(waiting, self._quota, None), None)
        return after if beyond is None else beyond.seq

    def _spans(
        self, record: User, after: int, shared_after: int
    ) -> Iterator[tuple[EntryRun, int, int]]:
        """The stretches of runs that hold what the user hears but for topics: run, above, up to."""
        for name, intervals in record.groups.items():
            talk = self._log.talk(("group", name))
            for interval in intervals if talk is not None else ():
                until = self._log.head if interval.until is None else interval.until
                low = max(after, shared_after, interval.after)
                if talk is not None and low < until:
                    yield talk.entries, low, until

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Page:
        """See :meth:`chatsvc.store.Store.feed`."""
        record = self._rules.user(user)
        loss = None
        oldest = min((interest.after for interest in interests), default=self._rules.last)
        known = max(after, min(record.created, oldest))
        if known < self._rules.floor:
            loss = Loss(known, self._rules.floor, "retention")
        after = max(after, self._rules.floor)
        hits: list[Entry] = []
        horizon = self._log.head
        held = list(record.every_filter(self._rules.floor))
        low = max(after, shared_after)
        if (held or interests) and self._log.topics.count_above(low):
            filters = _tree_of(held, interests)
            hits, horizon = self._scan(low, self._log.head, limit, lambda e: _hears(filters, e))
        sources = [iter(hits)]
        if (direct := self._log.direct(user)) is not None:
            sources.append(direct.up(after, horizon))
        sources += [
            run.up(low, until) for run, low, until in self._spans(record, after, shared_after)
        ]
        heard = (
            entry
            for entry in heapq.merge(*sources, key=_seq)
            if entry.audience is None or user in entry.audience
        )
        return _page(heard, horizon, self._log.head, limit, loss)

    def _scan(
        self, after: int, until: int, limit: int, wanted: Callable[[Entry], bool]
    ) -> tuple[list[Entry], int]:
        """What is wanted of the next few of everything sent to topics, and how far that looked."""
        hits: list[Entry] = []
        for count, entry in enumerate(self._log.topics.up(after, until)):
            if count == SCAN or len(hits) > limit:
                return hits, entry.seq - 1
            if wanted(entry):
                hits.append(entry)
        return hits, until

    def matches(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        """See :meth:`chatsvc.store.Store.matches`."""
        lost = min(self._rules.floor, until)
        loss = Loss(after, lost, "retention") if after < lost else None
        after = max(after, self._rules.floor)
        if "+" in topic_filter or "#" in topic_filter:
            hits, horizon = self._scan(
                after, until, limit, lambda entry: is_match(topic_filter, entry.address.name)
            )
            return _page(iter(hits), horizon, until, limit, loss)
        talk = self._log.talk(("topic", topic_filter))
        found = iter(()) if talk is None else talk.entries.up(after, until)
        return _page(found, until, until, limit, loss)

    def retained(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        """See :meth:`chatsvc.store.Store.matches`."""
        found = (e for e in self._log.retained(topic_filter) if e.seq <= until)
        newest = heapq.nlargest(MAX_RETAINED_REPLAY + 1, found, key=_seq)
        loss = None
        if len(newest) > MAX_RETAINED_REPLAY:
            cut = newest.pop().seq
            loss = Loss(after, cut, "quota") if after < cut else None
        wanted = (entry for entry in reversed(newest) if entry.seq > after)
        return _page(wanted, until, until, limit, loss)

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Slice:
        """See :meth:`chatsvc.store.Store.history`."""
        born = 0
        if address.kind == "group":
            born = self._rules.membership(user, address.name).born
        talk = self._log.talk(conversation(user, address))
        if talk is None:
            return Slice((), complete=True)
        top = self._log.head if before is None else min(before - 1, self._log.head)
        if after is not None:
            found = list(islice(talk.entries.up(max(after, born - 1), top), limit + 1))
            return Slice(found[:limit], len(found) <= limit)
        found = list(islice(talk.messages.down(born - 1, top), limit + 1))
        return Slice(found[:limit][::-1], len(found) <= limit)

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> tuple[list[Member], bool]:
        """See :meth:`chatsvc.store.Store.members`."""
        members = self._rules.membership(user, group).members
        names = heapq.nsmallest(limit + 1, (n for n in members if after is None or n > after))
        return [Member(name, members[name]) for name in names[:limit]], len(names) <= limit


def _page(
    entries: Iterator[Entry], horizon: int, until: int, limit: int, loss: Loss | None
) -> Page:
    """The first ``limit`` of ``entries``, which are all there are up to ``horizon``."""
    taken: list[Entry] = []
    for entry in entries:
        if entry.seq > horizon:
            break
        if len(taken) == limit:
            return Page(taken, taken[-1].seq, complete=False, loss=loss)
        taken.append(entry)
    return Page(taken, horizon, horizon == until, loss)


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


def _hears(filters: FilterTree[tuple[int, int | None]], entry: Entry) -> bool:
    return any(
        after < entry.seq and (until is None or entry.seq <= until)
        for after, until in filters.match(entry.address.name)
    )
