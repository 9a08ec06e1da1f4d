"""A client's connection, as streams and sessions see it: the seam below the WebSocket edge."""

from __future__ import annotations

from typing import Protocol

from chatsvc.messages.errors import CloseCode

__all__ = ["Connection"]


class Connection(Protocol):
    """A client's connection, as streams and sessions see it."""

    @property
    def congested(self) -> bool:
        """Whether the client does not read as fast as it is written to."""

    @property
    def blocked(self) -> bool:
        """Whether so many replies are unread that there should be no more."""

    def send(self, payload: bytes) -> None:
        """Send a text frame; after the connection is closed this does nothing."""

    def ping(self, payload: bytes) -> None:
        """Send a ping frame."""

    def close(self, code: CloseCode, reason: str) -> None:
        """Say why and close; what was sent before still goes out."""

    def hold(self, held: bool) -> None:  # noqa: FBT001 - it is passed on as a callable
        """Stop reading commands, or go on."""
