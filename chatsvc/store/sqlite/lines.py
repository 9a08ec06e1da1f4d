"""What an export is made of: a header, then one object a line for each row of the log's tables.

Each kind of line is a struct, so that nothing of a wrong shape comes in, and no field is passed
over. What one reads there is what one would write as a client: flat addresses, and ``data`` as it
was sent, byte for byte. Data that would break the line stands in ``data_base64`` instead.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias, cast

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from chatsvc.messages.commands import Key, Name, TopicFilter, TopicName
from chatsvc.messages.entries import Address, Entry
from chatsvc.store.spans import messages_of
from chatsvc.store.sqlite.schema import columns_of

__all__ = ["FORMAT", "Header", "Line", "header_of", "line_of"]

FORMAT: Final = 1
"""The format of exports that this is."""

Whole: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)]  # what every reader of JSON has exactly
Role: TypeAlias = Literal["owner", "admin", "member"]
Hex: TypeAlias = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})*$(?!\n)")]

_encode = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_value = msgspec.json.Decoder().decode


class Header(Struct, forbid_unknown_fields=True):
    """The first line: which log this is, its bounds, and how many lines of each kind follow."""

    chatsvc: int
    epoch: Annotated[str, Meta(min_length=1, max_length=64)]
    head: Whole
    floor: Whole
    counts: dict[str, Whole]

    def __post_init__(self) -> None:
        if self.floor > self.head:
            raise ValueError("`floor` is above `head`")


class _Version(Struct):
    chatsvc: int


class Line(Struct, tag_field="type", omit_defaults=True, forbid_unknown_fields=True):
    """A row of a table. ``places`` are its fields that are places in the log."""

    places: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def label(cls) -> str:
        """Its ``type``."""
        return str(cls.__struct_config__.tag)

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for a row."""
        return cls(*row)

    def row(self) -> tuple[Any, ...]:
        """What is written for this line.

        :raises ValueError: no table could have such a row.
        """
        return msgspec.structs.astuple(self)


class EntryLine(Line, tag="entry", kw_only=True, rename={"sender": "from"}):
    """An entry of the log."""

    places = ("seq",)

    seq: Whole
    ts: Whole
    kind: Literal["message", "joined", "left", "role"]
    sender: Name
    to: Name | None = None
    group: Name | None = None
    topic: TopicName | None = None
    msg: str | None = None
    data: Raw | UnsetType = UNSET
    data_base64: bytes | None = None
    key: Key | None = None
    reply_to: Whole | None = None
    user: Name | None = None
    role: Role | None = None
    origin: str = ""
    audience: list[Name] | None = None

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for the body of an entry."""
        entry = _decode_entry(row[0])
        line = cls(
            seq=entry.seq,
            ts=entry.ts,
            kind=entry.kind,
            sender=entry.sender,
            msg=entry.msg,
            key=entry.key,
            reply_to=entry.reply_to,
            user=entry.user,
            role=cast("Role | None", entry.role),
            origin=entry.origin,
        )
        setattr(line, entry.address.kind, entry.address.name)
        if entry.data is not None and _fits(entry.data):
            line.data = Raw(entry.data)
        else:
            line.data_base64 = entry.data
        if entry.audience is not None:  # in the order in which it is stored
            line.audience = _decode_value(row[0])["audience"]
        return line

    def entry(self) -> Entry:
        """The entry that this tells of."""
        address = _address(self)
        data = self.data_base64 if self.data is UNSET else bytes(self.data)
        if self.data is not UNSET and self.data_base64 is not None:
            raise ValueError("`data` and `data_base64` are one too many")
        if self.kind == "message":
            if self.msg is None and data is None:
                raise ValueError("`msg` or `data` is needed")
        elif address.kind != "group" or self.user is None:
            raise ValueError(f"`group` and `user` are needed where `kind` is {self.kind}")
        if (self.kind == "role") != (self.role is not None):
            raise ValueError("`role` is needed where `kind` is role, and only there")
        if data is not None and not _is_sound(data):
            raise ValueError("the data is not sound JSON")
        return Entry(
            seq=self.seq,
            ts=self.ts,
            kind=self.kind,
            sender=self.sender,
            address=address,
            origin=self.origin,
            msg=self.msg,
            data=data,
            key=self.key,
            reply_to=self.reply_to,
            user=self.user,
            role=self.role,
            # A list is encoded in its own order.
            audience=cast("frozenset[str] | None", self.audience),
        )

    def row(self) -> tuple[Any, ...]:
        """All columns of ``entries``."""
        entry = self.entry()
        return (*columns_of(entry), _encode(entry).decode())


class RetainedLine(EntryLine, tag="retained"):
    """A topic's retained message."""

    def row(self) -> tuple[Any, ...]:
        """The topic, the place in the log, and the message."""
        entry = self.entry()
        if entry.kind != "message" or entry.address.kind != "topic":
            raise ValueError("only a message of a topic can be retained")
        return (entry.address.name, entry.seq, _encode(entry).decode())


class KeyLine(Line, tag="key"):
    """A key, by which a retry is known, with what it is bound to."""

    places = ("seq",)

    user: Name
    key: Key
    digest: Hex
    seq: Whole
    ts: Whole


class UserLine(Line, tag="user"):
    """A user."""

    places = ("created", "position")

    name: Name
    created: Whole
    seen: bool
    position: Whole

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for a row."""
        name, created, seen, position = row
        return cls(name, created, bool(seen), position)


class DeviceLine(Line, tag="device"):
    """A device of a user."""

    places = ("position",)

    user: Name
    name: Name
    position: Whole
    used: float


class UnseenLine(Line, tag="unseen"):
    """How many messages of a sender wait for a receiver never seen."""

    receiver: Name
    sender: Name
    waiting: Whole


class HearingLine(Line, tag="hearing", kw_only=True):
    """A stretch of the log in which a user hears a group, or a topic filter."""

    places = ("after", "until")

    user: Name
    group: Name | None = None
    topic: TopicFilter | None = None
    after: Whole
    until: Whole | None = None

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for a row."""
        user, kind, what, after, until = row
        line = cls(user=user, after=after, until=until)
        setattr(line, kind, what)
        return line

    def row(self) -> tuple[Any, ...]:
        """All columns of ``hearings``."""
        if self.group is not None and self.topic is None:
            return (self.user, "group", self.group, self.after, self.until)
        if self.topic is not None and self.group is None:
            return (self.user, "topic", self.topic, self.after, self.until)
        raise ValueError("exactly one of `group` and `topic` is needed")


class MarkLine(Line, tag="mark", kw_only=True):
    """How far a user has read a conversation."""

    places = ("read",)

    user: Name
    to: Name | None = None
    group: Name | None = None
    topic: TopicName | None = None
    read: Whole

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for a row."""
        user, talk, read = row
        line = cls(user=user, read=read)
        kind, _, name = talk.partition("/")
        if kind == "d":
            one, _, other = name.partition("|")
            line.to = other if one == user else one
        else:
            setattr(line, {"g": "group", "t": "topic"}[kind], name)
        return line

    def row(self) -> tuple[Any, ...]:
        """All columns of ``marks``."""
        return (self.user, messages_of(self.user, _address(self)), self.read)


class GroupLine(Line, tag="group"):
    """A group."""

    places = ("born",)

    name: Name
    born: Whole
    public: bool

    @classmethod
    def of(cls, *row: Any) -> Self:
        """The line for a row."""
        name, born, public = row
        return cls(name, born, bool(public))


class MemberLine(Line, tag="member"):
    """A member of a group."""

    places = ("since",)

    group: Name
    user: Name
    role: Role
    since: Whole


LineType: TypeAlias = (
    EntryLine
    | KeyLine
    | RetainedLine
    | UserLine
    | DeviceLine
    | UnseenLine
    | HearingLine
    | MarkLine
    | GroupLine
    | MemberLine
)

_decode_line = msgspec.json.Decoder(LineType).decode
_decode_header = msgspec.json.Decoder(Header).decode
_decode_version = msgspec.json.Decoder(_Version).decode


def header_of(text: bytes) -> Header:
    """The header in the first line of an export.

    :raises ValueError: it is none, or of another format.
    """
    with _readable(text):
        try:
            version = _decode_version(text).chatsvc
        except msgspec.ValidationError:
            raise ValueError("this is no export of chatsvc") from None
        if version != FORMAT:
            raise ValueError(f"the export is in format {version}, only {FORMAT} can be read")
        return _decode_header(text)


def line_of(text: bytes) -> Line:
    """The object in a further line.

    :raises ValueError: it is none that an export has.
    """
    with _readable(text):
        line: Line = _decode_line(text)
        return line


@contextmanager
def _readable(text: bytes) -> Iterator[None]:
    """Say of a line that cannot be decoded what is wrong with it."""
    try:
        if not text.isascii():
            text.decode()  # msgspec does not look into all of it
        yield
    except UnicodeDecodeError:
        raise ValueError("this is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from None
    except (msgspec.DecodeError, RecursionError):
        raise ValueError("this is not a JSON object in one line") from None


def _address(line: EntryLine | MarkLine) -> Address:
    """Where something goes."""
    if line.to is not None and line.group is None and line.topic is None:
        return Address("to", line.to)
    if line.group is not None and line.to is None and line.topic is None:
        return Address("group", line.group)
    if line.topic is not None and line.to is None and line.group is None:
        return Address("topic", line.topic)
    raise ValueError("exactly one of `to`, `group` and `topic` is needed")


def _is_sound(data: bytes) -> bool:
    """Whether data is JSON all through."""
    try:
        data.decode()
        _decode_value(data)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        return False
    return True


def _fits(data: bytes) -> bool:
    """Whether data can stand in a line as it is, and comes back from there as it was."""
    return _is_sound(data) and data == data.strip() and b"\n" not in data and b"\r" not in data
