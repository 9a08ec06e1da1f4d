"""What a client may say: one struct a command (protocol, sections 4 and 5).

The first paragraph of a class's docstring and its ``example`` are what ``help`` answers, and the
``example`` is the hint of errors about it. To add a command, add its class here;
:mod:`chatsvc.operations` has the table of what it does.
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, TypeAlias

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from chatsvc.messages.entries import Address
from chatsvc.messages.errors import Code, Refused

MAX_PAGE: Final = 200
"""The most items of a list that a command can ask for."""
DEFAULT_PAGE: Final = 50
MAX_SIGNAL: Final = 16 * 1024
"""Bytes of the ``data`` of a signal."""

# `$` alone lets a final newline pass; ECMAScript, which reads these in the schema, has no `\Z`.
NAME_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]*$(?!\n)"
TOPIC_PATTERN: Final = r"^[A-Za-z0-9._@-]+(?:/[A-Za-z0-9._@-]+)*$(?!\n)"
FILTER_PATTERN: Final = r"^(?:#|(?:[A-Za-z0-9._@-]+|\+)(?:/(?:[A-Za-z0-9._@-]+|\+))*(?:/#)?)$(?!\n)"

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64, pattern=NAME_PATTERN)]
TopicName: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255, pattern=TOPIC_PATTERN)]
TopicFilter: TypeAlias = Annotated[str, Meta(min_length=1, max_length=255, pattern=FILTER_PATTERN)]
Key: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
Seq: TypeAlias = Annotated[int, Meta(ge=0)]
Limit: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_PAGE)]
CommandId: TypeAlias = Annotated[str, Meta(max_length=64)] | int

_matches_name = re.compile(NAME_PATTERN).match


def is_name(text: str) -> bool:
    """Whether ``text`` can be the name of a user, a group or a device (protocol, section 1)."""
    return len(text) <= 64 and _matches_name(text) is not None


class Command(Struct, kw_only=True, rename={"sender": "from"}):
    """What every command may carry: its mark, and who the client says it is."""

    op: ClassVar[str]
    example: ClassVar[str]

    id: CommandId | None = None
    sender: Name | UnsetType = UNSET


class Addressed(Command, kw_only=True):
    """A command about one conversation."""

    to: Name | UnsetType = UNSET
    group: Name | UnsetType = UNSET
    topic: TopicName | UnsetType = UNSET

    def address(self) -> Address:
        """Where this goes; :class:`Refused` unless exactly one of the three is there."""
        if self.to is not UNSET and self.group is UNSET and self.topic is UNSET:
            return Address("to", self.to)
        if self.group is not UNSET and self.to is UNSET and self.topic is UNSET:
            return Address("group", self.group)
        if self.topic is not UNSET and self.to is UNSET and self.group is UNSET:
            return Address("topic", self.topic)
        raise Refused(
            Code.BAD_REQUEST, "exactly one of `to`, `group` and `topic` is needed", self.example
        )


class Send(Addressed, kw_only=True):
    """Send a message to a user, a group or a topic. Without `op` a command is this one."""

    op = "send"
    example = '{"to":"bob","msg":"hi"}'

    msg: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    data: Raw | UnsetType = UNSET
    key: Key | UnsetType = UNSET
    reply_to: Seq | UnsetType = UNSET
    retain: bool = False


class Hello(Command, kw_only=True):
    """Begin a session: get `seq` and events, resume, name a device."""

    op = "hello"
    example = '{"op":"hello","user":"alice"}'

    user: Name | UnsetType = UNSET
    token: str | UnsetType = UNSET
    password: str | UnsetType = UNSET
    device: Name | UnsetType = UNSET
    since: Seq | UnsetType = UNSET
    epoch: str | UnsetType = UNSET
    topics: Annotated[list[TopicFilter], Meta(max_length=1000)] = []


class OfGroup(Command, kw_only=True):
    """A command about one group."""

    group: Name


class Join(OfGroup, kw_only=True):
    """Become a member of a group; a missing one is created."""

    op = "join"
    example = '{"op":"join","group":"devs"}'

    key: Key | UnsetType = UNSET


class Leave(OfGroup, kw_only=True):
    """Stop being a member of a group."""

    op = "leave"
    example = '{"op":"leave","group":"devs"}'

    key: Key | UnsetType = UNSET


class Create(OfGroup, kw_only=True):
    """Create a group and become its owner; with `public` false nobody can join uninvited."""

    op = "create"
    example = '{"op":"create","group":"devs"}'

    public: bool = True
    key: Key | UnsetType = UNSET


class ListMembers(OfGroup, kw_only=True):
    """List the members of a group, by name, those after `after`."""

    op = "members"
    example = '{"op":"members","group":"devs"}'

    limit: Limit = DEFAULT_PAGE
    after: Name | UnsetType = UNSET


class Subscribe(Command, kw_only=True):
    """Hear a topic, or all that a filter matches; `durable` keeps it while you are away."""

    op = "subscribe"
    example = '{"op":"subscribe","topic":"news/#"}'

    topic: TopicFilter
    since: Seq | UnsetType = UNSET
    durable: bool = False


class Unsubscribe(Command, kw_only=True):
    """Stop hearing what the same filter was subscribed for, durable or not."""

    op = "unsubscribe"
    example = '{"op":"unsubscribe","topic":"news/#"}'

    topic: TopicFilter


class History(Addressed, kw_only=True):
    """Read a conversation: the newest messages, or all entries after a `seq`."""

    op = "history"
    example = '{"op":"history","to":"bob","limit":20}'

    before: Seq | UnsetType = UNSET
    after: Seq | UnsetType = UNSET
    limit: Limit = DEFAULT_PAGE


class Read(Addressed, kw_only=True):
    """Say that you have read a conversation up to `seq`; the others in it are told."""

    op = "read"
    example = '{"op":"read","to":"bob","seq":42}'

    seq: Seq


class Ack(Command, kw_only=True):
    """Say that everything up to `seq` is processed; from then on only this moves the position."""

    op = "ack"
    example = '{"op":"ack","seq":42}'

    seq: Seq


class Signal(Command, kw_only=True):
    """Pass `data` on to the sessions of a user who is here, or to one device; none is stored."""

    op = "signal"
    example = '{"op":"signal","to":"bob","data":{"sdp":"v=0"}}'

    to: Name
    data: Raw
    device: Name | UnsetType = UNSET


class Ping(Command, kw_only=True):
    """Ask for a `pong`."""

    op = "ping"
    example = '{"op":"ping"}'


class Help(Command, kw_only=True):
    """List the commands, or tell `about` one of them."""

    op = "help"
    example = '{"op":"help","about":"send"}'

    about: Annotated[str, Meta(max_length=64)] | UnsetType = UNSET


COMMANDS: Final[dict[str, type[Command]]] = {
    kind.op: kind
    for kind in (
        Send,
        Hello,
        Join,
        Leave,
        Create,
        ListMembers,
        Subscribe,
        Unsubscribe,
        History,
        Read,
        Ack,
        Signal,
        Ping,
        Help,
    )
}
