"""Who is here, and who hears what: the state that all connections share.

:class:`ChatState` is held by the factory. It knows its subscribers as :class:`Subscriber`, no
sessions and no sockets, and the store by its interface. A message passes through it twice: on its
way in, :meth:`ChatState.publish` hands it to the store; on its way out, the store announces the
committed entry to :meth:`ChatState.deliver`, which asks the registries who hears it. Each shape is
encoded once, when the first receiver needs it.

The registries hold only what concerns connected users. A user's first connection brings its groups
and durable filters from the store (:meth:`ChatState.attach`); afterwards the announced ``joined``
and ``left`` keep them true. While they are being fetched, such changes are noted and applied on
top, so that it does not matter which comes first.

What any of this costs depends on the groups and filters of the user concerned, and never on the
number of other clients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.circle import Circle
from chatsvc.messages.entries import Entry, Shape, render
from chatsvc.messages.errors import Refused
from chatsvc.messages.events import Event, encode
from chatsvc.registry import ClientRegistry, ConnectedUser, GroupRegistry, TopicRegistry
from chatsvc.store import Append, DeviceKey, Standing, Start, Store, Then

__all__ = ["ChatState", "Delivery", "Subscriber"]

SAVE_INTERVAL = 3.0
"""Seconds between two savings of delivered positions; a lost one only repeats messages."""


class Delivery:
    """A committed entry on its way to many receivers: each shape is encoded at most once.

    ``payloads`` are those that are encoded already.
    """

    __slots__ = ("entry", "payloads")

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.payloads: dict[Shape, bytes | None] = {}

    def payload(self, shape: Shape) -> bytes | None:
        """The entry as it goes over the wire, or None where this shape does not show it."""
        if shape not in self.payloads:
            self.payloads[shape] = render(self.entry, shape)
        return self.payloads[shape]


class Subscriber(Protocol):
    """One connection, as the state sees it."""

    user: str
    device: str | None

    @property
    def live(self) -> bool:
        """Whether it is shown entries as they come, rather than from the store."""

    def deliver(self, delivery: Delivery) -> None:
        """Show an entry that the subscriber hears; called in the order of the log."""

    def tell(self, payload: bytes, origin: str) -> bool:
        """Show an event that is not in the log; whether this is a session, and not its origin."""

    def replaced(self) -> None:
        """The device is connected elsewhere now: this connection ends."""


class ChatState:
    """See the module. ``new_id`` makes the names of connections, unlike any made before."""

    log = Logger()

    def __init__(self, store: Store, clock: IReactorTime, new_id: Callable[[], str]) -> None:
        self.store = store
        self.clock = clock
        self.clients: ClientRegistry[Subscriber] = ClientRegistry()
        self.groups: GroupRegistry[Subscriber] = GroupRegistry()
        self.topics: TopicRegistry[Subscriber] = TopicRegistry()
        self.circle = Circle(store)
        self._positions: dict[DeviceKey, int] = {}
        self._read_to = 0
        self.new_id = new_id
        self._saving = LoopingCall(self.save_positions)
        self._saving.clock = clock

    @property
    def ping_interval(self) -> float:
        """Seconds between two pings of one connection: 2, more with more than 4,000 users."""
        return max(2.0, len(self.clients) / 2000)

    @property
    def head(self) -> int:
        """The ``seq`` of the last entry that was announced."""
        return self.store.head

    @property
    def reach(self) -> int:
        """The highest ``seq`` that anybody can have been shown: pages may be ahead of the head."""
        return max(self.head, self._read_to)

    def note_read(self, seq: int) -> None:
        """A page of the log has been read up to ``seq``."""
        self._read_to = max(self._read_to, seq)

    def start(self) -> Deferred[None]:
        """Start the store, and saving positions."""
        self._saving.start(SAVE_INTERVAL, now=False)
        return self.store.start(self.deliver)

    def stop(self) -> Deferred[None]:
        """Save what is not saved, then stop the store."""
        if self._saving.running:
            self._saving.stop()
        saved = self.save_positions()
        saved.addCallback(lambda _: self.store.stop())
        return saved

    # --- in ---

    def publish(self, append: Append, then: Then) -> None:
        """Hand something to the store; see :meth:`chatsvc.store.Store.append`."""
        self.store.append(append, then)

    def is_shown(self, user: str) -> bool:
        """Whether ``user`` has a connection that is being shown the log as it grows."""
        connected = self.clients.get(user)
        if connected is not None:
            for subscriber in connected.subscribers:
                if subscriber.live:
                    return True
        return False

    # --- out ---

    def deliver(self, entry: Entry) -> None:
        """Show a committed entry to everybody who is here and hears it."""
        if entry.kind == "joined":
            self._change_membership(entry, joined=True)
        delivery = Delivery(entry)
        for subscriber in self._audience(entry):
            try:
                subscriber.deliver(delivery)
            except Exception:
                self.log.failure("delivering entry {seq}", seq=entry.seq)
        if entry.kind == "left":
            self._change_membership(entry, joined=False)
            self.circle.forget(entry.user or "")

    def _audience(self, entry: Entry) -> Iterable[Subscriber]:
        """The subscribers that hear ``entry``; a copy, as delivering may change who is here."""
        address = entry.address
        if entry.audience is not None:
            return self._connections_of(entry.audience)
        if address.kind == "group":
            return self.groups.subscribers(address.name)
        if address.kind == "topic":
            return self.topics.subscribers(address.name)
        if entry.sender == address.name:
            return self._connections_of((address.name,))
        return self._connections_of((entry.sender, address.name))

    def _connections_of(self, users: Iterable[str]) -> list[Subscriber]:
        found: list[Subscriber] = []
        for user in users:
            connected = self.clients.get(user)
            if connected is not None:
                found += connected.subscribers
        return found

    def tell(self, users: Iterable[str], event: Event, origin: str) -> None:
        """Show an event that is not in the log to the sessions of ``users``, but ``origin``."""
        subscribers = self._connections_of(users)
        payload = encode(event) if subscribers else b""
        for subscriber in subscribers:
            subscriber.tell(payload, origin)

    def signal(self, user: str, device: str | None, event: Event, origin: str) -> bool:
        """Show an event to the sessions of ``user``, or to that on ``device``; if there is any."""
        connected = self.clients.get(user)
        if connected is None:
            return False
        subscribers = list(connected.subscribers)
        if device is not None:
            subscribers = [each for each in subscribers if each.device == device]
        payload = encode(event)
        told = [subscriber.tell(payload, origin) for subscriber in subscribers]
        return any(told)

    def _change_membership(self, entry: Entry, *, joined: bool) -> None:
        user = self.clients.get(entry.user or "")
        if user is None:
            return
        group = entry.address.name
        if user.arriving is not None:
            user.changes.append((entry.seq, group, joined))
        elif joined:
            self.groups.enter(user, group)
        else:
            self.groups.leave(user, group)

    # --- coming and going ---

    def attach(self, subscriber: Subscriber) -> Deferred[None]:
        """Let ``subscriber`` hear what its user hears, from the moment the Deferred fires."""
        connected = self.clients.get(subscriber.user)
        if connected is not None and subscriber.device in connected.devices:
            connected.devices[subscriber.device].replaced()
        user = self.clients.add(subscriber.user, subscriber)
        if subscriber.device is not None:
            user.devices[subscriber.device] = subscriber
        if user.arriving is None and len(user.subscribers) > 1:
            self._take_part(user, subscriber)
            return succeed(None)
        if user.arriving is None:
            user.arriving = []
            self.store.admit(user.name).addCallbacks(
                self._arrived, self._turned_away, callbackArgs=(user,), errbackArgs=(user,)
            )
            if user.arriving is None:
                return succeed(None)
        waiting: Deferred[None] = Deferred()
        user.arriving.append(waiting)
        return waiting

    def _arrived(self, standing: Standing, user: ConnectedUser[Subscriber]) -> None:
        groups = dict.fromkeys(standing.groups)
        for seq, group, joined in user.changes:
            if seq > standing.seq and joined:
                groups[group] = None
            elif seq > standing.seq:
                groups.pop(group, None)
        filters = {**dict.fromkeys(standing.filters, True), **user.filter_changes}
        user.groups.update(groups)
        user.filters.update((name, None) for name, held in filters.items() if held)
        waiting, user.arriving = user.arriving or [], None
        user.changes.clear()
        user.filter_changes.clear()
        for subscriber in user.subscribers:
            self._take_part(user, subscriber)
        for deferred in waiting:
            deferred.callback(None)

    def _turned_away(self, failure: Failure, user: ConnectedUser[Subscriber]) -> None:
        waiting, user.arriving = user.arriving or [], None
        for subscriber in list(user.subscribers):
            self.clients.discard(user.name, subscriber)
        for deferred in waiting:
            deferred.errback(failure)

    def _take_part(self, user: ConnectedUser[Subscriber], subscriber: Subscriber) -> None:
        for group in user.groups:
            self.groups.add(group, subscriber)
        for topic_filter in user.filters:
            self.topics.add(topic_filter, subscriber)

    def detach(self, subscriber: Subscriber) -> None:
        """Let ``subscriber`` hear nothing more; detaching what is not attached changes nothing."""
        user = self.clients.get(subscriber.user)
        if user is None or subscriber not in user.subscribers:
            return
        for group in user.groups:
            self.groups.discard(group, subscriber)
        for topic_filter in user.filters:
            self.topics.discard(topic_filter, subscriber)
        if subscriber.device is not None and user.devices.get(subscriber.device) is subscriber:
            del user.devices[subscriber.device]
        self.clients.discard(subscriber.user, subscriber)
        if self.clients.get(subscriber.user) is None:
            self.circle.forget(subscriber.user)

    # --- subscriptions of the user ---

    def subscribe_durably(self, user: str, topic_filter: str) -> Deferred[int]:
        """Keep a subscription of ``user``; all its connections hear it above the fired seq."""

        def kept(seq: int) -> int:
            connected = self.clients.get(user)
            if connected is not None and connected.arriving is not None:
                connected.filter_changes[topic_filter] = True
            elif connected is not None and topic_filter not in connected.filters:
                connected.filters[topic_filter] = None
                for subscriber in connected.subscribers:
                    self.topics.add(topic_filter, subscriber)
            return seq

        return self.store.subscribe(user, topic_filter).addCallback(kept)

    def unsubscribe_durably(self, user: str, topic_filter: str) -> Deferred[None]:
        """End a subscription of ``user``, on all its connections."""

        def ended(_: None) -> None:
            connected = self.clients.get(user)
            if connected is not None and connected.arriving is not None:
                connected.filter_changes[topic_filter] = False
            elif connected is not None and topic_filter in connected.filters:
                del connected.filters[topic_filter]
                for subscriber in connected.subscribers:
                    self.topics.discard(topic_filter, subscriber)

        return self.store.unsubscribe(user, topic_filter).addCallback(ended)

    # --- positions ---

    def proven(self, user: str, device: str | None, seq: int) -> None:
        """``user`` has everything up to ``seq``, on ``device`` if it is one."""
        for key in {(user, None), (user, device)}:
            if self._positions.get(key, -1) < seq:
                self._positions[key] = seq

    def save_positions(self) -> Deferred[None]:
        """Have the store keep what was proven since the last time."""
        positions, self._positions = self._positions, {}
        if not positions:
            return succeed(None)

        def not_saved(failure: Failure) -> None:
            for key, seq in positions.items():
                self._positions[key] = max(seq, self._positions.get(key, -1))
            if not failure.check(Refused):  # which the store has told of
                self.log.failure("positions could not be saved", failure)

        return self.store.save_positions(positions).addErrback(not_saved)

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        """Where a connection of ``user`` begins; see :meth:`chatsvc.store.Store.start_for`."""
        return self.save_positions().addCallback(
            lambda _: self.store.start_for(user, device, since, at_most=at_most)
        )
