"""Autobahn's server protocol with a shorter way in and a shorter way out.

Autobahn takes every frame apart with all that RFC 6455 allows in mind, and hands every frame it
sends to the transport by itself. Most frames of a chat need neither. :class:`WireProtocol` knows
the common case and does that alone; everything else goes through Autobahn unchanged, so that what
conforms is what conformed before.

**In.** Where a frame begins and nothing is unfinished, whole unmasked text messages and pongs are
taken straight out of the buffer by :func:`chatsvc.framing.take_frames`. What it does not take,
because it is rarer, incomplete or wrong, is left in the buffer for Autobahn, which then finds
exactly what it would have found. Autobahn's statistics and frame hooks are passed over: use none.

**Out.** Everything that is sent passes ``sendData``: messages, pings and pongs, closing frames,
handshakes. So there is one outbox to a connection, nothing can overtake, and a ping proves what it
says. At the end of the reactor's turn the outbox is joined and written at once: straight to the
socket where Twisted has nothing waiting for it, because ``transport.write`` costs two calls of the
kernel besides the sending; by ``transport.write`` where it has, or where there is TLS, whose
transport passes on the socket of the one below it and would let plaintext out.
"""

from __future__ import annotations

from typing import Any, Final, TypeVar

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.tcp import Server
from twisted.logger import Logger

from chatsvc.framing import TEXT, take_frames

__all__ = ["Turn", "WireProtocol", "carrying_options"]

MAX_DATA_OPCODE: Final = 7
MAX_CONTROL: Final = 125
"""Bytes of a control frame's payload."""
LARGE: Final = 64 * 1024
"""Bytes of an outbox that are not kept until the turn ends."""

P = TypeVar("P", bound="WireProtocol")


class Turn:
    """The connections that have something to write at the end of this turn of the reactor."""

    log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: list[WireProtocol] = []
        self._end: IDelayedCall | None = None

    def add(self, connection: WireProtocol) -> None:
        """Let ``connection`` write when the turn ends."""
        self._waiting.append(connection)
        if self._end is None:
            self._end = self._clock.callLater(0, self.end)

    def end(self) -> None:
        """Let everybody write who waits."""
        self._end = None
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            try:
                connection.flush()
            except Exception:
                self.log.failure("writing to a connection")


class WireProtocol(WebSocketServerProtocol):
    """See the module. ``turn`` is the factory's, ``flushed`` how many bytes were written last.

    ``room`` is how much a bare transport may have unsent before it is congested.
    """

    turn: Turn
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self._outbox: list[bytes] = []
        self._unsent = 0
        self.flushed = 0
        self.room = LARGE
        self._straight = False

    def connectionMade(self) -> None:
        """Begin; only a bare socket may be written to straight."""
        self._straight = isinstance(self.transport, Server) and not self.transport.TLS
        super().connectionMade()

    # --- in ---

    def dataReceived(self, data: bytes) -> None:
        """Take what comes; Autobahn would first put together a log line that nobody reads."""
        self._dataReceived(data)

    def processData(self) -> bool:
        """Take what is common out of the buffer; leave the rest to Autobahn."""
        if (
            self.current_frame is None
            and not self.inside_message
            and self.state == self.STATE_OPEN
            and self.data
        ):
            frames, taken = take_frames(self.data, self.maxFramePayloadSize)
            if taken:
                self.data = self.data[taken:]
                for opcode, payload in frames:
                    if opcode == TEXT:
                        self.onMessage(payload, isBinary=False)
                    else:
                        self.onPong(payload)
                if not self.data:
                    return False
        more: bool = super().processData()
        return more

    def onFrameData(self, payload: bytes) -> bool | None:
        """Autobahn would keep all of a control frame that is too long, until the peer has gone."""
        frame = self.current_frame
        if frame.opcode > MAX_DATA_OPCODE and frame.length > MAX_CONTROL:
            return None
        kept: bool | None = super().onFrameData(payload)
        return kept

    def onMessageFrameData(self, payload: bytes) -> None:
        """Autobahn would keep the pieces that are empty, too, of which there may be any number."""
        if payload:
            super().onMessageFrameData(payload)

    # --- out ---

    def sendData(self, data: bytes, sync: bool = False, chopsize: int | None = None) -> None:
        """Write at the end of this turn, after what was sent before.

        ``sync`` and ``chopsize`` are for tests of Autobahn's own.
        """
        outbox = self._outbox
        if not outbox:
            self.turn.add(self)
        outbox.append(data)
        self._unsent += len(data)
        if self._unsent > LARGE:
            self.flush()

    def flush(self) -> None:
        """Write what has been sent in this turn."""
        outbox = self._outbox
        if not outbox:
            return
        data = outbox[0] if len(outbox) == 1 else b"".join(outbox)
        outbox.clear()
        self.flushed = len(data)
        self._unsent = 0
        transport = self.transport
        if (
            self._straight
            and transport.connected
            and not (transport._tempDataBuffer or transport.dataBuffer)
        ):
            try:
                sent = transport.socket.send(data)
            except OSError:  # there is no room, or the connection is lost: Twisted will find out
                sent = 0
            if sent == len(data):
                return
            data = data[sent:]
        if self._straight:
            # Twisted has one number for what it reads at once and for what makes it congested.
            at_once, transport.bufferSize = transport.bufferSize, self.room
            transport.write(data)
            transport.bufferSize = at_once
        else:
            transport.write(data)

    def dropConnection(self, abort: bool = False) -> None:
        """Close when all is sent.

        Autobahn would reset the connection when a Close has come that it answers by an error, or
        that answers ours, and what was said last would not arrive.
        """
        super().dropConnection(abort=False)

    def _closeConnection(self, abort: bool = False) -> None:
        self.flush()
        super()._closeConnection(abort)


def carrying_options(protocol: type[P], factory: WebSocketServerFactory) -> type[P]:
    """A subclass of ``protocol`` that has the factory's options as its own.

    Autobahn would copy some thirty of them to each connection, and write them out for a log line
    that nobody reads: half of what accepting one costs.
    """
    options = {name: getattr(factory, name) for name in protocol.CONFIG_ATTRS}
    own = {name: staticmethod(v) if callable(v) else v for name, v in options.items()}
    return type(protocol.__name__, (protocol,), {"CONFIG_ATTRS": (), **own})
