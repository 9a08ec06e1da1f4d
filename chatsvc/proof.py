"""What a connection is proven to have received (protocol, "Delivery is proven by pong").

A ping carries the ``seq`` up to which everything for the connection has been written. RFC 6455,
section 5.5.3, makes the peer echo the payload, and it reads what came before the ping first: so the
echo proves delivery up to that ``seq``, to the peer's WebSocket layer. A number behind the ``seq``
makes each payload unique on its connection, so that a late echo proves nothing it should not.

:class:`Proof` keeps the count and sends nothing; when to ping is for :mod:`chatsvc.stream`. What is
proven moves the user's :class:`Position`, unless the client says itself how far it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct

__all__ = ["WINDOW", "OutstandingPing", "Position", "Proof"]

WINDOW = 256 * 1024
"""Bytes that may be unproven while a connection is fed from the log."""


class OutstandingPing(Struct):
    """A ping that has not been answered: what it would prove, and since when it has waited."""

    payload: bytes
    seq: int
    written: int
    since: float


class Proof:
    """The bytes written and proven on one connection, and the ping that is outstanding.

    ``written`` and ``proven`` are bytes; whoever writes adds to ``written``.
    """

    __slots__ = ("_numbers", "last_ping", "outstanding", "proven", "written")

    def __init__(self, numbers: Iterator[int]) -> None:
        self._numbers = numbers
        self.written = 0
        self.proven = 0
        self.last_ping = float("-inf")
        self.outstanding: OutstandingPing | None = None

    @property
    def complete(self) -> bool:
        """Whether everything written is proven."""
        return self.proven == self.written

    @property
    def has_room(self) -> bool:
        """Whether more may be written while the connection is fed from the log."""
        return self.written - self.proven < WINDOW

    def ping(self, seq: int, now: float) -> bytes:
        """The payload of a ping that proves everything up to ``seq``; it is outstanding now."""
        payload = b"%d %d" % (seq, next(self._numbers))
        self.outstanding = OutstandingPing(payload, seq, self.written, now)
        self.last_ping = now
        return payload

    def echo(self, payload: bytes) -> int | None:
        """The ``seq`` that a pong proves; None if it is no exact echo of the outstanding ping."""
        ping = self.outstanding
        if ping is None or ping.payload != payload:
            return None
        self.outstanding = None
        self.proven = ping.written
        return ping.seq


class Position:
    """How far the user of one connection is known to be, by its pongs or by its own word.

    ``report`` takes each ``seq`` that counts. While the user's name is ``provisional`` none does
    yet: what is shown under it may have been meant for somebody else.
    """

    __slots__ = ("_acked", "_kept", "_provisional", "_report")

    def __init__(self, report: Callable[[int], None], *, provisional: bool) -> None:
        self._report = report
        self._provisional = provisional
        self._kept = 0
        self._acked: int | None = None

    def acknowledge(self, seq: int) -> None:
        """The client has processed everything up to ``seq``; from now on only its word counts."""
        self._acked = max(seq, self._acked or 0)
        self._reach(self._acked)

    def echoed(self, seq: int) -> None:
        """A pong proves everything up to ``seq``.

        For a client that acknowledges, its last word is said again: the device is still in use.
        """
        self._reach(seq if self._acked is None else self._acked)

    def confirm(self, *, own: bool) -> None:
        """The name is no longer provisional: what was kept back counts, if it is the ``own``."""
        if self._provisional:
            self._provisional = False
            if own and self._kept:
                self._report(self._kept)

    def _reach(self, seq: int) -> None:
        if self._provisional:
            self._kept = max(self._kept, seq)
        else:
            self._report(seq)
