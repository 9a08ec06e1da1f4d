"""A client that may send any bytes, and a test case that judges how it is answered.

What a case sends is sent twice, to connections of their own: in one piece, and byte by byte, so
that no rule depends on how TCP cuts. Where it is long, the pieces are of an odd size instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Final

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.websocket import ChatFactory, ChatProtocol, EdgeOptions
from tests.echo import echoing
from tests.fakes import House
from tests.frames import CLOSE, PING, TEXT, closing, code_of, frame, frames_in
from tests.peer import OPTIONS, Wire, make_factory

__all__ = ["EchoCase", "Frames", "Stranger"]

Frames = Sequence[tuple[int, bytes]]

HANDSHAKE: Final = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SHORT: Final = 1000
"""Bytes that are sent one by one."""
ODD: Final = 997
LATE: Final = frame(PING, b"late") + frame(TEXT, b"late")
"""What is sent when it is too late."""
PATIENCE: Final = 8
"""Seconds after which a client that does not answer a Close is gone for sure."""


class Stranger:
    """A client that has shaken hands; ``headers`` are more of its request."""

    def __init__(self, factory: ChatFactory, headers: bytes = b"") -> None:
        self.wire = Wire()
        self.protocol: ChatProtocol = factory.buildProtocol(None)  # type: ignore[assignment]
        self._clock: Clock = factory.clock  # type: ignore[assignment]
        self._here = True
        self.protocol.makeConnection(self.wire)
        self.feed(HANDSHAKE + headers + b"\r\n")
        answer = self.wire.take()
        assert answer.startswith(b"HTTP/1.1 101 "), answer

    def feed(self, data: bytes, size: int = 0) -> None:
        """Send bytes, in pieces of ``size`` or in one, each in a turn of its own."""
        size = size or len(data) or 1
        for start in range(0, len(data), size):
            if not self.wire.lost:
                self.protocol.dataReceived(data[start : start + size])
                self._clock.advance(0)

    def take(self) -> list[tuple[int, bytes]]:
        """The frames that came since the last time."""
        return list(frames_in(self.wire.take()))

    def lose(self) -> None:
        """The connection is lost."""
        if self._here:
            self._here = False
            self.wire.unregisterProducer()
            self.protocol.connectionLost(Failure(ConnectionDone()))


class EchoCase(SynchronousTestCase):
    """How strangers are answered by our echo server, and by our chat server where it says more.

    ``options`` are those of both.
    """

    options: EdgeOptions = OPTIONS

    def setUp(self) -> None:
        """Serve."""
        self.house = House()
        self.factory = echoing(make_factory(self.house, self.options))
        self.chat = make_factory(self.house, self.options)
        self.strangers: list[Stranger] = []

    def tearDown(self) -> None:
        """Nothing went wrong here, whatever was sent, and nothing is left of anybody."""
        for stranger in self.strangers:
            stranger.lose()
        self.assertEqual(self.flushLoggedErrors(), [])
        self.assertEqual((len(self.factory.connections), len(self.chat.connections)), (0, 0))
        self.assertEqual(len(self.house.state.clients), 0)

    def connect(self, factory: ChatFactory | None = None, headers: bytes = b"") -> Stranger:
        """A stranger to the echo server, or to that of ``factory``."""
        stranger = Stranger(factory or self.factory, headers)
        self.strangers.append(stranger)
        return stranger

    def after(
        self, data: bytes, factory: ChatFactory | None = None, headers: bytes = b""
    ) -> Iterator[Stranger]:
        """Strangers that have sent these bytes, in one piece and in many."""
        for size in (0, 1 if len(data) <= SHORT else ODD):
            stranger = self.connect(factory, headers)
            stranger.feed(data, size)
            yield stranger
            stranger.lose()

    def assert_frames(self, heard: Frames, expected: Frames, case: object) -> None:
        """These are the frames; without a report of megabytes if they are not."""
        if list(heard) != list(expected):
            self.fail(f"{case}: {_shown(heard)} instead of {_shown(expected)}")

    def assert_answered(
        self, data: bytes, frames: Frames, case: object, *, headers: bytes = b""
    ) -> None:
        """These bytes are answered by these frames, and the connection stays."""
        for stranger in self.after(data, headers=headers):
            self.assert_frames(stranger.take(), frames, case)
            self.assertFalse(stranger.wire.lost, case)

    def assert_echoed(self, *messages: tuple[int, bytes]) -> None:
        """What is sent in whole frames comes back, in the order in which it was sent."""
        data = b"".join(frame(opcode, payload) for opcode, payload in messages)
        self.assert_answered(data, messages, _shown(messages))

    def assert_closed(self, data: bytes, frames: Frames, case: object) -> None:
        """These bytes are answered by these frames, and then by a Close: it ends in good order."""
        for stranger in self.after(data):
            *before, last = stranger.take() or [(0, b"")]
            self.assert_frames(before, frames, case)
            self.assertEqual((last[0], code_of(last[1])), (CLOSE, 1000), case)
            self.assertEqual((stranger.wire.lost, stranger.wire.aborted), (True, False), case)

    def assert_failed(
        self,
        data: bytes,
        code: int,
        case: object,
        frames: Frames = (),
        *,
        unfinished: bool = False,
        headers: bytes = b"",
    ) -> None:
        """These bytes are answered by these frames, and then by a Close with this code.

        What comes after them has no effect. It is over when the client answers with a Close of its
        own, in time where it cannot because it is ``unfinished`` with a frame, or at once. The chat
        server has said why in a text frame before.
        """
        for factory in (self.factory, self.chat):
            for stranger in self.after(data, factory, headers):
                *before, last = stranger.take() or [(0, b"")]
                self.assertEqual((last[0], code_of(last[1])), (CLOSE, code), case)
                self.assertTrue(last[1][2:].decode(), case)
                self.assertFalse(stranger.wire.aborted, f"{case}: the Close may not arrive")
                if factory is self.factory:
                    self.assert_frames(before, frames, case)
                else:
                    self.assertEqual(json.loads(before[-1][1])["event"], "closing", case)
                stranger.feed(LATE)
                self.assert_frames(stranger.take(), [], case)
                if unfinished:
                    self.house.clock.pump([1] * PATIENCE)
                else:
                    stranger.feed(closing(code))
                self.assert_frames(stranger.take(), [], case)
                self.assertTrue(stranger.wire.lost, case)


def _shown(frames: Frames) -> str:
    return ", ".join(
        f"{opcode} {payload!r}" if len(payload) < 60 else f"{opcode} of {len(payload)} bytes"
        for opcode, payload in frames
    )
