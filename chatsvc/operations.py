"""What a named connection may do: the table from command to handler.

A handler returns the reply, or a Deferred of it, or None; or what is to be stored, with a function
beside it in the table that makes the reply once it is. What it cannot do is a
:class:`~chatsvc.messages.errors.Refused`. It knows no frames and no order: which command runs when,
and who gets the reply, is for :mod:`chatsvc.session`.

*Pipelined* commands are handed to the store in the order they came and need not wait for each
other, because the store keeps that order; all else waits for what went before it and holds up what
comes after, so that each command sees the effect of those before it (protocol, section 1).

To add a command, write its class in :mod:`chatsvc.messages.commands`, its handler here, and its row
in :data:`OPERATIONS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import UNSET, Raw, Struct, UnsetType
from twisted.internet.defer import Deferred

from chatsvc import __version__
from chatsvc.connection import Connection
from chatsvc.messages import commands
from chatsvc.messages.commands import MAX_PAGE
from chatsvc.messages.decoding import content_digest
from chatsvc.messages.entries import Address, render, shape_for
from chatsvc.messages.errors import Code, Refused
from chatsvc.messages.events import (
    MAX_FRAME,
    PROTOCOL_VERSION,
    Event,
    Gap,
    GroupStanding,
    HelpPage,
    HistoryPage,
    Members,
    MemberState,
    Ok,
    Pong,
    ReadUpTo,
    Signalled,
    Subscription,
    Welcome,
    encode,
)
from chatsvc.messages.manual import describe
from chatsvc.state import ChatState
from chatsvc.store import Append, Member, Receipt, Slice, Standing
from chatsvc.stream import Stream

__all__ = ["MAX_SUBSCRIPTIONS", "OPERATIONS", "Actor", "Operation"]

MAX_SUBSCRIPTIONS: Final = 1000
"""The most filters of a connection, and the most durable ones of a user."""
_ROOM_FOR_LIST = MAX_FRAME - 4096

Answer: TypeAlias = Event | None
T = TypeVar("T")


def _given(value: T | UnsetType) -> T | None:
    return None if value is UNSET else value


class Actor:
    """A connection that has a name: on whose behalf a handler acts."""

    def __init__(self, name: str, origin: str, state: ChatState, stream: Stream) -> None:
        self.name = name
        self.origin = origin
        self.state = state
        self.stream = stream

    def welcome(self, limits: dict[str, int]) -> Deferred[Answer]:
        """Tell a session of itself, and of what holds here."""

        def welcome(standing: Standing) -> Answer:
            own = [name for name in self.stream.filters if name not in standing.filters]
            topics = [Subscription(name, durable=True) for name in standing.filters]
            topics += [Subscription(name, durable=False) for name in own]
            groups = list(standing.groups.items())[:MAX_PAGE]
            return Welcome(
                user=self.name,
                device=self.stream.device,
                session=self.origin,
                epoch=self.state.store.epoch,
                seq=self.state.head,
                order="log",
                protocol=PROTOCOL_VERSION,
                server=f"chatsvc/{__version__}",
                limits=limits,
                groups=[GroupStanding(group, role) for group, role in groups],
                topics=topics,
            )

        return self.state.store.admit(self.name).addCallback(welcome)

    def send(self, command: commands.Send) -> Append:
        """Store a message."""
        address = command.address()
        key = None if command.key is UNSET else command.key
        return Append(
            op="send",
            user=self.name,
            address=address,
            origin=self.origin,
            msg=None if command.msg is UNSET else command.msg,
            data=None if command.data is UNSET else bytes(command.data),
            reply_to=None if command.reply_to is UNSET else command.reply_to,
            retain=command.retain,
            key=key,
            digest=b"" if key is None else content_digest(command),
            present=address.kind == "to" and self.state.is_shown(address.name),
        )

    def change_group(self, command: commands.Join | commands.Leave | commands.Create) -> Append:
        """Join, leave or create a group."""
        key = _given(command.key)
        return Append(
            op=command.op,  # type: ignore[arg-type] # one of these three
            user=self.name,
            address=Address("group", command.group),
            origin=self.origin,
            public=getattr(command, "public", True),
            key=key,
            digest=b"" if key is None else content_digest(command),
        )

    def members(self, command: commands.ListMembers) -> Deferred[Answer]:
        """List who is in a group, and who of them is here."""

        def reply(found: tuple[list[Member], bool]) -> Answer:
            members, complete = found
            clients = self.state.clients
            return Members(
                group=command.group,
                members=[
                    MemberState(member.user, member.role, clients.get(member.user) is not None)
                    for member in members
                ],
                complete=complete,
            )

        after = _given(command.after)
        found = self.state.store.members(self.name, command.group, after, command.limit)
        return found.addCallback(reply)

    def history(self, command: commands.History) -> Deferred[Answer]:
        """Read a conversation; what does not fit into a frame is left for the next command."""
        address = command.address()
        after = _given(command.after)

        def reply(part: Slice) -> Answer:
            newest_first = after is None
            entries = reversed(part.entries) if newest_first else iter(part.entries)
            room = _ROOM_FOR_LIST
            messages: list[Raw] = []
            complete = part.complete
            for entry in entries:
                payload = render(entry, shape_for(entry, self.name)) or b""
                room -= len(payload) + 1
                if room < 0:
                    complete = False
                    break
                messages.append(Raw(payload))
            if newest_first:
                messages.reverse()
            page = HistoryPage(messages=messages, complete=complete)
            setattr(page, address.kind, address.name)
            return page

        found = self.state.store.history(
            self.name, address, after, _given(command.before), command.limit
        )
        return found.addCallback(reply)

    def read(self, command: commands.Read) -> Deferred[Answer]:
        """Move a read mark, and tell who sees it move."""
        address = command.address()

        def told(audience: frozenset[str]) -> Answer:
            event = ReadUpTo(sender=self.name, user=self.name, upto=command.seq)
            setattr(event, address.kind, address.name)
            self.state.tell(audience, event, self.origin)
            return Ok()

        return self.state.store.mark_read(self.name, address, command.seq).addCallback(told)

    def signal(self, command: commands.Signal) -> Answer | Deferred[Answer]:
        """Pass something on to who is here, if it is somebody who may know of this user."""
        known = self.state.circle.holds(self.name, command.to)
        if isinstance(known, Deferred):
            return known.addCallback(self._pass_on, command)
        return self._pass_on(known, command)

    def _pass_on(self, known: bool, command: commands.Signal) -> Answer:  # noqa: FBT001 - called back
        to, device = command.to, _given(command.device)
        if not known:
            reason = f"you share no group and no conversation with {to}"
            raise Refused(Code.FORBIDDEN, reason, f'{{"to":"{to}","msg":"hi"}}')
        event = Signalled(sender=self.name, device=self.stream.device, data=command.data)
        if not self.state.signal(to, device, event, self.origin):
            where = to if device is None else f"{device} of {to}"
            raise Refused(Code.OFFLINE, f"{where} is not here in a session")
        return Ok()

    def subscribe(self, command: commands.Subscribe) -> Answer | Deferred[Answer]:
        """Hear a filter from now on; its replay follows the reply."""
        held = self.state.clients.get(self.name)
        filters = (held.filters if held else {}) if command.durable else self.stream.filters
        if command.topic not in filters and len(filters) >= MAX_SUBSCRIPTIONS:
            raise Refused(Code.QUOTA_EXCEEDED, f"at most {MAX_SUBSCRIPTIONS} subscriptions")
        if command.durable:
            kept = self.state.subscribe_durably(self.name, command.topic)
            return kept.addCallback(lambda seq: Ok(seq=seq))
        return Ok(seq=self.stream.subscribe(command.topic))

    def replay(self, command: commands.Subscribe, ok: Event, connection: Connection) -> None:
        """Show what is stored for a new subscription, up to the ``seq`` of its ``ok``."""
        until = ok.seq if isinstance(ok, Ok) and ok.seq is not UNSET else self.state.head
        since = _given(command.since)
        if since is not None and since > until:
            if not self.stream.bare:
                connection.send(encode(Gap(topic=command.topic, reason="epoch")))
            since = None
        self.stream.replay(command.topic, since or 0, until, retained=since is None)

    def unsubscribe(self, command: commands.Unsubscribe) -> Deferred[Answer]:
        """Hear a filter no more, neither as the connection's nor as the user's."""
        self.stream.unsubscribe(command.topic)
        ended = self.state.unsubscribe_durably(self.name, command.topic)
        return ended.addCallback(lambda _: Ok())

    def ack(self, command: commands.Ack) -> Answer:
        """Move the position."""
        self.stream.acknowledge(command.seq)
        return Ok()

    def ping(self, _: commands.Ping) -> Answer:
        """Tell the time."""
        return Pong(ts=int(self.state.clock.seconds() * 1000))

    def help(self, command: commands.Help) -> Answer:
        """Tell what can be said."""
        return HelpPage(commands=describe(_given(command.about)))


def sent(command: commands.Send, receipt: Receipt) -> Ok:
    """Where in the log a message stands."""
    return Ok(id=command.id, seq=receipt.seq, ts=receipt.ts, key=command.key, dup=receipt.dup)


def group_changed(
    command: commands.Join | commands.Leave | commands.Create, receipt: Receipt
) -> Ok:
    """Where in the log it is said who came or went."""
    return Ok(id=command.id, seq=receipt.seq, key=command.key, dup=receipt.dup)


class Operation(Struct, frozen=True):
    """A row of the table: what does it; what is replied, if it stores; whether it is pipelined."""

    handler: Callable[[Actor, Any], Append | Answer | Deferred[Answer]]
    reply: Callable[[Any, Receipt], Ok] = sent
    pipelined: bool = False


OPERATIONS: Final[dict[str, Operation]] = {
    "send": Operation(Actor.send, sent, pipelined=True),
    "join": Operation(Actor.change_group, group_changed, pipelined=True),
    "leave": Operation(Actor.change_group, group_changed, pipelined=True),
    "create": Operation(Actor.change_group, group_changed, pipelined=True),
    "members": Operation(Actor.members),
    "history": Operation(Actor.history),
    "subscribe": Operation(Actor.subscribe),
    "unsubscribe": Operation(Actor.unsubscribe),
    "read": Operation(Actor.read, pipelined=True),
    "ack": Operation(Actor.ack),
    "signal": Operation(Actor.signal),
    "ping": Operation(Actor.ping),
    "help": Operation(Actor.help),
}
"""Every command but ``hello``, which decides on whose behalf the others act."""
