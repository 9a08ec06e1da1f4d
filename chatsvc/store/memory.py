"""A store in memory: for trying things out, for tests, and as the plainest reading of the rules.

Nothing outlives the process; each start is a new log with a new ``epoch``. Every Deferred has fired
when it is returned.

The log stands in *runs*: one of all entries, one a conversation, one a user for direct messages,
one of everything sent to topics. An entry is in at most five of them, in the order of the log, so
what is oldest is first everywhere and expiry takes it off the front of each. What a user hears is
never copied: it is read from the runs, within the user's intervals (see :mod:`chatsvc.store`).

Two bounds hold what is kept: the retention (by age), and ``max_bytes`` (by size). Beyond either the
oldest entries go, and readers who had not got there are told by a ``gap``. Keys are kept for as
long as the process runs.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from operator import attrgetter

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from chatsvc.messages.entries import Address, Conversation, Entry, conversation
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import (
    Announce,
    Append,
    DeviceKey,
    Interest,
    Loss,
    Member,
    Page,
    Receipt,
    Slice,
    Standing,
    Start,
)
from chatsvc.store.rules import Rules
from chatsvc.store.runs import Run, Talk
from chatsvc.store.tables import Interval, User
from chatsvc.topics import FilterTree, NameTree, matches

__all__ = ["MemoryStore"]

MAX_RETAINED_REPLAY = 1000
EXPIRE_AT_ONCE = 500
"""Entries that one step of expiry removes: some 0.5 ms of work, so that nothing stalls."""
SCAN = 2000
"""Entries that one page looks at to find what a wildcard matches."""

_seq = attrgetter("seq")


class MemoryStore:
    """See the module. ``retention`` is in seconds, ``quota`` in messages."""

    name = "in memory (lost when the server stops)"

    def __init__(
        self,
        clock: IReactorTime,
        epoch: str,
        *,
        retention: float,
        quota: int,
        max_bytes: int,
    ) -> None:
        self.epoch = epoch
        self.head = 0
        self._clock = clock
        self._retention = retention
        self._quota = quota
        self._max_bytes = max_bytes
        self._bytes = 0
        self._retained_bytes = 0
        self._log: deque[Entry] = deque()
        self._conversations: dict[Conversation, Talk] = {}
        self._topic_run = Run()
        self._retained: dict[str, Entry] = {}
        self._retained_names: NameTree[str] = NameTree()
        self._direct: dict[str, Run] = {}
        self._received: dict[str, Run] = {}
        self._rules = Rules(self, clock, retention=retention, quota=quota)
        self._keys: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self._expiry = LoopingCall(self.expire)
        self._expiry.clock = clock
        self._announce: Announce = lambda _: None

    # --- life ---

    def start(self, announce: Announce) -> Deferred[None]:
        self._announce = announce
        self._expiry.start(1.0, now=False)
        return execute(lambda: None)

    def stop(self) -> Deferred[None]:
        if self._expiry.running:
            self._expiry.stop()
        return execute(lambda: None)

    def expire(self) -> None:
        """One step of expiry: the oldest entries, as far as they are too old or too many."""
        before = int((self._clock.seconds() - self._retention) * 1000)
        for _ in range(EXPIRE_AT_ONCE):
            if not self._log or self._log[0].ts >= before:
                return
            self._expire_first()

    def _expire_first(self) -> None:
        entry = self._log.popleft()
        self._rules.floor = entry.seq
        self._bytes -= _cost(entry)
        key = conversation(entry.sender, entry.address)
        talk = self._conversations[key]
        talk.drop_first(entry)
        if not talk.entries:
            del self._conversations[key]
        if entry.address.kind == "topic":
            self._topic_run.drop_first()
        for runs, user in self._direct_runs(entry):
            runs[user].drop_first()
            if not runs[user]:
                del runs[user]
        if entry.address.kind == "to":
            self._rules.forget_waiting(entry.sender, entry.address.name)

    def _direct_runs(self, entry: Entry) -> list[tuple[dict[str, Run], str]]:
        """The users' runs that a direct message stands in."""
        if entry.address.kind != "to":
            return []
        sender, receiver = entry.sender, entry.address.name
        if sender == receiver:
            return [(self._direct, sender)]
        return [(self._direct, sender), (self._direct, receiver), (self._received, receiver)]

    # --- appending ---

    def append(self, append: Append) -> Deferred[Receipt]:
        return execute(self._append, append)

    def _append(self, append: Append) -> Receipt:
        binding = None if append.key is None else (append.user, append.key)
        if binding is not None and (bound := self._keys.get(binding)) is not None:
            digest, first = bound
            if digest != append.digest:
                raise Refused(Code.KEY_CONFLICT, "this key was used for something else")
            return Receipt(first.seq, first.ts, dup=True)
        receipt, entries = self._rules.decide(append)
        if append.retain:
            self._retain(entries[0])
        if binding is not None and entries:
            self._keys[binding] = (append.digest, receipt)
        for entry in entries:
            self._store(entry)
        while self._log and self._bytes + self._retained_bytes > self._max_bytes:
            self._expire_first()
        for entry in entries:
            self.head = entry.seq
            self._announce(entry)
        return receipt

    def _store(self, entry: Entry) -> None:
        self._rules.last = entry.seq
        self._log.append(entry)
        self._bytes += _cost(entry)
        key = conversation(entry.sender, entry.address)
        self._conversations.setdefault(key, Talk()).append(entry)
        if entry.address.kind == "topic":
            self._topic_run.append(entry)
        for runs, user in self._direct_runs(entry):
            runs.setdefault(user, Run()).append(entry)

    def has_message(self, talk: Conversation, seq: int) -> bool:
        found = self._conversations.get(talk)
        return found is not None and found.messages.find(seq) is not None

    def count_received(self, user: str, above: int) -> int:
        run = self._received.get(user)
        return 0 if run is None else run.count_above(above)

    def _retain(self, entry: Entry) -> None:
        """Keep as the topic's retained message; an empty one clears it (MQTT 5.0, 3.3.1.3)."""
        topic = entry.address.name
        old = self._retained.get(topic)
        freed = 0 if old is None else _cost(old)
        clears = entry.msg == "" and entry.data is None
        added = 0 if clears else _cost(entry)
        if self._retained_bytes - freed + added > self._max_bytes // 2:
            raise Refused(Code.QUOTA_EXCEEDED, "there is no room for another retained message")
        self._retained_bytes += added - freed
        if clears:
            self._retained.pop(topic, None)
            self._retained_names.discard(topic, topic)
        else:
            self._retained[topic] = entry
            self._retained_names.add(topic, topic)

    # --- reading ---

    def admit(self, user: str) -> Deferred[Standing]:
        return execute(self._rules.admit, user)

    def start_for(self, user: str, device: str | None, since: int | None) -> Deferred[Start]:
        return execute(self._start_for, user, device, since)

    def _start_for(self, user: str, device: str | None, since: int | None) -> Start:
        position = self._rules.position(user, device)
        after = position if since is None else since
        cut = self._quota_cut(self._rules.user(user), after)
        return Start(after, cut, Loss(after, cut, "quota") if cut > after else None)

    def _quota_cut(self, record: User, after: int) -> int:
        """The seq up to which groups and topics are cut off for a reader who is after ``after``."""
        spans = list(self._spans(record, after, after))
        filters = _tree_of(record.every_filter(self._rules.floor), ())
        count = sum(run.count_above(low) for run, low, _ in spans)
        count += self._topic_run.count_above(after) if filters else 0
        if count <= self._quota:
            return after
        sources = [run.down(low, until) for run, low, until in spans]
        if filters:
            topics = self._topic_run.down(after, self.head)
            sources.append(entry for entry in topics if _hears(filters, entry))
        waiting = (
            entry
            for entry in heapq.merge(*sources, key=_seq, reverse=True)
            if entry.kind == "message" and entry.sender != record.name
        )
        beyond = next(islice(waiting, self._quota, None), None)
        return after if beyond is None else beyond.seq

    def _spans(self, record: User, after: int, shared_after: int) -> Iterator[tuple[Run, int, int]]:
        """The stretches of runs that hold what the user hears but for topics: run, above, up to."""
        for name, intervals in record.groups.items():
            talk = self._conversations.get(("group", name))
            for interval in intervals if talk is not None else ():
                until = self.head if interval.until is None else interval.until
                low = max(after, shared_after, interval.after)
                if talk is not None and low < until:
                    yield talk.entries, low, until

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Deferred[Page]:
        return execute(self._feed, user, after, shared_after, interests, limit)

    def _feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Page:
        record = self._rules.user(user)
        loss = None
        oldest = min((interest.after for interest in interests), default=self._rules.last)
        known = max(after, min(record.created, oldest))
        if known < self._rules.floor:
            loss = Loss(known, self._rules.floor, "retention")
        after = max(after, self._rules.floor)
        filters = _tree_of(record.every_filter(self._rules.floor), interests)
        hits: list[Entry] = []
        horizon = self.head
        if filters:
            low = max(after, shared_after)
            hits, horizon = self._scan(low, self.head, limit, lambda e: _hears(filters, e))
        sources = [iter(hits)]
        if (direct := self._direct.get(user)) is not None:
            sources.append(direct.up(after, horizon))
        sources += [
            run.up(low, until) for run, low, until in self._spans(record, after, shared_after)
        ]
        heard = (
            entry
            for entry in heapq.merge(*sources, key=_seq)
            if entry.audience is None or user in entry.audience
        )
        return _page(heard, horizon, self.head, limit, loss)

    def _scan(
        self, after: int, until: int, limit: int, wanted: Callable[[Entry], bool]
    ) -> tuple[list[Entry], int]:
        """What is wanted of the next few of everything sent to topics, and how far that looked."""
        hits: list[Entry] = []
        for count, entry in enumerate(self._topic_run.up(after, until)):
            if count == SCAN or len(hits) > limit:
                return hits, entry.seq - 1
            if wanted(entry):
                hits.append(entry)
        return hits, until

    def matches(
        self, topic_filter: str, after: int, until: int, limit: int, *, retained: bool
    ) -> Deferred[Page]:
        return execute(
            self._retained_page if retained else self._matches, topic_filter, after, until, limit
        )

    def _matches(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        lost = min(self._rules.floor, until)
        loss = Loss(after, lost, "retention") if after < lost else None
        after = max(after, self._rules.floor)
        if "+" in topic_filter or "#" in topic_filter:
            hits, horizon = self._scan(
                after, until, limit, lambda entry: matches(topic_filter, entry.address.name)
            )
            return _page(iter(hits), horizon, until, limit, loss)
        talk = self._conversations.get(("topic", topic_filter))
        found = iter(()) if talk is None else talk.entries.up(after, until)
        return _page(found, until, until, limit, loss)

    def _retained_page(self, topic_filter: str, after: int, until: int, limit: int) -> Page:
        found = (self._retained[topic] for topic in self._retained_names.select(topic_filter))
        newest = heapq.nlargest(
            MAX_RETAINED_REPLAY + 1, (entry for entry in found if entry.seq <= until), key=_seq
        )
        loss = None
        if len(newest) > MAX_RETAINED_REPLAY:
            cut = newest.pop().seq
            loss = Loss(after, cut, "quota") if after < cut else None
        wanted = (entry for entry in reversed(newest) if entry.seq > after)
        return _page(wanted, until, until, limit, loss)

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Deferred[Slice]:
        return execute(self._history, user, address, after, before, limit)

    def _history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Slice:
        born = 0
        if address.kind == "group":
            born = self._rules.membership(user, address.name).born
        talk = self._conversations.get(conversation(user, address))
        if talk is None:
            return Slice((), complete=True)
        top = self.head if before is None else min(before - 1, self.head)
        if after is not None:
            found = list(islice(talk.entries.up(max(after, born - 1), top), limit + 1))
            return Slice(found[:limit], len(found) <= limit)
        found = list(islice(talk.messages.down(born - 1, top), limit + 1))
        return Slice(found[:limit][::-1], len(found) <= limit)

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> Deferred[tuple[list[Member], bool]]:
        return execute(self._members, user, group, after, limit)

    def _members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> tuple[list[Member], bool]:
        members = self._rules.membership(user, group).members
        names = heapq.nsmallest(limit + 1, (n for n in members if after is None or n > after))
        return [Member(name, members[name]) for name in names[:limit]], len(names) <= limit

    # --- what stands beside the log ---

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        return execute(self._rules.subscribe, user, topic_filter)

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        return execute(self._rules.unsubscribe, user, topic_filter)

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        return execute(self._rules.save_positions, positions)


def _cost(entry: Entry) -> int:
    """About how many bytes an entry takes, with its places in the runs."""
    return 600 + 2 * len(entry.msg or "") + len(entry.data or b"")


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
    durable: Iterator[Interval], interests: Sequence[Interest]
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
