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

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

from chatsvc.messages.entries import Address, Conversation, Entry, conversation
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import (
    Announce,
    Append,
    DeviceKey,
    Interest,
    Member,
    Page,
    Receipt,
    Slice,
    Standing,
    Start,
)
from chatsvc.store.reading import Reading
from chatsvc.store.rules import Rules
from chatsvc.store.runs import Run, Talk
from chatsvc.topics import NameTree

__all__ = ["MemoryStore"]

MAX_RETAINED = 10_000
"""The most topics with a retained message: whoever subscribes for all has them sorted."""
EXPIRE_AT_ONCE = 500
"""Entries that one step of expiry removes: some 0.5 ms of work, so that nothing stalls."""


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
        self._max_bytes = max_bytes
        self._bytes = 0
        self._retained_bytes = 0
        self._log: deque[Entry] = deque()
        self._conversations: dict[Conversation, Talk] = {}
        self.topics = Run()
        self._retained: dict[str, Entry] = {}
        self._retained_names: NameTree[str] = NameTree()
        self._direct: dict[str, Run] = {}
        self._received: dict[str, Run] = {}
        self._rules = Rules(self, clock, retention=retention, quota=quota)
        self._reading = Reading(self, self._rules, quota)
        self._keys: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self._expiry = LoopingCall(self.expire)
        self._expiry.clock = clock
        self._expiring: IDelayedCall | None = None
        self._announce: Announce = lambda _: None

    # --- life ---

    def start(self, announce: Announce) -> Deferred[None]:
        self._announce = announce
        self._expiry.start(1.0, now=False)
        return execute(lambda: None)

    def stop(self) -> Deferred[None]:
        if self._expiry.running:
            self._expiry.stop()
        if self._expiring is not None:
            self._expiring.cancel()
        return execute(lambda: None)

    def expire(self) -> None:
        """One step of expiry: the oldest entries, as far as they are too old."""
        if self._expiring is not None and self._expiring.active():
            self._expiring.cancel()
        self._expiring = None
        before = int((self._clock.seconds() - self._retention) * 1000)
        for _ in range(EXPIRE_AT_ONCE):
            if not self._log or self._log[0].ts >= before:
                return
            self._expire_first()
        self._expiring = self._clock.callLater(0, self.expire)  # more, in the next turn

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
            self.topics.drop_first()
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
            self.topics.append(entry)
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
        full = len(self._retained) >= MAX_RETAINED and old is None and not clears
        if full or self._retained_bytes - freed + added > self._max_bytes // 2:
            raise Refused(Code.QUOTA_EXCEEDED, "there is no room for another retained message")
        self._retained_bytes += added - freed
        if clears:
            self._retained.pop(topic, None)
            self._retained_names.discard(topic, topic)
        else:
            self._retained[topic] = entry
            self._retained_names.add(topic, topic)

    # --- reading ---

    def talk(self, talk: Conversation) -> Talk | None:
        return self._conversations.get(talk)

    def direct(self, user: str) -> Run | None:
        return self._direct.get(user)

    def retained(self, topic_filter: str) -> Iterator[Entry]:
        return (self._retained[topic] for topic in self._retained_names.select(topic_filter))

    def admit(self, user: str) -> Deferred[Standing]:
        return execute(self._rules.admit, user)

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        return execute(self._reading.start_for, user, device, since, at_most)

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Deferred[Page]:
        return execute(self._reading.feed, user, after, shared_after, interests, limit)

    def matches(
        self, topic_filter: str, after: int, until: int, limit: int, *, retained: bool
    ) -> Deferred[Page]:
        read = self._reading.retained if retained else self._reading.matches
        return execute(read, topic_filter, after, until, limit)

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Deferred[Slice]:
        return execute(self._reading.history, user, address, after, before, limit)

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> Deferred[tuple[list[Member], bool]]:
        return execute(self._reading.members, user, group, after, limit)

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
