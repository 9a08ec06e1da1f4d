"""Frames as bytes, made and taken to pieces by hand: RFC 6455, section 5.2.

A library would refuse to send what these make, which is everything that a client must not send.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final

__all__ = [
    "BINARY", "CLOSE", "CONTINUATION", "FIN", "MASK", "PING", "PONG", "TEXT",
    "closing", "code_of", "frame", "frames_in", "split",
]  # fmt: skip

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10
FIN: Final = 0x80

MASK: Final = b"\x12\x34\x56\x78"


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bytes | None = MASK,
    width: int = 0,
    size: int | None = None,
) -> bytes:
    """A frame; its length in the shortest way, or in ``width`` bytes, or claimed to be ``size``.

    ``rsv`` are the three reserved bits, RSV1 being 4.
    """
    size = len(payload) if size is None else size
    if width == 0:
        width = 1 if size < 126 else 2 if size < 65536 else 8
    form, more = {1: ("", size), 2: ("H", 126), 8: ("Q", 127)}[width]
    masked = 0 if mask is None else 0x80
    first = (FIN if fin else 0) | rsv << 4 | opcode
    head = struct.pack("!BB", first, masked | more)
    if form:
        head += struct.pack(f"!{form}", size)
    if mask is None:
        return head + payload
    whole = mask * (len(payload) // 4 + 1)
    return head + mask + bytes(a ^ b for a, b in zip(payload, whole, strict=False))


def split(opcode: int, pieces: Sequence[bytes]) -> list[bytes]:
    """A message in fragments, one for each piece."""
    last = len(pieces) - 1
    return [
        frame(CONTINUATION if at else opcode, piece, fin=at == last)
        for at, piece in enumerate(pieces)
    ]


def closing(code: int | None = None, reason: bytes = b"") -> bytes:
    """A closing frame."""
    return frame(CLOSE, (b"" if code is None else struct.pack("!H", code)) + reason)


def code_of(payload: bytes) -> int | None:
    """The code that a closing frame holds."""
    return struct.unpack("!H", payload[:2])[0] if payload else None


def frames_in(data: bytes) -> Iterator[tuple[int, bytes]]:
    """What a server sent, as (opcode, payload): whole frames, with no bit of the first byte else.

    :raises AssertionError: a server must not send this.
    """
    while data:
        first, size = data[0], data[1]
        assert first & 0xF0 == FIN, f"first byte {first:#x}"
        assert size < 128, "masked"
        begin, least = 2, 0
        if size > 125:
            begin, least = (4, 126) if size == 126 else (10, 65536)
            size = int.from_bytes(data[2:begin])
        assert size >= least, f"{size} bytes in a longer form than need be"
        assert first & 0x0F < CLOSE or size < 126, f"a control frame of {size} bytes"
        assert len(data) >= begin + size, "cut short"
        yield first & 0x0F, data[begin : begin + size]
        data = data[begin + size :]
