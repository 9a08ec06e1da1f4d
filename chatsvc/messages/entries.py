"""What stands in the log, and the shapes in which clients see it.

An :class:`Entry` is made by the store when it is committed and never changes. :func:`render` gives
it one of four shapes; receivers of one shape share one encoding.
"""

from __future__ import annotations

import enum
from typing import Literal

from msgspec import UNSET, Raw, Struct

from chatsvc.messages.events import Joined, Left, Message, RoleChanged, encode


class Address(Struct, frozen=True):
    """Where something is sent: a user (``to``), a group or a topic."""

    kind: Literal["to", "group", "topic"]
    name: str


class Entry(Struct, frozen=True, omit_defaults=True):
    """One entry of the log.

    ``seq`` is its position (an integer from 1); ``ts`` the server's clock in milliseconds since
    1970, for display; ``sender`` who acted; ``origin`` the connection that did, which is not told
    of it. ``audience`` names who hears it where that is fewer than the conversation. A store may
    keep it as the JSON that msgspec makes of it.
    """

    seq: int
    ts: int
    kind: Literal["message", "joined", "left", "role"]
    sender: str
    address: Address
    origin: str = ""
    msg: str | None = None
    data: bytes | None = None
    key: str | None = None
    reply_to: int | None = None
    user: str | None = None
    role: str | None = None
    audience: frozenset[str] | None = None

    @property
    def clears_retained(self) -> bool:
        """Whether it is empty, and so clears a topic's retained message (MQTT 5.0, 3.3.1.3)."""
        return self.msg == "" and self.data is None


class Shape(enum.IntEnum):
    """How an entry looks to a receiver.

    BARE is what a plain connection gets, FULL what a session gets, OWN what the sender's other
    sessions get (with the ``key``), REPLAY what a subscription brings from before it.
    """

    BARE = enum.auto()
    FULL = enum.auto()
    OWN = enum.auto()
    REPLAY = enum.auto()


_GROUP_EVENTS = {"joined": Joined, "left": Left, "role": RoleChanged}


def render(entry: Entry, shape: Shape) -> bytes | None:
    """An entry as it goes over the wire in this shape; None where the shape does not show it.

    A plain connection sees messages only (protocol, section 3).
    """
    address = entry.address
    if entry.kind != "message":
        if shape is Shape.BARE:
            return None
        event = _GROUP_EVENTS[entry.kind](
            sender=entry.sender,
            group=address.name,
            user=entry.user or "",
            seq=entry.seq,
            ts=entry.ts,
            replay=shape is Shape.REPLAY,
        )
        if isinstance(event, RoleChanged):
            event.role = entry.role or ""
        return encode(event)
    message = Message(
        entry.sender,
        msg=UNSET if entry.msg is None else entry.msg,
        data=UNSET if entry.data is None else Raw(entry.data),
    )
    setattr(message, address.kind, address.name)
    if shape is not Shape.BARE:
        message.seq = entry.seq
        message.ts = entry.ts
        if entry.reply_to is not None:
            message.reply_to = entry.reply_to
        if shape is Shape.OWN and entry.key is not None:
            message.key = entry.key
        message.replay = shape is Shape.REPLAY
    return encode(message)


def shape_for(entry: Entry, user: str) -> Shape:
    """The shape in which a session of ``user`` sees ``entry``."""
    return Shape.OWN if entry.sender == user else Shape.FULL
