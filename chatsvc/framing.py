"""Text frames as a server sends them: RFC 6455, section 5.2, unmasked and in one piece.

Own code, because Autobahn's ``sendMessage`` raises when the connection is closing, and measures
what goes out by the limit for what comes in.
"""

from __future__ import annotations

from struct import pack

__all__ = ["text_frame"]

_FIN_TEXT = 0x81


def text_frame(payload: bytes) -> bytes:
    """``payload``, which is UTF-8, as one text frame."""
    size = len(payload)
    if size < 126:
        return pack("!BB", _FIN_TEXT, size) + payload
    if size < 65536:
        return pack("!BBH", _FIN_TEXT, 126, size) + payload
    return pack("!BBQ", _FIN_TEXT, 127, size) + payload
