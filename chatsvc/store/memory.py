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
from typing import Any

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall

from chatsvc.messages.entries import Address, Entry, conversation
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
from chatsvc.store.tables import Conversation, Group, Interval, Run, User
from chatsvc.topics import FilterTree, NameTree, matches

__all__ = ["MemoryStore"]

ANNOUNCE_ALL = 50
"""In a group of more members, ``joined`` and ``left`` go to its admins and the user concerned."""
MAX_FOR_UNSEEN = 1000
"""The most messages of one sender that wait for names never seen (protocol, section 4)."""
MAX_DEVICES = 1000
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
        self._last = 0  # the last stored entry; the head is the last announced one
        self._clock = clock
        self._retention = retention
        self._quota = quota
        self._max_bytes = max_bytes
        self._bytes = 0
        self._retained_bytes = 0
        self._floor = 0  # the last expired entry
        self._log: deque[Entry] = deque()
        self._conversations: dict[tuple[str, ...], Conversation] = {}
        self._topic_run = Run()
        self._retained: dict[str, Entry] = {}
        self._retained_names: NameTree[str] = NameTree()
        self._groups: dict[str, Group] = {}
        self._users: dict[str, User] = {}
        self._keys: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self._expiry = LoopingCall(self.expire)
        self._expiry.clock = clock
        self._announce: Announce = lambda _: None
        self._rules: dict[str, Callable[[Append], tuple[Receipt, list[Entry]]]] = {
            "send": self._send,
            "join": self._join,
            "leave": self._leave,
            "create": self._create,
        }

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
        self._floor = entry.seq
        self._bytes -= _cost(entry)
        key = conversation(entry.sender, entry.address)
        talk = self._conversations[key]
        talk.drop_first(entry)
        if not talk.entries:
            del self._conversations[key]
        if entry.address.kind == "topic":
            self._topic_run.drop_first()
        elif entry.address.kind == "to":
            self._user(entry.sender).direct.drop_first()
            if entry.sender != entry.address.name:
                receiver = self._user(entry.address.name)
                receiver.direct.drop_first()
                receiver.received.drop_first()
                if not receiver.seen:
                    self._forget_unseen(receiver, entry.sender)

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
        receipt, entries = self._rules[append.op](append)
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
        self._last = entry.seq
        self._log.append(entry)
        self._bytes += _cost(entry)
        key = conversation(entry.sender, entry.address)
        self._conversations.setdefault(key, Conversation()).append(entry)
        if entry.address.kind == "topic":
            self._topic_run.append(entry)
        elif entry.address.kind == "to":
            self._user(entry.sender).direct.append(entry)
            if entry.sender != entry.address.name:
                receiver = self._user(entry.address.name)
                receiver.direct.append(entry)
                receiver.received.append(entry)

    def _entry(self, append: Append, ahead: int = 1, **fields: Any) -> Entry:
        """The entry at ``ahead`` after the last."""
        return Entry(
            seq=self._last + ahead,
            ts=int(self._clock.seconds() * 1000),
            sender=append.user,
            address=append.address,
            origin=append.origin,
            **fields,
        )

    def _send(self, append: Append) -> tuple[Receipt, list[Entry]]:
        address = append.address
        born = 0
        if address.kind == "group":
            born = self._membership(append.user, address.name).born
        if append.reply_to is not None:
            talk = self._conversations.get(conversation(append.user, address))
            if (
                talk is None
                or append.reply_to < born
                or talk.messages.find(append.reply_to) is None
            ):
                raise Refused(Code.NOT_FOUND, "`reply_to` is no message of this conversation")
        if address.kind == "to":
            self._check_quota(append)
        entry = self._entry(
            append,
            kind="message",
            msg=append.msg,
            data=append.data,
            key=append.key,
            reply_to=append.reply_to,
        )
        if append.retain:
            self._retain(entry)
        return Receipt(entry.seq, entry.ts), [entry]

    def _check_quota(self, append: Append) -> None:
        name = append.address.name
        if name == append.user:
            return
        receiver = self._users.get(name)
        if receiver is not None and not append.present:
            waiting = receiver.received.count_above(receiver.position)
            if waiting >= self._quota:
                raise Refused(Code.QUOTA_EXCEEDED, f"{waiting} messages wait for {name} already")
        if receiver is not None and receiver.seen:
            return
        sender = self._user(append.user)
        if sender.waiting_for_unseen >= MAX_FOR_UNSEEN:
            raise Refused(
                Code.QUOTA_EXCEEDED,
                f"{MAX_FOR_UNSEEN} of your messages wait for names never seen here",
            )
        sender.waiting_for_unseen += 1
        unseen_from = self._user(name).unseen_from
        unseen_from[append.user] = unseen_from.get(append.user, 0) + 1

    def _forget_unseen(self, receiver: User, sender: str) -> None:
        self._user(sender).waiting_for_unseen -= 1
        receiver.unseen_from[sender] -= 1

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

    def _create(self, append: Append) -> tuple[Receipt, list[Entry]]:
        if append.address.name in self._groups:
            raise Refused(Code.EXISTS, f"there is a group {append.address.name} already")
        return self._enter(append, Group(self._last + 1, public=append.public), "owner")

    def _join(self, append: Append) -> tuple[Receipt, list[Entry]]:
        name = append.address.name
        group = self._groups.get(name)
        if group is None:
            return self._enter(append, Group(self._last + 1, public=True), "owner")
        if append.user in group.members:
            return Receipt(group.since[append.user], 0), []
        if not group.public:
            raise Refused(Code.FORBIDDEN, f"{name} is by invitation")
        return self._enter(append, group, "member")

    def _enter(self, append: Append, group: Group, role: str) -> tuple[Receipt, list[Entry]]:
        name, user = append.address.name, append.user
        self._groups[name] = group
        group.enter(user, role, self._last + 1)
        self._user(user).enter_group(name, self._last, self._floor)
        entry = self._entry(append, kind="joined", user=user, audience=self._crowd(group, user))
        return Receipt(entry.seq, entry.ts), [entry]

    def _leave(self, append: Append) -> tuple[Receipt, list[Entry]]:
        name, user = append.address.name, append.user
        record = self._user(user)
        group = self._groups.get(name)
        if group is None or user not in group.members:
            if (left := record.left_group(name)) is not None:
                return Receipt(left, 0), []
            raise _not_member(user, name)
        audience = self._crowd(group, user)
        entries = [self._entry(append, kind="left", user=user, audience=audience)]
        record.leave_group(name, entries[0].seq)
        heir = group.leave(user)
        if heir is not None:
            entries.append(self._entry(append, 2, kind="role", user=heir, role="owner"))
        if not group.members:
            del self._groups[name]
        return Receipt(entries[0].seq, entries[0].ts), entries

    @staticmethod
    def _crowd(group: Group, user: str) -> frozenset[str] | None:
        if len(group.members) <= ANNOUNCE_ALL:
            return None
        return frozenset({*group.staff, user})

    # --- reading ---

    def admit(self, user: str) -> Deferred[Standing]:
        return execute(self._admit, user)

    def _admit(self, user: str) -> Standing:
        record = self._user(user)
        record.seen = True
        for sender, count in record.unseen_from.items():
            self._user(sender).waiting_for_unseen -= count
        record.unseen_from.clear()
        groups = {name: self._groups[name].members[user] for name in record.current_groups()}
        return Standing(self.head, groups, tuple(record.filters))

    def start_for(self, user: str, device: str | None, since: int | None) -> Deferred[Start]:
        return execute(self._start_for, user, device, since)

    def _start_for(self, user: str, device: str | None, since: int | None) -> Start:
        record = self._user(user)
        position = record.position
        if device is not None:
            position = self._device_position(record, device)
        after = position if since is None else since
        cut = self._quota_cut(record, after)
        return Start(after, cut, Loss(after, cut, "quota") if cut > after else None)

    def _device_position(self, record: User, device: str) -> int:
        now = self._clock.seconds()
        record.forget_devices(now - self._retention)
        if device not in record.devices and len(record.devices) >= MAX_DEVICES:
            raise Refused(Code.QUOTA_EXCEEDED, f"{MAX_DEVICES} devices are known for this user")
        position, _ = record.devices.get(device, (record.position, now))
        record.devices[device] = (position, now)
        return position

    def _quota_cut(self, record: User, after: int) -> int:
        """The seq up to which groups and topics are cut off for a reader who is after ``after``."""
        spans = list(self._spans(record, after, after))
        filters = _tree_of(record.every_filter(self._floor), ())
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
        record = self._user(user)
        loss = None
        oldest = min((interest.after for interest in interests), default=self._last)
        known = max(after, min(record.created, oldest))
        if known < self._floor:
            loss = Loss(known, self._floor, "retention")
        after = max(after, self._floor)
        filters = _tree_of(record.every_filter(self._floor), interests)
        hits: list[Entry] = []
        horizon = self.head
        if filters:
            low = max(after, shared_after)
            hits, horizon = self._scan(low, self.head, limit, lambda e: _hears(filters, e))
        sources = [iter(hits), record.direct.up(after, horizon)]
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
        lost = min(self._floor, until)
        loss = Loss(after, lost, "retention") if after < lost else None
        after = max(after, self._floor)
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
            born = self._membership(user, address.name).born
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
        members = self._membership(user, group).members
        names = heapq.nsmallest(limit + 1, (n for n in members if after is None or n > after))
        return [Member(name, members[name]) for name in names[:limit]], len(names) <= limit

    # --- what stands beside the log ---

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        return execute(self._subscribe, user, topic_filter)

    def _subscribe(self, user: str, topic_filter: str) -> int:
        self._user(user).filters.setdefault(topic_filter, Interval(topic_filter, self.head))
        return self.head

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        return execute(self._user(user).end_filter, topic_filter, self.head, self._floor)

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        return execute(self._save_positions, positions)

    def _save_positions(self, positions: Mapping[DeviceKey, int]) -> None:
        now = self._clock.seconds()
        for (user, device), seq in positions.items():
            record = self._user(user)
            if device is None:
                record.position = max(record.position, seq)
            elif device in record.devices:
                record.devices[device] = (max(record.devices[device][0], seq), now)

    def _user(self, name: str) -> User:
        record = self._users.get(name)
        if record is None:
            record = self._users[name] = User(name, self._last)
        return record

    def _membership(self, user: str, name: str) -> Group:
        """The group, of which ``user`` is a member; whether it exists is not told to others."""
        group = self._groups.get(name)
        if group is None or user not in group.members:
            raise _not_member(user, name)
        return group


def _not_member(user: str, group: str) -> Refused:
    return Refused(
        Code.NOT_MEMBER,
        f"{user} is not a member of {group}",
        f'{{"op":"join","group":"{group}"}}',
    )


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
