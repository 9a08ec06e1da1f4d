"""What the server says: the message, and the events and replies (protocol, sections 4 and 5).

Each is a msgspec struct whose fields stand in the order of the wire; what has its default is left
out. A field that must always be there has a default it never takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from chatsvc.messages.errors import Code

PROTOCOL_VERSION: Final = 1
SUBPROTOCOL: Final = "chat.v1"
MAX_FRAME: Final = 512 * 1024
"""No frame from the server is longer, in bytes (protocol, section 1)."""

encode: Callable[[Event | Message], bytes] = msgspec.json.Encoder().encode
"""A message or an event as it goes over the wire."""


class Message(Struct, omit_defaults=True, rename={"sender": "from"}):
    """A message as a client sees it; the order of the fields is that of the wire."""

    sender: str
    to: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    msg: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    reply_to: int | UnsetType = UNSET
    seq: int | UnsetType = UNSET
    ts: int | UnsetType = UNSET
    key: str | UnsetType = UNSET
    replay: bool = False


class Event(Struct, omit_defaults=True, tag_field="event"):
    """What the server says of itself or in reply; ``id`` is that of the command replied to."""

    id: str | int | None = None


class Ok(Event, tag="ok"):
    """What was asked for is done, and what was to be stored is stored."""

    seq: int | UnsetType = UNSET
    ts: int | UnsetType = UNSET
    key: str | UnsetType = UNSET
    dup: bool = False


class Error(Event, tag="error"):
    """What was asked for is not done."""

    code: Code | UnsetType = UNSET
    reason: str = ""
    hint: str | None = None
    retry_after: float | None = None


class GroupStanding(Struct):
    """One of the user's groups, and the role there."""

    group: str
    role: str


class Subscription(Struct):
    """A filter in force, and whether it is the user's (durable) or the connection's."""

    topic: str
    durable: bool


class Welcome(Event, tag="welcome"):
    """The answer to ``hello``: who the connection is, and what holds here."""

    user: str = ""
    device: str | None = None
    session: str = ""
    epoch: str = ""
    seq: int = -1
    order: str = ""
    protocol: int = 0
    server: str = ""
    limits: dict[str, int] | UnsetType = UNSET
    groups: list[GroupStanding] | UnsetType = UNSET
    topics: list[Subscription] | UnsetType = UNSET


class CaughtUp(Event, tag="caught_up"):
    """Everything up to ``seq`` has been given; what follows is live."""

    seq: int = -1


class Lagging(Event, tag="lagging"):
    """The connection does not drain: it is fed from the log after ``seq``, at its own pace."""

    seq: int = -1


class Gap(Event, tag="gap"):
    """Entries with ``after`` < seq <= ``until`` may be missing, in one place or in all."""

    group: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    after: int | UnsetType = UNSET
    until: int | UnsetType = UNSET
    reason: Literal["retention", "quota", "epoch", ""] = ""


class Joined(Event, tag="joined", rename={"sender": "from"}):
    """``user`` has become a member of ``group``."""

    sender: str = ""
    group: str = ""
    user: str = ""
    seq: int = -1
    ts: int = -1
    replay: bool = False


class Left(Joined, tag="left"):
    """``user`` is no longer a member of ``group``."""


class RoleChanged(Joined, tag="role"):
    """``user`` has another role in ``group``."""

    role: str = ""


class MemberState(Struct):
    """A member in a list of members."""

    user: str
    role: str
    online: bool


class Members(Event, tag="members"):
    """Members of a group, by name; ``complete`` when there are none after them."""

    group: str = ""
    members: list[MemberState] | UnsetType = UNSET
    complete: bool | UnsetType = UNSET


class HistoryPage(Event, tag="history"):
    """Entries of a conversation in the order of the log."""

    to: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    messages: list[Raw] | UnsetType = UNSET
    complete: bool | UnsetType = UNSET


class ReadUpTo(Event, tag="read", rename={"sender": "from"}):
    """``user`` has read a conversation up to ``upto``."""

    sender: str = ""
    to: str | UnsetType = UNSET
    group: str | UnsetType = UNSET
    topic: str | UnsetType = UNSET
    user: str = ""
    upto: int = -1


class Signalled(Event, tag="signal", rename={"sender": "from"}):
    """Somebody passes ``data`` on; ``device`` is the sender's, where it has one."""

    sender: str = ""
    device: str | None = None
    data: Raw | UnsetType = UNSET


class Pong(Event, tag="pong"):
    """The answer to ``ping``: the server's clock, in milliseconds since 1970."""

    ts: int = -1


class HelpPage(Event, tag="help"):
    """What can be said, with the fields of each command and a frame that works."""

    commands: list[dict[str, Any]] | UnsetType = UNSET


class Closing(Event, tag="closing"):
    """The server is about to close the connection, and why."""

    reason: str = ""
    retry_in_ms: int | None = None
