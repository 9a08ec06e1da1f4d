"""The WebSocket edge: Autobahn's protocol on one side, a session on the other.

:class:`ChatFactory` holds the shared :class:`~chatsvc.state.ChatState` and the options of all
connections; each :class:`ChatProtocol` turns frames into calls of its
:class:`~chatsvc.session.Session`, and is the :class:`~chatsvc.connection.Connection` that the
session writes to.

What is decided here, and nowhere else:

- who may connect at all: path, host, origin, number (``onConnect``, and Autobahn's own checks);
- what is no WebSocket: that is handed over to twisted.web (:mod:`chatsvc.handover`);
- flow: a transport that has so much unsent that little more may come (``max_outbox``) is
  *congested* until it is empty, which streams heed; a client that does not read its replies is no
  longer read from;
- time: Autobahn's timers are off. One sweep a second over all connections enforces the deadlines of
  handshake and closing, and lets sessions ping;
- closing: a peer's Close is answered after the replies to what it had sent before.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Any, Final

from autobahn.twisted.websocket import WebSocketServerFactory
from autobahn.websocket.types import ConnectionDeny, ConnectionRequest
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.internet.task import LoopingCall
from twisted.internet.tcp import Connection
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from chatsvc.compression import WORTH_IT, Agreement, Inflater, deflated_frame, negotiate
from chatsvc.draining import Draining
from chatsvc.framing import text_frame
from chatsvc.handover import hand_over, is_plain
from chatsvc.messages.commands import is_name
from chatsvc.messages.errors import CloseCode
from chatsvc.messages.events import MAX_FRAME, SUBPROTOCOL, Closing, encode
from chatsvc.pipeline import MANY
from chatsvc.session import Session
from chatsvc.state import ChatState
from chatsvc.web.channel import MAX_HEAD, SERVER, Channel
from chatsvc.web.site import HttpSite
from chatsvc.wire import LARGE, Turn, WireProtocol, carrying_options

__all__ = ["ChatFactory", "ChatProtocol", "EdgeOptions", "least_outbox"]

PATH: Final = "/ws"
HANDSHAKE_TIMEOUT: Final = 5.0
CLOSE_TIMEOUT: Final = 5.0
"""Seconds for a closing handshake, and for the replies before the answer to a peer's Close."""
STUCK_TIMEOUT: Final = 60.0
"""Seconds that a connection may stay congested without any progress."""
SEND_BUFFER: Final = 64 * 1024
"""Bytes asked of the kernel for what a client has not read. By default it takes some 4 MB, and a
ping waits behind them all."""
UNREAD_REPLIES: Final = 64 * 1024
"""Bytes written to a congested client after which it is not read from."""
SMALL: Final = 256
"""Bytes of most replies to what is stored, and more."""
RETRY_AFTER_STOP: Final = 1000

# Not `self.log`, which is Autobahn's and costs nothing where its level is off.
log = Logger()


def least_outbox(max_message: int) -> int:
    """What may be unsent of a connection that is congested from its first byte on.

    A turn's outbox, a message that goes beyond it, the unread replies that are let through, the
    largest one after them, and the small ones of commands that were under way already.
    """
    return LARGE + max_message + UNREAD_REPLIES + MAX_FRAME + MANY * SMALL


class EdgeOptions(Struct, frozen=True):
    """What an operator may choose; sizes in bytes.

    ``max_outbox`` is the most that is unsent of one connection, at least :func:`least_outbox`.
    ``hosts`` are the only values of the Host header that are answered, or None for any.
    ``origins`` are the patterns of web pages that may connect; programs send none.
    ``compression``: whether messages may be compressed, where a client offers it.
    """

    max_message: int
    max_outbox: int
    max_connections: int
    hosts: frozenset[str] | None
    origins: tuple[str, ...]
    compression: bool


@implementer(IPushProducer)
class ChatProtocol(WireProtocol):
    """One client. See the module."""

    factory: ChatFactory
    transport: Any
    _perMessageCompress: Any

    def __init__(self) -> None:
        super().__init__()
        self.session: Session | None = None
        self.congested = False
        self._unread = 0
        self._holds: set[str] = set()
        self._deadline: float | None = None
        self._held_close: tuple[Any, Any] | None = None
        self._user: str | None = None
        self._compression: Agreement | None = None
        self._stuck_since = 0.0
        self._owed_pong: bytes | None = None

    # --- from Twisted and Autobahn ---

    def connectionMade(self) -> None:
        self.turn = self.factory.turn
        super().connectionMade()
        self.factory.connections[self] = None
        self._deadline = self.factory.clock.seconds() + HANDSHAKE_TIMEOUT
        if isinstance(self.transport, Connection):
            self.transport.getHandle().setsockopt(SOL_SOCKET, SO_SNDBUF, SEND_BUFFER)
            options = self.factory.options
            self.room = options.max_outbox - least_outbox(options.max_message)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.factory.lost(self)
        self.session = None  # nothing refers to each other in a circle, and needs the collector
        self.is_open = self.is_closed = None

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        if self.session is not None and self.state == self.STATE_OPEN:
            self.session.work()

    def processHandshake(self) -> None:
        if len(self.data) > MAX_HEAD and b"\r\n\r\n" not in self.data[:MAX_HEAD]:
            self.data = b""
            self.failHandshake("request head too long", 431)
        elif is_plain(self.data):
            hand_over(self)
        else:
            super().processHandshake()

    def failHandshake(self, reason: str, code: int = 400, responseHeaders: Any = None) -> None:
        """Refuse; a request may hold what an operator's terminal would obey."""
        self.wasClean = True  # one line in the log is enough
        printable = "".join(c if c.isprintable() else "?" for c in reason)
        super().failHandshake(printable, code, responseHeaders)

    def sendHttpErrorResponse(self, code: int, reason: str, responseHeaders: Any = None) -> None:
        """Say why in the body too, which is all that most tools show."""
        body = f"{reason}\n".encode()
        headers = [
            *(responseHeaders or ()),
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        super().sendHttpErrorResponse(code, reason, headers)
        self.sendData(body)

    def onConnect(self, request: ConnectionRequest) -> tuple[str | None, dict[str, str]]:
        # Autobahn would refuse who offers an extension in a way that it does not know.
        self.websocket_extensions = []
        try:
            return self._admit(request)
        except ConnectionDeny:
            raise
        except Exception:
            # Autobahn would put the exception's text on the wire.
            log.failure("a handshake failed")
            raise ConnectionDeny(500, "internal error") from None

    def _admit(self, request: ConnectionRequest) -> tuple[str | None, dict[str, str]]:
        """Whether this may connect; the subprotocol to be spoken, and headers."""
        options = self.factory.options
        if not self.factory.serving:
            raise ConnectionDeny(503, "not serving now")
        if request.path != PATH:
            raise ConnectionDeny(404, f"WebSockets are at {PATH}")
        if options.hosts is not None and request.host.lower() not in options.hosts:
            raise ConnectionDeny(403, "this host is not served")
        users = request.params.get("user", [])
        if len(users) > 1 or not all(is_name(user) for user in users):
            raise ConnectionDeny(400, "user must be one valid name")
        self._user = users[0] if users else None
        headers = {}
        self._compression = negotiate(request.extensions) if options.compression else None
        if self._compression is not None:
            headers["Sec-WebSocket-Extensions"] = self._compression.answer
        return SUBPROTOCOL if SUBPROTOCOL in request.protocols else None, headers

    def onOpen(self) -> None:
        self._deadline = None
        if self._compression is not None:
            self._perMessageCompress = Inflater(self._compression)
        self.registerProducer(self, True)
        self.session = Session(
            self,
            self.factory.state,
            self.factory.limits,
            name=self._user,
            programmatic=self.websocket_protocol_in_use == SUBPROTOCOL,
        )

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        if self.session is None or self.state != self.STATE_OPEN or self._held_close is not None:
            return
        self.session.received(payload)

    def processData(self) -> bool:
        if self._held_close is not None:
            self.data = b""  # nothing counts after a Close
            return False
        return super().processData()

    def onPing(self, payload: bytes) -> None:
        """Answer; a client that does not read has the answer to its last when it does."""
        if self.congested:
            self._owed_pong = payload
        else:
            super().onPing(payload)

    def onPong(self, payload: bytes) -> None:
        if self.session is not None:
            self.session.pong(payload)

    def onCloseFrame(self, code: Any, reasonRaw: Any) -> bool | None:
        if self.session is None or self.state != self.STATE_OPEN or self._held_close is not None:
            answered: bool | None = super().onCloseFrame(code, reasonRaw)
            return answered
        self._held_close = (code, reasonRaw)
        self._deadline = self.factory.clock.seconds() + CLOSE_TIMEOUT
        self.session.finish(self._answer_close)
        return None

    def _fail_connection(self, code: int = 1001, reason: str = "going away") -> None:
        """Autobahn closes for a broken rule: say why first; not all clients show a close code."""
        if self.state == self.STATE_OPEN:
            self.send(encode(Closing(reason=reason)))
        super()._fail_connection(code, reason)

    def finish(self, then: Callable[[], None]) -> None:
        """Take no more commands, and call ``then`` when those taken are done.

        One whose Close is still to be answered finishes by being lost, and one that has not shaken
        hands is dropped.
        """
        if self.session is None:
            self.abort()
        elif self._held_close is None:
            self.session.finish(then)

    def farewell(self) -> None:
        """Tell the client that the server is stopping, and close."""
        self.close(CloseCode.GOING_AWAY, "the server is stopping", RETRY_AFTER_STOP)

    def _answer_close(self) -> None:
        if self._held_close is not None and self.state == self.STATE_OPEN:
            super().onCloseFrame(*self._held_close)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        if self.session is not None:
            self.session.closed()

    # --- IPushProducer: what the transport says of its buffer ---

    def pauseProducing(self) -> None:
        """The transport has more than it can send."""
        self.congested = True
        self._unread = self.flushed
        self._stuck_since = self.factory.clock.seconds()

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self.congested = False
        self._unread = 0
        self._hold("replies", False)
        if self._owed_pong is not None:
            owed, self._owed_pong = self._owed_pong, None
            super().onPing(owed)
        if self.session is not None and self.state == self.STATE_OPEN:
            self.session.drained()

    def stopProducing(self) -> None:
        """The transport is gone; ``onClose`` follows."""

    # --- Connection: what sessions and streams ask ---

    @property
    def blocked(self) -> bool:
        """Whether so many replies are unread that there should be no more."""
        return self._unread > UNREAD_REPLIES

    def send(self, payload: bytes) -> None:
        """Send a text frame; nothing once a Close has been sent."""
        if self.state != self.STATE_OPEN:
            return
        if self._compression is None or len(payload) < WORTH_IT:
            last, frame = self.factory.framed
            if last is not payload:  # a frame is made once for many receivers
                frame = text_frame(payload)
                self.factory.framed = (payload, frame)
            self.sendData(frame)
        else:
            self.sendData(self.factory.deflated(payload, self._compression.server_bits))
        if self.congested:
            self._unread += len(payload)
            if self.blocked:
                self._hold("replies", True)

    def ping(self, payload: bytes) -> None:
        """Send a ping frame."""
        self.sendPing(payload)

    def close(self, code: CloseCode, reason: str, retry_in_ms: int | None = None) -> None:
        """Say why, and close."""
        if self.state != self.STATE_OPEN:
            return
        self.send(encode(Closing(reason=reason, retry_in_ms=retry_in_ms)))
        self.sendCloseFrame(code=int(code), reasonUtf8=reason.encode()[:123])
        self._hold("commands", False)
        self._hold("replies", False)

    def hold(self, held: bool) -> None:
        """Stop reading commands, or go on."""
        self._hold("commands", held)

    def _hold(self, why: str, held: bool) -> None:
        """Stop reading for one reason more, or go on when the last is gone."""
        before = bool(self._holds)
        (self._holds.add if held else self._holds.discard)(why)
        if before != bool(self._holds):
            (self.transport.pauseProducing if held else self.transport.resumeProducing)()

    # --- time ---

    def sweep(self, now: float) -> None:
        """Enforce deadlines; called about once a second."""
        if self.state == self.STATE_OPEN and self._held_close is None:
            if self.congested and now - self._stuck_since > STUCK_TIMEOUT:
                self.close(CloseCode.NO_PROGRESS, "nothing was read for 60 s")
            elif self.session is not None:
                self.session.sweep(now, reading=not self._holds)
        elif self._deadline is None:
            self._deadline = now + CLOSE_TIMEOUT
        elif now >= self._deadline and self.state == self.STATE_OPEN:
            self._deadline = None
            self._answer_close()
        elif now >= self._deadline:
            self.abort()

    def abort(self) -> None:
        """Drop the connection now, whatever is unsent."""
        self.wasClean = True  # nothing to be warned of
        self.dropConnection()
        self.transport.abortConnection()


class ChatFactory(WebSocketServerFactory):
    """Makes the protocols, and holds what they share. See the module.

    ``limits`` is what clients are told of the server's limits, ``site`` what has HTTP answered.
    """

    noisy = False
    protocol = ChatProtocol  # type: ignore[assignment]

    def __init__(
        self,
        state: ChatState,
        options: EdgeOptions,
        limits: dict[str, int],
        clock: IReactorTime,
        site: HttpSite,
    ) -> None:
        super().__init__(server=SERVER, reactor=clock)
        self.state = state
        self.options = options
        self.limits = limits
        self.clock = clock
        self.site = site
        self.turn = Turn(clock)
        self.connections: dict[ChatProtocol | Channel, None] = {}
        self.serving = False
        self._draining: Draining | None = None
        self.framed: tuple[bytes, bytes] = (b"", text_frame(b""))  # the last payload, its frame
        # An entry has up to three shapes, and receivers of each come in any order.
        self.deflated = lru_cache(maxsize=4)(deflated_frame)
        self._sweeping = LoopingCall(self.sweep)
        self._sweeping.clock = clock
        self.setProtocolOptions(
            webStatus=False,
            failByDrop=False,
            utf8validateIncoming=True,
            maxFramePayloadSize=options.max_message,
            maxMessagePayloadSize=options.max_message,
            maxConnections=options.max_connections,
            allowedOrigins=list(options.origins),
            allowNullOrigin=False,
            autoPingInterval=0,  # chatsvc.stream pings: Autobahn's payload proves nothing
            openHandshakeTimeout=0,  # the sweep
            closeHandshakeTimeout=0,
            tcpNoDelay=True,
        )
        self.protocol = carrying_options(ChatProtocol, self)

    def startFactory(self) -> None:
        super().startFactory()
        self.site.doStart()

    def stopFactory(self) -> None:
        self.site.doStop()
        super().stopFactory()

    def begin(self) -> None:
        """Let clients in."""
        self.serving = True
        self._sweeping.start(1.0, now=False)

    def sweep(self) -> None:
        """Let each connection do what time demands."""
        now = self.clock.seconds()
        for connection in list(self.connections):
            try:
                connection.sweep(now)
            except Exception:
                log.failure("sweeping a connection")

    def drain(self) -> Deferred[None]:
        """Let nobody in, and everybody go; see :mod:`chatsvc.draining`."""
        self.serving = False
        self._draining = Draining(self.connections, self.clock)
        gone = self._draining.begin()
        return gone.addCallback(lambda _: self._stop_sweeping())

    def _stop_sweeping(self) -> None:
        if self._sweeping.running:
            self._sweeping.stop()

    def lost(self, connection: ChatProtocol | Channel) -> None:
        """A connection is gone."""
        self.connections.pop(connection, None)
        if self._draining is not None:
            self._draining.lost(connection)
