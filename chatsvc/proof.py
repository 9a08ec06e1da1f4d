"""What a connection is proven to have received (protocol, "Delivery is proven by pong").

A ping carries the ``seq`` up to which everything for the connection has been written. RFC 6455,
section 5.5.3, makes the peer echo the payload, and it reads what came before the ping first: so the
echo proves delivery up to that ``seq``, to the peer's WebSocket layer. A number behind the ``seq``
makes each payload unique on its connection, so that a late echo proves nothing it should not.

:class:`Proof` keeps the count and sends nothing; when to ping is for :mod:`chatsvc.stream`.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

__all__ = ["WINDOW", "OutstandingPing", "Proof"]

WINDOW = 256 * 1024
"""Bytes that may be unproven while a connection is fed from the log."""


class OutstandingPing(Struct):
    """A ping that has not been answered: what it would prove, and since when it has waited."""

    payload: bytes
    seq: int
    written: int
    since: float


class Proof:
    """The bytes written and proven on one connection, and the ping that is outstanding."""

    __slots__ = ("_numbers", "_proven", "_written", "last_ping", "outstanding")

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self._written = 0
        self._proven = 0
        self.last_ping = float("-inf")
        self.outstanding: OutstandingPing | None = None

    def wrote(self, size: int) -> None:
        """Count ``size`` more bytes that await proof."""
        self._written += size

    @property
    def complete(self) -> bool:
        """Whether everything written is proven."""
        return self._proven == self._written

    @property
    def has_room(self) -> bool:
        """Whether more may be written while the connection is fed from the log."""
        return self._written - self._proven < WINDOW

    def ping(self, seq: int, now: float) -> bytes:
        """The payload of a ping that proves everything up to ``seq``; it is outstanding now."""
        payload = b"%d %d" % (seq, next(self._numbers))
        self.outstanding = OutstandingPing(payload, seq, self._written, now)
        self.last_ping = now
        return payload

    def echo(self, payload: bytes) -> int | None:
        """The ``seq`` that a pong proves; None if it is no exact echo of the outstanding ping."""
        ping = self.outstanding
        if ping is None or ping.payload != payload:
            return None
        self.outstanding = None
        self._proven = ping.written
        return ping.seq
