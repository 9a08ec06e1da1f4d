"""What stands in for sockets and for slow stores in the fast tests.

The rest is real: sessions, streams, state and store run as they do in the server, with the clock
of the test.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import CloseCode, Refused
from chatsvc.session import Session
from chatsvc.state import ChatState
from chatsvc.store import Announce, Append, Receipt, Then
from chatsvc.store.memory import MemoryStore

T = TypeVar("T")

MIB = 1024 * 1024
DAY = 86400.0
START = 1_000_000.0
"""Where the clock of tests begins, in seconds."""


def make_clock() -> Clock:
    """A clock that stands still until it is advanced."""
    clock = Clock()
    clock.advance(START)
    return clock


def make_store(
    clock: Clock, *, retention: float = 30 * DAY, quota: int = 10_000, max_bytes: int = 64 * MIB
) -> MemoryStore:
    """A store in memory, not started."""
    return MemoryStore(clock, "epoch-1", retention=retention, quota=quota, max_bytes=max_bytes)


def counter(prefix: str) -> Callable[[], str]:
    """A maker of names: prefix1, prefix2, …"""
    numbers = itertools.count(1)
    return lambda: f"{prefix}{next(numbers)}"


def appended(append: Callable[[Append, Then], None], what: Append) -> Deferred[Receipt]:
    """What becomes of ``what``, given to a store's ``append`` or to what takes its place."""
    answer: Deferred[Receipt] = Deferred()

    def then(result: Receipt | Refused) -> None:
        if isinstance(result, Refused):
            answer.errback(result)
        else:
            answer.callback(result)

    append(what, then)
    return answer


class ClockLane:
    """A lane without threads: what is to be done is done when the clock is advanced."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(self) -> None:
        """Nothing to begin."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` in the next turn."""
        return deferLater(self._clock, 0, work)

    def stop(self) -> None:
        """Nothing to end."""


class LateStore:
    """A store whose answers and announcements come only when the test lets them.

    What is done is done at once in the store behind it; what is told of it waits, as from a store
    that commits in another thread: announcements and the answers of what changes something in one
    order, the answers of reads apart from them, so that a read may know more than was announced.
    ``head`` is that of what was announced.
    """

    ORDERED = ("subscribe", "unsubscribe", "mark_read")

    def __init__(self, behind: MemoryStore) -> None:
        self._behind = behind
        self._told: list[Callable[[], None]] = []
        self._read: list[Callable[[], None]] = []
        self._announce: Announce = lambda _: None
        self._releasing = False
        self.late = True
        self.head = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._behind, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Deferred[Any]:
            answer: Deferred[Any] = Deferred()
            done = method(*args, **kwargs)
            queue = self._told if name in self.ORDERED else self._read
            queue.append(lambda: done.chainDeferred(answer))
            if not self.late:
                self.release()
            return answer

        return call

    def append(self, append: Append, then: Then) -> None:
        """Have it done now, and told of later."""
        self._behind.append(append, lambda result: self._told.append(partial(then, result)))
        if not self.late:
            self.release()

    def start(self, announce: Announce) -> Deferred[None]:
        """Start the store behind, and hear it in the test's stead."""
        self._announce = announce
        return self._behind.start(self._announced)

    def _announced(self, entry: Entry) -> None:
        def tell() -> None:
            self.head = entry.seq
            self._announce(entry)

        self._told.append(tell)

    def release(self, count: int | None = None) -> None:
        """Tell the next ``count`` things, or all, what follows from them included."""
        if self._releasing:
            return  # whoever began goes on with what has come
        self._releasing = True
        try:
            while (self._told or self._read) and count != 0:
                (self._told or self._read).pop(0)()
                count = None if count is None else count - 1
        finally:
            self._releasing = False

    def release_reads(self) -> None:
        """Answer the reads that wait now, before what is to be announced."""
        reads, self._read = self._read, []
        for tell in reads:
            tell()


def make_late_house() -> tuple[LateStore, House]:
    """A house over a store that answers late when a test says so; at first it answers at once."""
    clock = make_clock()
    store = LateStore(make_store(clock))
    store.late = False
    return store, House(store, clock)


class FakeConnection:
    """A client's connection that keeps what it was sent, as decoded frames.

    ``congested`` is set by the test. Pings are kept as they are; :meth:`echo` answers the last.
    """

    def __init__(self) -> None:
        self.frames: list[dict[str, Any]] = []
        self.pings: list[bytes] = []
        self.closed: tuple[CloseCode, str] | None = None
        self.congested = False
        self.blocked = False
        self.held = False
        self.session: Session | None = None

    def send(self, payload: bytes) -> None:
        """Keep a text frame."""
        if self.closed is None:
            self.frames.append(json.loads(payload))

    def ping(self, payload: bytes) -> None:
        """Keep a ping frame."""
        self.pings.append(payload)

    def close(self, code: CloseCode, reason: str) -> None:
        """Be closed, and tell the session as the WebSocket edge would."""
        if self.closed is None:
            self.closed = (code, reason)
            if self.session is not None:
                self.session.closed()

    def hold(self, held: bool) -> None:  # noqa: FBT001 - as in the interface
        """Note whether commands are read."""
        self.held = held

    # --- what the test does as the client ---

    def say(self, *frames: dict[str, Any] | bytes) -> None:
        """Send commands to the session."""
        assert self.session is not None
        for frame in frames:
            self.session.received(frame if isinstance(frame, bytes) else json.dumps(frame).encode())
        self.session.work()

    def echo(self) -> None:
        """Answer the last ping."""
        assert self.session is not None
        self.session.pong(self.pings[-1])

    def take(self) -> list[dict[str, Any]]:
        """The frames that came since the last time."""
        frames, self.frames = self.frames, []
        return frames

    def leave(self) -> None:
        """Go away without a word."""
        assert self.session is not None
        self.closed = (CloseCode.NORMAL, "left")
        self.session.closed()


class House:
    """A state with its store and clock, and clients that come and go."""

    def __init__(self, store: Any = None, clock: Clock | None = None) -> None:
        self.clock = make_clock() if clock is None else clock
        self.store = make_store(self.clock) if store is None else store
        self.state = ChatState(self.store, self.clock, counter("s"))
        self.state.start()

    def connect(self, name: str | None = None, *, programmatic: bool = False) -> FakeConnection:
        """A client that has connected and said nothing; ``name`` as if from the URL."""
        connection = FakeConnection()
        connection.session = Session(
            connection, self.state, {}, name=name, programmatic=programmatic
        )
        return connection

    def plain(self, name: str | None = None) -> FakeConnection:
        """A plain client, settled by silence."""
        connection = self.connect(name)
        self.clock.advance(0.25)
        return connection

    def session(self, name: str, **hello: Any) -> FakeConnection:
        """A client that has said ``hello``; its ``welcome`` and what followed are still to take."""
        connection = self.connect(programmatic=True)
        connection.say({"op": "hello", "user": name, **hello})
        return connection

    def sweep(self, seconds: float, *connections: FakeConnection, reading: bool = True) -> None:
        """Let time pass, with a sweep over the connections each second."""
        for _ in range(int(seconds)):
            self.clock.advance(1.0)
            for connection in connections:
                if connection.closed is None and connection.session is not None:
                    connection.session.sweep(self.clock.seconds(), reading=reading)
