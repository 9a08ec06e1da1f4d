"""A store in memory: for trying things out, for tests, and as the plainest reading of the rules.

Nothing outlives the process; each start is a new log with a new ``epoch``. Every Deferred has fired
when it is returned.

Two bounds hold what is kept: the retention (by age), and ``max_bytes`` (by size). Beyond either the
oldest entries go, and readers who had not got there are told by a ``gap``. Keys are kept for as
long as the process runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from twisted.internet.defer import Deferred, execute
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.task import LoopingCall

from chatsvc.messages.entries import Address, Entry
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
    Then,
)
from chatsvc.store.memory_log import MemoryLog, cost
from chatsvc.store.reading import Reading
from chatsvc.store.rules import Rules, first_receipt
from chatsvc.store.tables import Tables

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
        self._log = MemoryLog()
        tables = Tables()
        self._rules = Rules(self._log, tables, clock, retention=retention, quota=quota)
        self._reading = Reading(self._log, tables, quota)
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
            oldest = self._log.oldest
            if oldest is None or oldest.ts >= before:
                return
            self._expire_first()
        self._expiring = self._clock.callLater(0, self.expire)  # more, in the next turn

    def _expire_first(self) -> None:
        entry = self._log.remove_oldest()
        self._rules.floor = entry.seq
        if entry.address.kind == "to":
            self._rules.forget_waiting(entry.sender, entry.address.name)

    # --- appending ---

    def append(self, append: Append, then: Then) -> None:
        try:
            receipt = self._append(append)
        except Refused as refused:
            then(refused)
        else:
            then(receipt)

    def _append(self, append: Append) -> Receipt:
        binding = None if append.key is None else (append.user, append.key)
        if binding is not None and (bound := self._keys.get(binding)) is not None:
            return first_receipt(append, *bound)
        receipt, entries = self._rules.decide(append)
        if append.retain:
            self._retain(entries[0])
        if binding is not None and entries:
            self._keys[binding] = (append.digest, receipt)
        for entry in entries:
            self._rules.last = entry.seq
            self._log.append(entry)
        while self._log.oldest and self._log.bytes + self._log.retained_bytes > self._max_bytes:
            self._expire_first()
        for entry in entries:
            self.head = entry.seq
            self._announce(entry)
        return receipt

    def _retain(self, entry: Entry) -> None:
        """Keep as the topic's retained message; an empty one clears it (MQTT 5.0, 3.3.1.3)."""
        log, topic = self._log, entry.address.name
        if entry.clears_retained:
            log.retain(topic, None)
            return
        old = log.retained_of(topic)
        freed = 0 if old is None else cost(old)
        full = log.retained_count >= MAX_RETAINED and old is None
        if full or log.retained_bytes - freed + cost(entry) > self._max_bytes // 2:
            raise Refused(Code.QUOTA_EXCEEDED, "there is no room for another retained message")
        log.retain(topic, entry)

    # --- reading ---

    def admit(self, user: str) -> Deferred[Standing]:
        return execute(self._rules.admit, user)

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        return execute(self._start_for, user, device, since, at_most)

    def _start_for(
        self, user: str, device: str | None, since: int | None, at_most: int | None
    ) -> Start:
        return self._reading.start(user, self._rules.start_after(user, device, since, at_most))

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

    def acquainted(self, user: str, other: str) -> Deferred[bool]:
        return execute(self._reading.acquainted, user, other)

    # --- what stands beside the log ---

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        return execute(self._rules.subscribe, user, topic_filter)

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        return execute(self._rules.unsubscribe, user, topic_filter)

    def mark_read(self, user: str, address: Address, seq: int) -> Deferred[frozenset[str]]:
        return execute(self._rules.mark_read, user, address, seq)

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        return execute(self._rules.save_positions, positions)
