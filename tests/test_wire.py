"""The short way in and out: for the same bytes it does what Autobahn does."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.compress import PerMessageDeflate
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.compression import Agreement, Inflater
from chatsvc.framing import take_frames
from chatsvc.wire import LARGE, Turn, WireProtocol
from tests import frames
from tests.peer import Wire

MOST = 70_000
"""The largest payload that is taken here, in bytes."""
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class _Noting:
    """Notes what comes out of a protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.state: int
        self.noted: list[tuple[Any, ...]] = []

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: FBT001 - Autobahn's
        """A message came in."""
        self.noted.append(("message", bytes(payload), isBinary))

    def onPing(self, payload: bytes) -> None:
        """A ping came in, and is answered."""
        if self.state == WireProtocol.STATE_OPEN:
            self.noted.append(("ping", bytes(payload)))
        super().onPing(payload)  # type: ignore[misc]

    def onPong(self, payload: bytes) -> None:
        """A pong came in."""
        if self.state == WireProtocol.STATE_OPEN:
            self.noted.append(("pong", bytes(payload)))

    def onClose(self, wasClean: bool, code: Any, reason: Any) -> None:  # noqa: FBT001 - Autobahn's
        """It is over."""
        self.noted.append(("close", wasClean, code, reason))


class Long(_Noting, WebSocketServerProtocol):  # type: ignore[misc] # Autobahn's own bases differ
    """Autobahn's own way."""


class Short(_Noting, WireProtocol):  # type: ignore[misc] # as above
    """Ours."""


class Line:
    """A connection that has shaken hands, with ``protocol`` at the server's end.

    ``inflater`` takes compressed messages.
    """

    def __init__(self, protocol: type[Any], inflater: Any = None) -> None:
        self.clock = Clock()
        factory = WebSocketServerFactory(reactor=self.clock)
        factory.protocol = protocol
        factory.setProtocolOptions(
            failByDrop=False,
            utf8validateIncoming=True,
            maxFramePayloadSize=MOST,
            maxMessagePayloadSize=MOST,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
        )
        made: Any = factory.buildProtocol(None)
        self.protocol = made
        self.protocol.turn = Turn(self.clock)
        self.wire = Wire()
        self.protocol.makeConnection(self.wire)
        self.feed(HANDSHAKE)
        assert self.wire.value().startswith(b"HTTP/1.1 101 ")
        self.wire.clear()
        made._perMessageCompress = inflater

    def feed(self, data: bytes) -> None:
        """Give bytes to the server, in one turn."""
        if not self.wire.lost:
            self.protocol.dataReceived(data)
            self.clock.advance(0)

    def told(self, pieces: Sequence[bytes]) -> tuple[Any, ...]:
        """All that is seen from outside when these bytes come, piece by piece."""
        for piece in pieces:
            self.feed(piece)
        return (
            self.protocol.noted,
            self.wire.value(),
            self.wire.lost,
            self.protocol.state,
            self.protocol.localCloseCode,
        )


def frame(
    first: int, payload: bytes, *, mask: bytes | None = b"\x12\x34\x56\x78", width: int = 0
) -> bytes:
    """A frame by its first byte; its length in the shortest way, or in ``width`` bytes."""
    claimed = len(payload) % 65536 if width == 2 else None
    return frames.frame(
        first & 0x0F,
        payload,
        fin=first >= 0x80,
        rsv=first >> 4 & 7,
        mask=mask,
        width=width,
        size=claimed,
    )


def deflated(payload: bytes, level: int = 6) -> bytes:
    """A payload as permessage-deflate has it."""
    compressor = zlib.compressobj(level, zlib.DEFLATED, -10)
    return (compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def fragments(payload: bytes, places: Sequence[int]) -> bytes:
    """A compressed message in one frame, or in more."""
    pieces = list(cut(payload, places)) if places else [payload]
    heads = [0x41, *[0] * (len(pieces) - 1)]
    heads[-1] |= 0x80
    return b"".join(frame(head, piece) for head, piece in zip(heads, pieces, strict=True))


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    """The same bytes in pieces."""
    begin = 0
    for place in sorted({place % (len(data) + 1) for place in places}):
        yield data[begin:place]
        begin = place
    yield data[begin:]


SIZES = (0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 1000, 65535, 65536, MOST, MOST + 1)
TEXTS = st.one_of(
    st.text(max_size=20).map(str.encode),
    st.sampled_from(SIZES).map(lambda size: b"x" * size),
    st.sampled_from(SIZES).map(lambda size: ("\xe9" * (size // 2)).encode()),
)
PAYLOADS = TEXTS | st.binary(max_size=12)
MASKS = st.binary(min_size=4, max_size=4) | st.sampled_from([b"\0\0\0\0", b"\xff" * 4])
COMMON = st.builds(lambda text, mask: frame(0x81, text, mask=mask), TEXTS, MASKS)
ANY = st.builds(
    lambda first, payload, mask, width: frame(first, payload, mask=mask, width=width),
    st.sampled_from(
        (0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x88, 0x89, 0x8A, 0x8B, 0x83, 0xC1, 0x91, 0x0A)
    ),
    PAYLOADS.filter(lambda payload: len(payload) <= MOST + 1),
    st.none() | MASKS,
    st.sampled_from((0, 0, 0, 0, 2, 8)),
)
PONGS = st.builds(lambda data: frame(0x8A, data), st.binary(max_size=125))
STREAMS = st.lists(COMMON | COMMON | PONGS | ANY | st.binary(max_size=4), max_size=6).map(b"".join)
# Not one byte too long: of that Autobahn's own inflater may lose the end and take the rest.
COMPRESSED = st.builds(
    lambda payload, level, places: fragments(deflated(payload, level), places),
    PAYLOADS.filter(lambda payload: len(payload) <= MOST) | st.just(b"x" * 2 * MOST),
    st.sampled_from((0, 1, 6, 9)),
    st.just(()) | st.just(()) | st.lists(st.integers(0, 1000), min_size=1, max_size=3),
)
MIXED = st.lists(
    COMPRESSED
    | COMPRESSED
    | COMMON
    | PONGS
    | ANY
    | st.builds(lambda data: frame(0xC1, data), st.binary(max_size=12)),
    max_size=6,
).map(b"".join)
PLACES = st.lists(st.integers(0, 200_000), max_size=4)


class TheSameAsAutobahn(SynchronousTestCase):
    """What comes in is told alike, and answered alike, whichever way it took."""

    def check(self, data: bytes, places: Sequence[int] = ()) -> None:
        """Both ways tell the same of these bytes, cut at these places."""
        pieces = list(cut(data, places))
        self.assertEqual(Line(Short).told(pieces), Line(Long).told(pieces))

    def check_compressed(self, data: bytes, places: Sequence[int] = ()) -> None:
        """The same where compression was agreed on; and we inflate what Autobahn inflates.

        After a message that cannot be inflated Autobahn's own goes no further.
        """
        pieces = list(cut(data, places))
        agreement = Agreement(10, 10, "")
        long = Line(Long, Inflater(agreement))
        expected = long.told(pieces)
        self.assertEqual(Line(Short, Inflater(agreement)).told(pieces), expected)
        own = Line(Long, PerMessageDeflate(*(True, True, True), *(10, 10, 3)))
        own.told(pieces)
        for line in (long, own):
            line.protocol.noted = [noted for noted in line.protocol.noted if noted[0] == "message"]
        self.assertEqual(long.protocol.noted, own.protocol.noted)
        self.assertEqual(long.protocol.localCloseCode, own.protocol.localCloseCode)

    def test_whatever_comes_however_it_is_cut(self) -> None:
        """Frames of all kinds, valid or not, garbage among them."""

        @settings(deadline=None, database=None, max_examples=400)
        @given(STREAMS, PLACES)
        @example(frame(0x81, b"\xff") + frame(0x81, b"x"), ())
        @example(frame(0x81, b"x", width=2), ())
        @example(frame(0x81, b"x" * 200, width=8), ())
        @example(frame(0x01, b"a") + frame(0x8A, b"p") + frame(0x80, b"b"), ())
        @example(frame(0x81, b"x", mask=None), ())
        @example(frame(0x8A, b"x" * 126), ())
        @example(frame(0x81, b"x" * (MOST + 1)), ())
        def hold(data: bytes, places: Sequence[int]) -> None:
            self.check(data, places)

        hold()

    def test_whatever_comes_where_compression_is_agreed_on(self) -> None:
        """Compressed or not, whole or in fragments, damaged, and too long when inflated."""

        @settings(deadline=None, database=None, max_examples=300)
        @given(MIXED, PLACES)
        @example(frame(0xC1, deflated(b"one")) + frame(0x81, b"two") + frame(0xC2, b""), ())
        @example(frame(0x41, deflated(b"one")) + frame(0x8A, b"") + frame(0x81, b"two"), ())
        @example(frame(0x41, deflated(b"one")) + frame(0xC0, b""), ())
        @example(frame(0xC1, deflated(b"\xff")), ())
        @example(frame(0xCA, b"") + frame(0x81, b"x"), ())
        @example(frame(0xC1, b"\xff\xff") + frame(0x81, b"x"), ())
        @example(frame(0xC1, deflated(b"x" * 2 * MOST)) + frame(0x81, b"x"), ())
        @example(frame(0xC1, deflated(b"x" * MOST)) + frame(0x81, b"x"), [10, 50])
        def hold(data: bytes, places: Sequence[int]) -> None:
            self.check_compressed(data, places)

        hold()

    def test_a_compressed_stream_that_is_cut_at_every_place(self) -> None:
        """One cut, and a cut after each byte."""
        data = b"".join(
            (
                frame(0xC1, deflated(b"one")),
                frame(0x81, b"two"),
                fragments(deflated("thr\xe9\xe9".encode() * 9), [3, 5]),
                frame(0xC2, deflated(b"\xff\0")),
                frame(0xC1, deflated(b"x" * 3000)),
                frame(0x8A, b"pong"),
                frame(0xC1, b"\x07"),
                frame(0x81, b"too late"),
            )
        )
        for place in range(len(data) + 1):
            self.check_compressed(data, [place])
        self.check_compressed(data, range(len(data)))

    def test_a_stream_that_is_cut_at_every_place(self) -> None:
        """One cut, and a cut after each byte."""
        data = b"".join(
            (
                frame(0x81, b"one"),
                frame(0x8A, b"pong"),
                frame(0x01, b"tw"),
                frame(0x89, b"ping"),
                frame(0x80, b"o"),
                frame(0x81, "thr\xe9\xe9".encode()),
                frame(0x82, b"\xff\0"),
                frame(0x81, b"x" * 130),
                frame(0x88, b"\x03\xe8bye"),
                frame(0x81, b"too late"),
            )
        )
        for place in range(len(data) + 1):
            self.check(data, [place])
        self.check(data, range(len(data)))

    def test_every_size_at_a_boundary(self) -> None:
        """Where the length changes its form, and at the limit."""
        for size in SIZES:
            self.check(frame(0x81, b"x" * size) + frame(0x81, b"y"), [7])

    def test_common_frames_are_taken(self) -> None:
        """So that the tests above are about two ways and not about one."""
        data = frame(0x81, b"one") + frame(0x8A, b"two") + frame(0x81, b"x" * 300)
        frames, taken = take_frames(data, MOST)
        self.assertEqual([payload for _, payload in frames], [b"one", b"two", b"x" * 300])
        self.assertEqual(taken, len(data))


class TheOutbox(SynchronousTestCase):
    """`sendData` and `flush`."""

    def test_a_turn_is_one_write(self) -> None:
        """In the order in which it was sent, whatever it is."""
        line = Line(Short)
        for part in (b"a", b"b", b"c"):
            line.protocol.sendData(part)
        self.assertEqual(line.wire.value(), b"")
        line.clock.advance(0)
        self.assertEqual(line.wire.value(), b"abc")

    def test_much_is_not_kept_until_then(self) -> None:
        """What no turn should hold is written at once."""
        line = Line(Short)
        line.protocol.sendData(b"x" * LARGE)
        self.assertEqual(line.wire.value(), b"")
        line.protocol.sendData(b"y")
        self.assertEqual(line.wire.value(), b"x" * LARGE + b"y")
        line.clock.advance(0)
        self.assertEqual(len(line.wire.value()), LARGE + 1)

    def test_closing_writes_what_was_sent(self) -> None:
        """A closing frame overtakes nothing, and an abort does not forget it."""
        for abort in (False, True):
            line = Line(Short)
            line.protocol.sendData(b"last")
            line.protocol.dropConnection(abort=abort)
            self.assertEqual((line.wire.value(), line.wire.lost), (b"last", True))

    def test_one_that_cannot_write_holds_up_nobody(self) -> None:
        """It is noted, and the others write in the same turn."""
        clock = Clock()
        turn = Turn(clock)
        wires = []
        for _ in range(3):
            line = Line(Short)
            line.protocol.turn = turn
            line.protocol.sendData(b"x")
            wires.append(line.wire)
        wires[1].write = None  # type: ignore[method-assign,assignment]
        clock.advance(0)
        self.assertEqual([wire.value() for wire in wires], [b"x", b"", b"x"])
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)
