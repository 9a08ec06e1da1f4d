"""A client in memory: the ``websockets`` library's own protocol, wired to a :class:`ChatProtocol`.

The library knows nothing of ours, so what passes here is RFC 6455 as somebody else reads it. Bytes
go through :class:`Wire`, which can stall in either direction and carries them in pieces if asked.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IPushProducer
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from websockets.client import ClientProtocol
from websockets.extensions import ClientExtensionFactory
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from chatsvc.web.pages import Root
from chatsvc.web.site import HttpSite
from chatsvc.websocket import ChatFactory, ChatProtocol, EdgeOptions
from tests.fakes import House

HIGH_WATER = 64 * 1024
"""Bytes unsent at which a Twisted transport pauses its producer."""

OPTIONS = EdgeOptions(
    max_message=65536,
    max_outbox=1024 * 1024,
    max_connections=100,
    hosts=frozenset({"localhost", "127.0.0.1", "[::1]"}),
    origins=("http://localhost:*",),
    compression=True,
)


class Wire(StringTransport):
    """A transport that keeps what was written until the client takes it.

    While ``stalled`` the client takes nothing, and the producer is paused beyond the high water
    mark as by a socket.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stalled = False
        self.paused = False
        self.lost = False
        self.aborted = False
        self.reading = True

    def write(self, data: bytes) -> None:
        """Keep ``data`` for the client."""
        if self.lost:
            return
        super().write(data)
        producer: IPushProducer | None = self.producer
        if producer is not None and not self.paused and self.io.tell() > HIGH_WATER:
            self.paused = True
            producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """The same, of pieces."""
        self.write(b"".join(data))

    def take(self) -> bytes:
        """What the client takes: everything, unless it is stalled."""
        if self.stalled:
            return b""
        data = bytes(self.value())
        self.clear()
        if self.paused:
            self.paused = False
            if self.producer is not None:
                self.producer.resumeProducing()
        return data

    def unregisterProducer(self) -> None:
        """Forget the producer; forgetting none is fine, as with a socket."""
        self.producer = None

    def pauseProducing(self) -> None:
        """Stop reading from the client."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Read again."""
        self.reading = True

    def loseConnection(self) -> None:
        """Close when everything is sent."""
        self.lost = True

    def abortConnection(self) -> None:
        """Close now."""
        self.lost = self.aborted = True


class Peer:
    """One client of ``factory``, which offers ``extensions``."""

    def __init__(
        self, factory: ChatFactory, extensions: Sequence[ClientExtensionFactory] = ()
    ) -> None:
        self._extensions = extensions
        self.wire = Wire()
        self.protocol: ChatProtocol = factory.buildProtocol(None)  # type: ignore[assignment]
        self.protocol.makeConnection(self.wire)
        self.client = ClientProtocol(parse_uri("ws://localhost/ws"))
        self.events: list[Frame] = []
        self.response: Response | None = None
        self._gone = False

    def connect(
        self, uri: str = "ws://localhost/ws", subprotocol: str | None = None, **headers: str
    ) -> Peer:
        """Shake hands; ``response`` is what the server said."""
        subprotocols = None if subprotocol is None else [Subprotocol(subprotocol)]
        self.client = ClientProtocol(
            parse_uri(uri), subprotocols=subprotocols, extensions=self._extensions
        )
        request = self.client.connect()
        for name, value in headers.items():
            if name in request.headers:
                del request.headers[name]
            request.headers[name] = value
        self.client.send_request(request)
        return self.flush()

    def flush(self, size: int | None = None) -> Peer:
        """Carry bytes both ways until nothing moves; to the server in pieces of ``size``."""
        moved = True
        while moved:
            moved = False
            for data in self.client.data_to_send():
                for start in range(0, len(data), size or len(data) or 1):
                    moved = True
                    self.feed(data[start : start + (size or len(data))])
            self.protocol.factory.clock.advance(0)  # type: ignore[attr-defined] # the turn ends
            data = self.wire.take()
            if data:
                moved = True
                self.client.receive_data(data)
            self._collect()
        if self.wire.lost and not self.wire.value():
            self.lose()
        return self

    def _collect(self) -> None:
        for event in self.client.events_received():
            if isinstance(event, Response):
                self.response = event
            elif isinstance(event, Frame):
                self.events.append(event)

    def feed(self, data: bytes) -> None:
        """Give raw bytes to the server."""
        if not self._gone:
            self.protocol.dataReceived(data)

    def lose(self) -> None:
        """The connection is lost."""
        if not self._gone:
            self._gone = True
            self.client.receive_eof()
            self._collect()
            self.wire.unregisterProducer()
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def say(self, *frames: dict[str, Any] | bytes) -> Peer:
        """Send text frames."""
        for frame in frames:
            payload = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
            self.client.send_text(payload)
        return self.flush()

    def take(self) -> list[dict[str, Any]]:
        """The text frames that came since the last time, decoded; others stay."""
        self.flush()
        texts = [event for event in self.events if event.opcode is Opcode.TEXT]
        self.events = [event for event in self.events if event.opcode is not Opcode.TEXT]
        return [json.loads(bytes(event.data)) for event in texts]

    @property
    def gone(self) -> bool:
        """Whether the server has let go of the connection."""
        return self._gone


def make_factory(
    house: House, options: EdgeOptions = OPTIONS, *, serving: bool = True
) -> ChatFactory:
    """A factory over a house, letting clients in."""
    site = HttpSite(Root(ready=lambda: factory.serving), options.hosts, house.clock)
    limits = {"max_message": options.max_message}
    factory = ChatFactory(house.state, options, limits, house.clock, site)
    if serving:
        factory.begin()
    return factory
