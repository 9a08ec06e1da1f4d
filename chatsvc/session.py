"""One client: who it is, what it may say when, and its replies.

A session lives as long as its connection. What it may do depends on its stage
(protocol, section 3)::

    NAMELESS --hello-----------------------------------------> SESSION
    UNSETTLED --hello----------------------------------------> SESSION
    UNSETTLED --another command, or 250 ms--> PLAIN --hello--> SESSION        any --> CLOSED

A connection that offered the subprotocol begins NAMELESS; all others have a name from the start,
which their first valid command may change (``from``, or ``user`` of ``hello``) unless the URL
fixed it. A command passes through :func:`~chatsvc.messages.decoding.decode`, then waits for its
turn in the :class:`~chatsvc.pipeline.Pipeline`, is checked against the stage, and done by its
handler in :mod:`chatsvc.operations`.
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from msgspec import UNSET, UnsetType
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.connection import Connection
from chatsvc.messages.commands import Command, Hello, Subscribe
from chatsvc.messages.decoding import decode
from chatsvc.messages.errors import CloseCode, Code, Refused
from chatsvc.messages.events import (
    Error,
    Event,
    Gap,
    Ok,
    encode,
)
from chatsvc.operations import OPERATIONS, Actor
from chatsvc.pipeline import Pipeline
from chatsvc.state import ChatState
from chatsvc.store import Append, Receipt, Start
from chatsvc.stream import Stream

__all__ = ["Session"]

SETTLE: Final = 0.25
"""Seconds of silence after which a connection is plain."""
HELLO_TIMEOUT: Final = 10.0


class Stage(enum.Enum):
    """What a connection is; see the module."""

    NAMELESS = enum.auto()
    UNSETTLED = enum.auto()
    PLAIN = enum.auto()
    SESSION = enum.auto()
    CLOSED = enum.auto()


class Session:
    """See the module.

    ``name`` is the user that the URL fixed, if it did; ``programmatic`` whether the client offered
    the subprotocol; ``limits`` what ``welcome`` tells of them.
    """

    log = Logger()

    def __init__(
        self,
        connection: Connection,
        state: ChatState,
        limits: dict[str, int],
        *,
        name: str | None,
        programmatic: bool,
    ) -> None:
        self.stage = Stage.NAMELESS if programmatic else Stage.UNSETTLED
        self._connection = connection
        self._state = state
        self._limits = limits
        self._id = state.new_id()
        self._fixed_name = name
        self._renamable = name is None
        self._name: str | None = None
        self._actor: Actor | None = None
        self._ping_numbers = itertools.count(1)
        self._finishing = False
        self._pipeline: Pipeline[Command | Refused | None] = Pipeline(
            self._run, self._overlaps, connection.hold, lambda: connection.blocked, state.clock
        )
        if programmatic:
            self._timer: IDelayedCall | None = state.clock.callLater(HELLO_TIMEOUT, self._no_hello)
        else:
            self._bear(name)
            self._timer = state.clock.callLater(SETTLE, self._silence)

    # --- the connection's side ---

    def received(self, payload: bytes) -> None:
        """A text or binary message came in; it has its effect at :meth:`work`, in its turn.

        Nothing it holds raises an exception.
        """
        if self.stage is Stage.CLOSED or self._finishing:
            return
        try:
            self._pipeline.push(decode(payload))
        except Refused as refused:
            self._pipeline.push(refused)

    def work(self) -> None:
        """Let what was received have its effect; called when all of a read has been received."""
        self._pipeline.work()

    def pong(self, payload: bytes) -> None:
        """A pong came in."""
        if self._actor is not None:
            self._actor.stream.pong(payload)

    def drained(self) -> None:
        """The client has taken all that was written."""
        if self._actor is not None:
            self._actor.stream.drained()
        self._pipeline.work()

    def sweep(self, now: float, *, reading: bool) -> None:
        """Do what time demands; called about once a second."""
        if self._actor is not None:
            self._actor.stream.sweep(now, reading=reading)

    def finish(self, then: Callable[[], None]) -> None:
        """Take no more commands, and call ``then`` when those taken are done."""
        self._finishing = True
        self._pipeline.when_idle(then)

    def closed(self) -> None:
        """The connection is gone."""
        self.stage = Stage.CLOSED
        self._pipeline.end()
        self._stop_timer()
        if self._actor is not None:
            self._actor.stream.stop()
        if self._name is not None:
            self._state.clients.lay_down(self._name)
        self._state.save_positions()

    # --- commands ---

    def _overlaps(self, command: Command | Refused | None) -> bool:
        """Whether a command need not wait for those before it."""
        if isinstance(command, Refused):
            return True
        if command is None or isinstance(command, Hello):
            return False
        return OPERATIONS[command.op].pipelined and not self._would_settle(command)

    def _run(self, command: Command | Refused | None) -> None:
        """Do a command, when the connection has become what it must be for it, and reply.

        None stands for the silence that settles a connection, a refusal for an unreadable frame.
        """
        if command is None:
            if self.stage is Stage.UNSETTLED:
                self._settle(None).addBoth(self._done)
            else:
                self._pipeline.done()
            return
        if isinstance(command, Refused):
            self._refuse(command.id, command)
            self._pipeline.done()
            return
        answer: Any
        try:
            if isinstance(command, Hello):
                answer = self._hello(command)
            elif self._actor is None or self._renamable or command.sender is not UNSET:
                answer = self._answer(command)
            else:  # it leaves nothing open of who this is, as nearly all do
                answer = self._do(command)
        except Refused as refused:
            answer = refused
        except Exception:
            answer = Failure()
        self._take(answer, command)

    def _answer(self, command: Command) -> Any:
        """What the handler of a command gives that may tell who this is, or a Deferred of it."""
        if self.stage is Stage.NAMELESS:
            raise Refused(Code.BAD_REQUEST, "`hello` must come first", Hello.example)
        name = self._check_sender(command.sender)
        settles = self._would_settle(command)
        self._confirm(name)
        if not settles:
            return self._do(command)
        return self._settle(name).addCallback(lambda _: self._do(command))

    def _do(self, command: Command) -> Any:
        if self._actor is None or self.stage is Stage.CLOSED:
            return None
        return OPERATIONS[command.op].handler(self._actor, command)

    def _take(self, answer: Any, command: Command) -> None:
        """What a handler gives: something that waits, something to be stored, or the reply."""
        if isinstance(answer, Append):
            try:
                self._state.publish(answer, partial(self._stored, command))
            except Exception:
                self._answered(Failure(), command)
        elif isinstance(answer, Deferred):
            answer.addBoth(self._take, command)
        else:
            self._answered(answer, command)

    def _stored(self, command: Command, result: Receipt | Refused) -> None:
        """What a command had to store is stored, or refused."""
        if isinstance(result, Refused):
            self._answered(result, command)
            return
        if command.id is not None and self.stage is not Stage.CLOSED:
            self._connection.send(encode(OPERATIONS[command.op].reply(command, result)))
        self._pipeline.done()

    def _answered(self, answer: Any, command: Command) -> None:
        """A command is done: reply with what came of it, and let the next ones have their turn."""
        try:
            if isinstance(answer, Failure):
                answer = self._refused(answer, command)
            if isinstance(answer, Refused):
                self._refuse(command.id, answer)
            else:
                self._reply(answer, command)
        except Exception:
            self.log.failure("a reply failed")
        self._pipeline.done()

    def _done(self, _: object) -> None:
        self._pipeline.done()

    def _reply(self, event: Event | None, command: Command) -> None:
        """Send the reply. An ``ok`` goes only to a command with an ``id``, all else in any case."""
        if event is None or self.stage is Stage.CLOSED:
            return
        if command.id is not None or not isinstance(event, Ok):
            event.id = command.id
            self._connection.send(encode(event))
        if isinstance(command, Subscribe) and self._actor is not None:
            self._actor.replay(command, event, self._connection)

    def _refused(self, failure: Failure, command: Command) -> Refused:
        """What a client is told of a failure; what it should not have caused is logged."""
        if isinstance(failure.value, Refused):
            return failure.value
        self.log.failure("command {op} failed", failure, op=command.op)
        return Refused(Code.INTERNAL, "something went wrong here; it has been noted")

    def _refuse(self, mark: str | int | None, refused: Refused) -> None:
        self._connection.send(
            encode(
                Error(
                    id=mark,
                    code=refused.code,
                    reason=refused.reason,
                    hint=refused.hint,
                    retry_after=refused.retry_after,
                )
            )
        )

    # --- who it is ---

    def _bear(self, name: str | None) -> str:
        """Take a name, or the first that nobody bears."""
        if name is None or name != self._name:
            clients = self._state.clients
            former = self._name
            if name is None:
                name = clients.give_name()
            else:
                clients.bear(name)
            if former is not None:
                clients.lay_down(former)
            self._name = name
        return name

    def _check_sender(self, sender: str | UnsetType) -> str | None:
        """Who a command makes of this connection, None where that is still open.

        :raises Refused: it is another already.
        """
        name = self._name or self._fixed_name
        if sender is UNSET or sender == name:
            return name
        if not self._renamable:
            raise Refused(Code.FORBIDDEN, f"this connection is {name}")
        return sender

    def _confirm(self, name: str | None) -> None:
        """The first valid command has been said: this is what the connection is called."""
        if self._renamable:
            self._renamable = False
            if self._actor is not None:
                self._actor.stream.confirm(own=name == self._name)

    def _would_settle(self, command: Command) -> bool:
        """Whether a command that is no ``hello`` settles what this is, or how it is called."""
        if self.stage is Stage.UNSETTLED:
            return True
        return self._renamable and command.sender not in (UNSET, self._name)

    def _settle(self, name: str | None) -> Deferred[None]:
        """Become plain, under ``name`` or the one that this bears; fires in any case."""
        user = self._bear(name or self._name)

        def begin(start: Start) -> Deferred[Actor]:
            self.stage = Stage.PLAIN
            return self._attach(self._become(user, start, bare=True, device=None))

        def show(actor: Actor) -> None:
            actor.stream.begin()

        begun = self._in_steps(self._state.start_for(user, None, None), begin, show)
        begun.addErrback(self._cannot_begin)
        return begun

    def _become(self, user: str, start: Start, *, bare: bool, device: str | None) -> Actor:
        """Be ``user``, to be shown the log anew from ``start``."""
        self._stop_timer()
        if self._actor is not None:
            self._actor.stream.stop()
        stream = Stream(
            self._connection,
            self._state,
            start,
            user=user,
            device=device,
            origin=self._id,
            bare=bare,
            provisional=self._renamable,
            numbers=self._ping_numbers,
        )
        self._actor = Actor(user, self._id, self._state, stream)
        return self._actor

    def _attach(self, actor: Actor) -> Deferred[Actor]:
        return self._state.attach(actor.stream).addCallback(lambda _: actor)

    def _cannot_begin(self, failure: Failure) -> None:
        if isinstance(failure.value, Refused):
            self.log.error("a connection cannot begin: {reason}", reason=failure.value.reason)
        else:
            self.log.failure("a connection cannot begin", failure)
        self._connection.close(CloseCode.TRY_AGAIN_LATER, "the log cannot be read now")

    def _silence(self) -> None:
        self._timer = None
        self._pipeline.push(None)
        self._pipeline.work()

    def _no_hello(self) -> None:
        self._timer = None
        self._connection.close(CloseCode.SILENT, "no `hello` for 10 s")

    def _in_steps(self, first: Deferred[Any], *steps: Callable[[Any], Any]) -> Deferred[Any]:
        """Take steps one after another, and none once the connection is gone."""

        def unless_closed(value: Any, step: Callable[[Any], Any]) -> Any:
            return None if self.stage is Stage.CLOSED else step(value)

        for step in steps:
            first.addCallback(unless_closed, step)
        return first

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # --- hello ---

    def _hello(self, command: Hello) -> Deferred[Event | None]:
        """Begin a session, or renew it."""
        wanted = self._check_sender(_user_in(command))
        if self.stage is Stage.SESSION and self._actor is not None:
            return self._actor.welcome(self._limits)
        plain = self._actor.stream if self._actor is not None else None
        user = wanted or self._bear(None)
        since, device = _given(command.since), _given(command.device)
        lost = since is not None and (
            since > self._state.reach or command.epoch not in (UNSET, self._state.store.epoch)
        )
        after = None if lost else since
        same = plain if plain is not None and plain.user == user else None
        settled_at = None if since is not None or same is None else same.started_after

        def begin(start: Start) -> Deferred[Actor]:
            self._confirm(user)
            self._bear(user)
            filters = {} if same is None else dict(same.filters)
            actor = self._become(user, start, bare=False, device=device)
            for topic_filter, held_after in filters.items():
                actor.stream.subscribe(topic_filter, held_after)
            for topic_filter in command.topics:
                actor.stream.subscribe(topic_filter, after)
            return self._attach(actor)

        def welcome(actor: Actor) -> Deferred[Event | None]:
            return actor.welcome(self._limits)

        def show(event: Event | None) -> None:
            self.stage = Stage.SESSION
            self._reply(event, command)
            if lost:
                self._connection.send(encode(Gap(reason="epoch")))
            if self._actor is not None:
                self._actor.stream.begin()

        def failed(failure: Failure) -> Any:
            return failure if failure.check(Refused) else self._cannot_begin(failure)

        started = self._state.start_for(user, device, after, at_most=settled_at)
        begun = self._in_steps(started, begin, welcome, show)
        begun.addErrback(failed)
        return begun


def _given(value: str | int | UnsetType) -> Any:
    return None if value is UNSET else value


def _user_in(command: Hello) -> str | UnsetType:
    """The user that a ``hello`` names, in ``user`` or ``from``."""
    if UNSET not in (command.user, command.sender) and command.user != command.sender:
        raise Refused(Code.BAD_REQUEST, "`user` and `from` differ", Hello.example)
    return command.sender if command.user is UNSET else command.user
