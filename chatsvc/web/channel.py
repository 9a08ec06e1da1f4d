"""One HTTP connection: twisted.web's channel, within bounds.

twisted.web takes HTTP apart and answers requests in their order. It leaves open how much a client
may make it keep, and for how long; :class:`Channel` says so:

- a body has at most :data:`MAX_BODY` bytes, and all that are being received at the same time at
  most :data:`MAX_BODIES`; a head that announces more is refused before anything is kept;
- a request is there within :data:`REQUEST_TIMEOUT` seconds, the next begins within
  :data:`IDLE_TIMEOUT`, and a client that reads nothing for :data:`STUCK_TIMEOUT` is dropped. The
  factory's sweep looks, there are no timers. A resource that has much to say is a producer;
- of requests that come together one is answered a turn, and none while the client does not read;
- a browser that was made to believe that a foreign name is this machine is not answered.

What breaks a rule gets one answer in plain text and the connection ends. What is still on its way
in then is read and dropped: if it were not, the kernel would take the answer back.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.internet.tcp import Server
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from chatsvc import __version__

__all__ = ["MAX_BODIES", "MAX_BODY", "MAX_HEAD", "SERVER", "Channel"]

SERVER: Final = f"chatsvc/{__version__}"
MAX_HEAD: Final = 16 * 1024
"""Bytes of a request head."""
MAX_BODY: Final = 1024 * 1024
MAX_BODIES: Final = 64 * MAX_BODY
REQUEST_TIMEOUT: Final = 60.0
IDLE_TIMEOUT: Final = 30.0
STUCK_TIMEOUT: Final = 60.0
LINGER: Final = 5.0
"""Seconds that a client has to read why it was refused."""


class Stage(enum.Enum):
    """What a connection is waiting for."""

    IDLE = enum.auto()
    RECEIVING = enum.auto()
    ANSWERING = enum.auto()
    CLOSING = enum.auto()


class Channel(HTTPChannel):
    """See the module. ``last``: the next request is to be the last."""

    totalHeadersSize = MAX_HEAD
    site: Any
    transport: Any

    def __init__(self) -> None:
        super().__init__()
        self.last = False
        self._stage = Stage.IDLE
        self._deadline: float | None = None
        self._stuck_since: float | None = None
        self._body = 0
        self._when_answered: Callable[[], None] | None = None

    def _enter(self, stage: Stage, patience: float | None) -> None:
        self._stage = stage
        self._deadline = None if patience is None else self.site.reactor.seconds() + patience

    # --- a request comes in ---

    def dataReceived(self, data: bytes) -> None:
        """Take what comes, unless all has been said."""
        if self._stage is Stage.CLOSING:
            return
        if self._stage is Stage.IDLE:
            self._enter(Stage.RECEIVING, REQUEST_TIMEOUT)
        super().dataReceived(data)

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002 - Twisted's
        """A line that does not end is a head that does not."""
        self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too long")

    def _maybeChooseTransferDecoder(self, header: bytes, data: bytes) -> bool:
        if header == b"Content-Length" and len(data) > len(str(MAX_BODY)) and data.isdigit():
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
            return False  # Python makes no number of more than 4,300 digits
        chosen: bool = super()._maybeChooseTransferDecoder(header, data)
        return chosen

    def allHeadersReceived(self) -> None:
        """Judge a head before anything of the body is taken, or asked for."""
        refusal = self.site.refusal(self.requests[-1], self._version)
        if refusal is not None:
            self.refuse(*refusal)
        elif self.length is not None and self.length > MAX_BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        else:
            super().allHeadersReceived()

    def checkPersistence(self, request: Any, version: bytes) -> bool:
        """Whether another request may follow."""
        persistent: bool = super().checkPersistence(request, version)
        if persistent and self.last:
            request.setHeader(b"Connection", b"close")
        return persistent and not self.last

    def room_for(self, size: int) -> bool:
        """Whether a request may have so many more bytes of body; else it is refused."""
        if self._stage is Stage.CLOSING:
            return False
        if self._body + size > MAX_BODY:
            self.refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
            return False
        if self.site.bodies + size > MAX_BODIES:
            self.refuse(HTTPStatus.SERVICE_UNAVAILABLE, "too many bodies at the same time")
            return False
        self._body += size
        self.site.bodies += size
        return True

    def _forget_body(self) -> None:
        self.site.bodies -= self._body
        self._body = 0

    def allContentReceived(self) -> None:
        """A request is complete."""
        if self._stage is not Stage.CLOSING:
            self._enter(Stage.ANSWERING, None)
            super().allContentReceived()

    # --- it is answered ---

    def requestDone(self, request: Any) -> None:
        """Go on with the next request: in the next turn, if it is there already."""
        self._forget_body()
        self._enter(Stage.IDLE, IDLE_TIMEOUT)
        self.paused = True
        super().requestDone(request)
        if self._when_answered is not None:
            self._when_answered()
        if self._stage is Stage.CLOSING:
            return
        if self._buffer or self._waitingForTransport:
            self._networkProducer.pauseProducing()
            self.callLater(0, self._go_on)
        else:
            self.paused = False

    def _go_on(self) -> None:
        """Read again, if the client does; called again when it does."""
        if self.paused and self._stage is not Stage.CLOSING and not self._waitingForTransport:
            self.paused = False
            self._networkProducer.resumeProducing()
            if self._buffer:
                self.dataReceived(b"")

    def pauseProducing(self) -> None:
        """The transport has more than it can send."""
        if self._stuck_since is None:
            self._stuck_since = self.site.reactor.seconds()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        """The transport has sent everything."""
        self._stuck_since = None
        super().resumeProducing()
        self._go_on()

    # --- the end ---

    def _respondToBadRequestAndDisconnect(self) -> None:
        if self._receivedHeaderSize > MAX_HEAD or self._receivedHeaderCount > self.maxHeaders:
            self.refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "request head too long")
        else:
            self.refuse(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1 as it should be")

    def refuse(self, status: HTTPStatus, reason: str) -> None:
        """Say why, and end the connection."""
        if self._stage is Stage.CLOSING:
            return
        self._enter(Stage.CLOSING, LINGER)
        self._forget_body()
        self.paused = True
        self.clearLineBuffer()
        body = f"{reason}\n".encode()
        self.transport.write(
            f"HTTP/1.1 {status.value} {status.phrase}\r\n"
            f"Server: {SERVER}\r\n"
            "Content-Type: text/plain; charset=utf-8\r\n"
            f"Content-Length: {len(body)}\r\n"
            "Connection: close\r\n\r\n".encode()
            + body
        )
        self.transport.unregisterProducer()
        # A transport of TLS passes the calls of the socket below on, and would be cut off by this;
        # it reads until the client has closed anyway.
        if isinstance(self.transport, Server) and not self.transport.TLS:
            self.transport.resumeProducing()
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()

    def loseConnection(self) -> None:
        """End the connection when all is sent."""
        if self._stage is not Stage.CLOSING:
            self._enter(Stage.CLOSING, STUCK_TIMEOUT)
        super().loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget all of it."""
        self._enter(Stage.CLOSING, None)
        self._forget_body()
        super().connectionLost(reason)

    def sweep(self, now: float) -> None:
        """Enforce deadlines; called about once a second."""
        if self._stuck_since is not None and now - self._stuck_since >= STUCK_TIMEOUT:
            self.abort()
        elif self._deadline is None or now < self._deadline:
            return
        elif self._stage is Stage.RECEIVING:
            self.refuse(HTTPStatus.REQUEST_TIMEOUT, "the request took too long")
        elif self._stage is Stage.IDLE:
            self.loseConnection()
        else:
            self.abort()

    # --- Leaver: what the draining asks ---

    def finish(self, then: Callable[[], None]) -> None:
        """Take no more requests, and call ``then`` when the one that was taken is answered."""
        if self._stage is Stage.ANSWERING:
            self.persistent = False
            self.requests[0].setHeader(b"Connection", b"close")
            self._when_answered = then
        else:
            self.loseConnection()
            then()

    def farewell(self) -> None:
        """Nothing: an answer that takes long may still come to its end."""

    def abort(self) -> None:
        """Drop the connection now, whatever is unsent."""
        self.transport.abortConnection()
