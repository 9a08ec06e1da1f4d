"""The store on disk: one SQLite database, which keeps everything through crashes and power cuts.

What changes something goes to a :class:`~chatsvc.store.sqlite.writer.Writer` in a thread of its
own, in batches: one transaction, and so one fsync, for all that came in while the last was being
committed. Only then is it announced and answered, in the order of the log. What reads goes to a few
threads, each with a :class:`~chatsvc.store.sqlite.reader.Reader`, and sees all that is committed:
at times a little more than was announced, never less. Threads come in as a :class:`Lane`, so that
tests need none.

The modules: ``file`` opens the database, in the format of ``schema``; ``writer``, with ``records``,
``places`` and ``statements``, and ``reader`` use it; ``transfer`` copies logs from one to another.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import apsw
from twisted.internet.defer import Deferred, execute, inlineCallbacks
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.messages.entries import Address
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import (
    Announce,
    Append,
    DeviceKey,
    Interest,
    Member,
    Page,
    Slice,
    Standing,
    Start,
    Then,
)
from chatsvc.store.reading import Reading
from chatsvc.store.rules import Rules
from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.file import LogFile, Unusable, explained
from chatsvc.store.sqlite.reader import Reader
from chatsvc.store.sqlite.records import ROOM
from chatsvc.store.sqlite.writer import Job, Outcome, Task, Writer

__all__ = ["Lane", "SqliteStore"]

MOST_JOBS: Final = 1000
MOST_BYTES: Final = 4 * 1024 * 1024
"""How much one batch takes: of jobs, and of what they bring."""

T = TypeVar("T")


class Lane(Protocol):
    """Threads that do one thing after another each."""

    def start(self) -> None:
        """Be ready."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work``; the Deferred fires in the reactor's thread, never before this returns."""

    def stop(self) -> None:
        """End the threads; nothing is under way any more."""


class SqliteStore:
    """See the module. ``retention`` is in seconds, ``quota`` in messages.

    ``writing`` is one thread, ``reading`` may be several; ``room`` is how many rows of records the
    writer keeps in memory, ``unplaced`` how many entries it gives their places at once.
    """

    log = Logger()

    def __init__(
        self,
        file: LogFile,
        clock: IReactorTime,
        writing: Lane,
        reading: Lane,
        *,
        retention: float,
        quota: int,
        room: int = ROOM,
        unplaced: int = places.MANY,
    ) -> None:
        self.epoch = ""
        self.head = 0
        self._file = file
        self._clock = clock
        self._quota = quota
        self._writing = writing
        self._reading = reading
        self._writer = Writer(
            file, clock, retention=retention, quota=quota, room=room, unplaced=unplaced
        )
        self._readers: list[Reader] = []
        self._announce: Announce = lambda _: None
        self._queue: deque[tuple[Job, Callable[[Any], None]]] = deque()
        self._under_way = False
        self._unreadable = False
        self._open = False
        self._when_done: list[Deferred[None]] = []
        self._expiry = LoopingCall(self._expire)
        self._expiry.clock = clock

    @property
    def name(self) -> str:
        """Where things are kept, for people."""
        return f"in {self._file.path} (durability {self._file.durability})"

    # --- life ---

    def start(self, announce: Announce) -> Deferred[None]:
        """Open the file. Nothing is served yet, so this may take its time."""
        self._announce = announce
        return execute(self._start)

    def _start(self) -> None:
        self._file.open()
        try:
            with explained(self._file.path):
                self._writer.open()
        except Unusable:
            self._file.close()
            raise
        self.head = self._writer.head
        self.epoch = self._writer.epoch
        self._writing.start()
        self._reading.start()
        self._open = True
        self._expiry.start(1.0, now=False)

    def stop(self) -> Deferred[None]:
        """Commit what has been accepted, then close the file."""
        if self._expiry.running:
            self._expiry.stop()
        done: Deferred[None] = Deferred()
        self._when_done.append(done)
        self._rest()
        return done.addCallback(self._close)

    def _close(self, _: None) -> None:
        if not self._open:
            return
        self._open = False
        self._writing.stop()
        self._reading.stop()
        for reader in self._readers:
            reader.close()
        self._readers.clear()
        self._writer.close()
        self._file.close()

    # --- writing ---

    def append(self, append: Append, then: Then) -> None:
        """Commit one thing."""
        self._submit(append, then)

    def _submit(self, job: Job, then: Callable[[Any], None]) -> None:
        """Have ``job`` done, with all that comes in this turn."""
        self._queue.append((job, then))
        if not self._under_way:
            self._under_way = True
            self._clock.callLater(0, self._begin)

    def _do(
        self, work: Callable[[Rules], T], optional: Callable[[Rules], bool] = lambda _: False
    ) -> Deferred[T]:
        """Have something done by the rules that is no append; see :class:`Task`."""
        answer: Deferred[T] = Deferred()
        self._submit(Task(work, optional), partial(_fire, answer))
        return answer

    def _begin(self) -> None:
        """Have the next batch committed."""
        batch: list[tuple[Job, Callable[[Any], None]]] = []
        size = 0
        while self._queue and len(batch) < MOST_JOBS and size < MOST_BYTES:
            batch.append(self._queue.popleft())
            size += _size(batch[-1][0])
        committed = self._writing.call(lambda: self._writer.commit([job for job, _ in batch]))
        committed.addCallback(self._committed, [then for _, then in batch])

    def _committed(self, outcomes: list[Outcome], thens: list[Callable[[Any], None]]) -> None:
        """Announce and answer; the next batch is under way meanwhile."""
        if self._queue:
            self._begin()
        else:
            self._under_way = False
        for outcome, then in zip(outcomes, thens, strict=True):
            for entry in outcome.entries:
                self.head = entry.seq
                try:
                    self._announce(entry)
                except Exception:
                    self.log.failure("announcing entry {seq}", seq=entry.seq)
            try:
                then(outcome.result)
            except Exception:
                self.log.failure("answering a job")
        self._rest()

    def _rest(self) -> None:
        """Tell who waits for it that nothing is under way any more."""
        while self._when_done and not self._under_way:
            self._when_done.pop().callback(None)

    @inlineCallbacks
    def _expire(self) -> Generator[Deferred[bool], bool, None]:
        """Remove what is too old, step by step; others have their turns between two steps."""
        try:
            while (yield self._do(lambda _: self._writer.expire())):
                if not self._expiry.running:
                    return
        except Refused:
            return  # it cannot be written now; in a second, perhaps

    def admit(self, user: str) -> Deferred[Standing]:
        """What ``user`` belongs to; that it was seen is kept when it can be."""
        return self._do(lambda rules: rules.admit(user), lambda _: True)

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        """Where ``user``'s reader begins; a new device must be kept, or it might skip something."""
        after = self._do(
            lambda rules: rules.start_after(user, device, since, at_most),
            lambda rules: device is None or rules.knows_device(user, device),
        )
        return after.addCallback(lambda seq: self._read(lambda reading: reading.start(user, seq)))

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        """Keep a durable subscription."""
        return self._do(lambda rules: rules.subscribe(user, topic_filter))

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        """End a durable subscription."""
        return self._do(lambda rules: rules.unsubscribe(user, topic_filter))

    def mark_read(self, user: str, address: Address, seq: int) -> Deferred[frozenset[str]]:
        """Note that ``user`` has read a conversation up to ``seq``."""
        return self._do(lambda rules: rules.mark_read(user, address, seq))

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        """Move delivered positions forward."""
        return self._do(lambda rules: rules.save_positions(positions))

    # --- reading ---

    def _read(self, work: Callable[[Reading], T]) -> Deferred[T]:
        read = self._reading.call(lambda: self._with_reader(work))
        return read.addCallbacks(self._has_read, self._has_not_read)

    def _with_reader(self, work: Callable[[Reading], T]) -> T:
        """Do ``work`` in one of the reading threads."""
        try:
            reader = self._readers.pop()
        except IndexError:
            reader = Reader(self._file.connect_reader())
        try:
            with reader.snapshot():
                result = work(Reading(reader, reader, self._quota))
        except apsw.Error:
            reader.close()
            raise
        except Refused:
            self._readers.append(reader)
            raise
        self._readers.append(reader)
        return result

    def _has_read(self, result: T) -> T:
        if self._unreadable:
            self._unreadable = False
            self.log.info("the log can be read again")
        return result

    def _has_not_read(self, failure: Failure) -> Failure:
        if not failure.check(apsw.Error):
            return failure
        if not self._unreadable:
            self.log.error("the log cannot be read: {error}", error=failure.value)
        self._unreadable = True
        return Failure(Refused(Code.UNAVAILABLE, "the log cannot be read at the moment"))

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Deferred[Page]:
        """Some of what ``user`` hears."""
        return self._read(lambda reading: reading.feed(user, after, shared_after, interests, limit))

    def matches(
        self, topic_filter: str, after: int, until: int, limit: int, *, retained: bool
    ) -> Deferred[Page]:
        """Stored messages of topics."""
        if retained:
            return self._read(lambda reading: reading.retained(topic_filter, after, until, limit))
        return self._read(lambda reading: reading.matches(topic_filter, after, until, limit))

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Deferred[Slice]:
        """Part of a conversation."""
        return self._read(lambda reading: reading.history(user, address, after, before, limit))

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> Deferred[tuple[list[Member], bool]]:
        """Members of a group."""
        return self._read(lambda reading: reading.members(user, group, after, limit))

    def acquainted(self, user: str, other: str) -> Deferred[bool]:
        """Whether two users share a group or a direct conversation."""
        return self._read(lambda reading: reading.acquainted(user, other))


def _fire(answer: Deferred[Any], result: Any) -> None:
    """Let an answer be what became of a job."""
    if isinstance(result, Refused):
        answer.errback(Failure(result))
    else:
        answer.callback(result)


def _size(job: Job) -> int:
    """About how many bytes a job brings."""
    return 200 + len(job.msg or "") + len(job.data or b"") if isinstance(job, Append) else 200
