"""Error codes, close codes, and :class:`Refused` (protocol, section 6).

Every refusal of a command, wherever it is decided, is a :class:`Refused`; the session turns it into
an ``error`` frame. Nothing else a client can cause is an exception that reaches the session.
"""

from __future__ import annotations

import enum

__all__ = ["CloseCode", "Code", "Refused"]


class Code(enum.StrEnum):
    """Why a command is refused."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_OP = "unknown_op"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    NOT_MEMBER = "not_member"
    EXISTS = "exists"
    OFFLINE = "offline"
    KEY_CONFLICT = "key_conflict"
    KEY_EXPIRED = "key_expired"
    TOO_LARGE = "too_large"
    RATE_LIMITED = "rate_limited"
    QUOTA_EXCEEDED = "quota_exceeded"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class CloseCode(enum.IntEnum):
    """Why the server closes a connection; RFC 6455, section 7.4, and the protocol's own."""

    NORMAL = 1000
    GOING_AWAY = 1001
    INTERNAL = 1011
    TRY_AGAIN_LATER = 1013
    UNAUTHORIZED = 3000
    FORBIDDEN = 3003
    SILENT = 3008
    NO_PROGRESS = 4000
    REPLACED = 4001


class Refused(Exception):
    """A command that cannot be done: what its ``error`` frame will say.

    ``reason`` is for people, ``hint`` a frame that would work. Neither holds a path or a secret.
    """

    def __init__(
        self,
        code: Code,
        reason: str,
        hint: str | None = None,
        *,
        id: str | int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason
        self.hint = hint
        self.id = id
        self.retry_after = retry_after
