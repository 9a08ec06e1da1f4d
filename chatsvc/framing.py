"""Frames as a server sends them and, where they are common, gets them: RFC 6455, section 5.2.

:func:`text_frame` makes an unmasked text frame in one piece. Own code, because Autobahn's
``sendMessage`` raises when the connection is closing, and measures what goes out by the limit for
what comes in.

:func:`take_frames` takes apart what a chat mostly gets: whole text messages and pongs, masked, not
compressed, of less than 64 KiB. It stops at the first frame that is anything else, or that breaks
any rule, for others to judge.
"""

from __future__ import annotations

from struct import pack
from typing import Final

__all__ = ["PONG", "TEXT", "take_frames", "text_frame"]

TEXT: Final = 1
PONG: Final = 10
_FIN_TEXT: Final = 0x81
_FIN_PONG: Final = 0x8A
_MASKED: Final = 0x80


def text_frame(payload: bytes) -> bytes:
    """``payload``, which is UTF-8, as one text frame."""
    size = len(payload)
    if size < 126:
        return pack("!BB", _FIN_TEXT, size) + payload
    if size < 65536:
        return pack("!BBH", _FIN_TEXT, 126, size) + payload
    return pack("!BBQ", _FIN_TEXT, 127, size) + payload


def take_frames(data: bytes, most: int) -> tuple[list[tuple[int, bytes]], int]:
    """The common frames at the beginning of ``data``, as (opcode, payload); how long they are.

    Texts are valid UTF-8 of at most ``most`` bytes.
    """
    frames: list[tuple[int, bytes]] = []
    at, end = 0, len(data)
    while end - at >= 6:
        first, size = data[at], data[at + 1] - _MASKED
        begin = at + 6
        if size == 126 and end - at >= 8:
            size = data[at + 2] << 8 | data[at + 3]
            begin = at + 8
            if size < 126:
                break  # not in the shortest way
        elif not 0 <= size < 126:
            break
        if size > most or begin + size > end:
            break
        payload = _unmasked(data[begin - 4 : begin], data[begin : begin + size])
        if first == _FIN_TEXT:
            if not (payload.isascii() or _is_utf8(payload)):
                break
            frames.append((TEXT, payload))
        elif first == _FIN_PONG and size < 126:
            frames.append((PONG, payload))
        else:
            break
        at = begin + size
    return frames, at


def _unmasked(mask: bytes, payload: bytes) -> bytes:
    """RFC 6455, section 5.3, by one operation on integers as long as the payload."""
    size = len(payload)
    whole = (mask * (size // 4 + 1))[:size]
    plain = int.from_bytes(payload, "little") ^ int.from_bytes(whole, "little")
    return plain.to_bytes(size, "little")


def _is_utf8(payload: bytes) -> bool:
    try:
        payload.decode()
    except UnicodeDecodeError:
        return False
    return True
