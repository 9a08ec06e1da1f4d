"""What one connection is shown of the log: first what it missed, then live, without a seam.

A stream reads the store up to where the announcements are, then shows what is announced. Where the
two meet is decided by ``cursor``, the ``seq`` up to which everything for this connection has been
written: pages end at the ``seq`` they are whole up to, and an announced entry at or below the
cursor has been shown already. While the store is being read, announced entries are not kept, only
the last one's ``seq``: the stream is live when a page reaches beyond it. So there is no buffer that
could overflow, and falling behind is the same as arriving late::

    WAITING --begin--> FEEDING --caught up--> LIVE
                          ^                    |
                          +--does not drain----+      any --stop--> STOPPED

A live stream whose transport is congested when something is to be shown becomes *lagging*
(protocol, promise 5): it is fed from the store again, a page a reactor turn, while at most
:data:`chatsvc.proof.WINDOW` bytes are unproven. A subscription's replay is fed in the same way
before the stream goes on, so that it comes before what is live.

A session is told of ``lagging``, ``caught_up`` and ``gap``; a plain (*bare*) connection is shown
messages and nothing else, and none of its own user.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from functools import partial
from typing import Final

from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.connection import Connection
from chatsvc.messages.entries import Entry, Shape, render
from chatsvc.messages.errors import CloseCode, Code, Refused
from chatsvc.messages.events import CaughtUp, Event, Gap, Lagging, encode
from chatsvc.proof import Position, Proof
from chatsvc.state import ChatState, Delivery
from chatsvc.store import Interest, Page, Start

__all__ = ["Stream"]

PAGE = 200
"""Entries read from the store at once."""
IDLE_PING = 25.0
"""Seconds after which a connection is pinged in any case."""
PONG_TIMEOUT = 10.0
FEED_TIMEOUT = 60.0
"""Seconds without progress after which a stream that is fed from the store is given up."""


class Phase(enum.Enum):
    """Where a stream is; see the module."""

    WAITING = enum.auto()
    FEEDING = enum.auto()
    LIVE = enum.auto()
    STOPPED = enum.auto()


# What is looked at for each delivery: a module's own names are found at once.
LIVE: Final = Phase.LIVE
OWN: Final = Shape.OWN
FULL: Final = Shape.FULL


class Replay(Struct):
    """Stored messages of a new subscription that are still to be shown."""

    topic_filter: str
    after: int
    until: int
    retained: bool


class Stream:
    """See the module.

    ``start`` is where it begins, ``origin`` the name of the connection in the entries it causes,
    ``numbers`` what makes its pings unlike those of earlier streams of the connection. While the
    user's name is ``provisional``, proof is kept back: the connection may turn out to be another.
    """

    log = Logger()

    def __init__(
        self,
        connection: Connection,
        state: ChatState,
        start: Start,
        *,
        user: str,
        device: str | None,
        origin: str,
        bare: bool,
        provisional: bool = False,
        numbers: Iterator[int],
    ) -> None:
        self.user = user
        self.device = device
        self.bare = bare
        self.filters: dict[str, int] = {}
        self.cursor = self.started_after = start.after
        self._connection = connection
        self._state = state
        self._clock = state.clock
        self._origin = origin
        self._phase = Phase.WAITING
        self._shared_after = start.shared_after
        self._loss = start.loss
        self._offered = 0
        self._replays: deque[Replay] = deque()
        self._reading = False
        self._outdated = False
        self._owes_caught_up = False
        self._position = Position(partial(state.proven, user, device), provisional=provisional)
        self._next_page: IDelayedCall | None = None
        now = self._clock.seconds()
        self._proof = Proof(numbers)
        self._due = now
        self._began = self._progress = self._swept = now

    @property
    def live(self) -> bool:
        """Whether entries are shown as they are announced."""
        return self._phase is Phase.LIVE

    # --- life ---

    def begin(self) -> None:
        """Show everything from the start on."""
        if self._phase is not Phase.WAITING:
            return
        if (loss := self._loss) is not None:
            self._tell(Gap(after=loss.after, until=loss.until, reason=loss.reason))
        self._phase = Phase.FEEDING
        self._owes_caught_up = True
        self._feed()

    def stop(self) -> None:
        """Show nothing more, and be told of nothing."""
        self._position.confirm(own=True)
        self._phase = Phase.STOPPED
        if self._next_page is not None:
            self._next_page.cancel()
            self._next_page = None
        for topic_filter in self.filters:
            self._state.topics.discard(topic_filter, self)
        self.filters.clear()
        self._state.detach(self)

    def replaced(self) -> None:
        """The device said ``hello`` on another connection."""
        self.stop()
        self._connection.close(CloseCode.REPLACED, "the device is connected elsewhere")

    # --- live ---

    def deliver(self, delivery: Delivery) -> None:
        """Show an announced entry, or note that the store must be read beyond it."""
        entry = delivery.entry
        if entry.seq <= self.cursor:
            return
        if self._phase is not LIVE:
            self._offered = entry.seq
        elif self._connection.congested:
            self._fall_behind(entry.seq)
        else:
            self.cursor = entry.seq
            shape = self._shape(entry)
            if shape is None:
                return
            payload = delivery.payloads.get(shape) or delivery.payload(shape)
            if payload is not None:
                proof = self._proof
                first = proof.proven == proof.written
                self._connection.send(payload)
                proof.written += len(payload)
                if first:  # else a ping is under way, or the sweep sees to it
                    self._ping_if_due()

    def _fall_behind(self, seq: int) -> None:
        """Be fed from the store from ``seq`` on."""
        self.cursor = seq - 1  # all before was shown, or was not for this connection
        self._tell(Lagging(seq=self.cursor))
        self._owes_caught_up = True
        self._phase = Phase.FEEDING
        self._progress = self._clock.seconds()
        self._offered = seq

    def tell(self, payload: bytes, origin: str) -> bool:
        """Show a session an event that is not in the log; one that does not drain misses it."""
        if self.bare or origin == self._origin or self._phase not in (LIVE, Phase.FEEDING):
            return False
        if not self._connection.congested:
            self._connection.send(payload)
        return True

    def _shape(self, entry: Entry) -> Shape | None:
        """How this connection sees an entry; None where it does not."""
        if self.bare:
            return None if entry.sender == self.user else Shape.BARE
        if entry.origin == self._origin:
            return None
        return OWN if entry.sender == self.user else FULL

    def _write(self, payload: bytes) -> None:
        self._connection.send(payload)
        self._proof.written += len(payload)

    def _tell(self, event: Event) -> None:
        """Tell a session; a plain connection gets nothing unasked-for."""
        if not self.bare:
            self._connection.send(encode(event))

    # --- fed from the store ---

    def _feed(self) -> None:
        """Read one page, unless the client must take or prove something first."""
        if self._phase is not Phase.FEEDING or self._reading or self._connection.congested:
            return
        if not self._proof.has_room:
            if self._proof.outstanding is None:
                self._ping()
            return
        self._reading = True
        self._outdated = False
        if self._replays:
            replay = self._replays[0]
            read = self._state.store.matches(
                replay.topic_filter, replay.after, replay.until, PAGE, retained=replay.retained
            )
            read.addCallback(self._show_replay, replay)
        else:
            read = self._state.store.feed(
                self.user, self.cursor, self._shared_after, self._interests(), PAGE
            )
            read.addCallback(self._show_page)
        read.addErrback(self._cannot_read)

    def _interests(self) -> list[Interest]:
        return [Interest(topic_filter, after) for topic_filter, after in self.filters.items()]

    def _show_page(self, page: Page) -> None:
        self._reading = False
        if self._phase is not Phase.FEEDING:
            return
        self._state.note_read(page.upto)
        if self._outdated:
            self._feed_on()
            return
        if page.loss is not None and page.loss.until > self.cursor:
            after = max(page.loss.after, self.cursor)
            self._tell(Gap(after=after, until=page.loss.until, reason=page.loss.reason))
        for entry in page.entries:
            if self._connection.congested or not self._proof.has_room:
                self._feed_on()
                return
            shape = self._shape(entry)
            if shape is not None and (payload := render(entry, shape)) is not None:
                self._write(payload)
            self.cursor = entry.seq
        self.cursor = max(self.cursor, page.upto)
        if page.complete and not self._replays and self._offered <= self.cursor:
            self._go_live()
        else:
            self._feed_on()

    def _show_replay(self, page: Page, replay: Replay) -> None:
        self._reading = False
        if self._phase is not Phase.FEEDING:
            return
        if not self._replays or self._replays[0] is not replay:
            self._feed_on()  # unsubscribed meanwhile
            return
        loss = page.loss
        if loss is not None:
            topic = replay.topic_filter
            self._tell(Gap(topic=topic, after=loss.after, until=loss.until, reason=loss.reason))
            replay.after = loss.until
        for entry in page.entries:
            if self._connection.congested or not self._proof.has_room:
                self._feed_on()
                return
            shape = Shape.BARE if self.bare else Shape.REPLAY
            payload = render(entry, shape)
            if payload is not None and not (self.bare and entry.sender == self.user):
                self._write(payload)
            replay.after = entry.seq
        replay.after = max(replay.after, page.upto)
        if page.complete:
            self._replays.popleft()
            self._feed()
        else:
            self._feed_on()

    def _feed_on(self) -> None:
        """Read the next page in the next turn, so that others have theirs."""
        if self._next_page is None:
            self._next_page = self._clock.callLater(0, self._feed_next)

    def _feed_next(self) -> None:
        self._next_page = None
        self._feed()

    def _cannot_read(self, failure: Failure) -> None:
        self._reading = False
        if self._phase is Phase.STOPPED:
            return
        if not failure.check(Refused):  # which the store has told of
            self.log.failure("the log cannot be read", failure)
        self.stop()
        self._connection.close(CloseCode.TRY_AGAIN_LATER, "the log cannot be read now")

    def _go_live(self) -> None:
        self._phase = Phase.LIVE
        if self._owes_caught_up:
            self._owes_caught_up = False
            self._tell(CaughtUp(seq=self.cursor))
        self._ping_if_due()

    def drained(self) -> None:
        """The transport has taken what was written."""
        self._progress = self._clock.seconds()
        self._feed()

    # --- subscriptions of the connection ---

    def subscribe(self, topic_filter: str, after: int | None = None) -> int:
        """Hear what matches, above ``after`` or from now on; returns the ``seq`` it holds above.

        From now on is above the cursor where that is ahead of the announcements: what has been
        read over is not shown any more. A page that is being read was not asked for this filter,
        and may be ahead of the announcements as well: it is read again.
        """
        if after is None:
            after = max(self._state.head, self.cursor)
        if topic_filter not in self.filters:
            self.filters[topic_filter] = after
            self._outdated = self._reading
            self._state.topics.add(topic_filter, self)
        return after

    def unsubscribe(self, topic_filter: str) -> None:
        """Hear it no more; what is still to be read of it is dropped."""
        if self.filters.pop(topic_filter, None) is not None:
            self._state.topics.discard(topic_filter, self)
        self._replays = deque(r for r in self._replays if r.topic_filter != topic_filter)

    def replay(self, topic_filter: str, after: int, until: int, *, retained: bool) -> None:
        """Show stored messages of a new subscription before going on."""
        self._replays.append(Replay(topic_filter, after, until, retained))
        if self._phase is Phase.LIVE:
            self._note_head()
            self._phase = Phase.FEEDING
            self._progress = self._clock.seconds()
        self._feed()

    # --- proof ---

    def acknowledge(self, seq: int) -> None:
        """The client has processed everything up to ``seq``; now only its word counts.

        :raises Refused: ``seq`` is above what was written.
        """
        if seq > self.cursor:
            raise Refused(Code.BAD_REQUEST, f"nothing above {self.cursor} was written to you")
        self._position.acknowledge(seq)

    def pong(self, payload: bytes) -> None:
        """An echo came back."""
        seq = self._proof.echo(payload)
        if seq is None or self._phase is Phase.STOPPED:
            return
        self._progress = self._clock.seconds()
        self._position.echoed(seq)
        self._feed()

    def confirm(self, *, own: bool) -> None:
        """The name is no longer provisional; under one that is not ``own``, this is the end."""
        self._position.confirm(own=own)
        if not own:
            self._phase = Phase.STOPPED

    def _note_head(self) -> None:
        """A live stream has been shown all that was announced, whoever it was for."""
        self.cursor = max(self.cursor, self._state.head)

    def _ping(self) -> None:
        if self._phase is Phase.LIVE:
            self._note_head()
        now = self._clock.seconds()
        self._due = now + self._state.ping_interval
        self._connection.ping(self._proof.ping(self.cursor, now))

    def _ping_if_due(self) -> None:
        proof = self._proof
        if proof.outstanding is None and self._clock.seconds() >= self._due and not proof.complete:
            self._ping()

    def sweep(self, now: float, *, reading: bool) -> None:
        """Ping if it is time; close if a pong has taken too long while the server was reading."""
        elapsed, self._swept = now - self._swept, now
        ping = self._proof.outstanding
        if self._phase not in (Phase.FEEDING, Phase.LIVE):
            return
        if ping is None:
            self._ping_if_due()
            if self._proof.outstanding is None and now - self._last_heard() >= IDLE_PING:
                self._ping()
        elif not reading:
            ping.since += elapsed
        elif self._phase is Phase.FEEDING:
            if now - max(ping.since, self._progress) > FEED_TIMEOUT:
                self._give_up(CloseCode.NO_PROGRESS, "no progress for 60 s")
        elif now - ping.since > PONG_TIMEOUT:
            self._give_up(CloseCode.SILENT, "no pong for 10 s")

    def _last_heard(self) -> float:
        return max(self._proof.last_ping, self._began)

    def _give_up(self, code: CloseCode, reason: str) -> None:
        self.stop()
        self._connection.close(code, reason)
