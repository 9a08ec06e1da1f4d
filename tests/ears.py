"""Subscribers for the tests of the state: they stand for connections, and only listen."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address
from chatsvc.state import ChatState, Delivery
from chatsvc.store import Append, Receipt
from tests.fakes import appended, counter, make_clock, make_store


class Ear:
    """A subscriber that remembers what it heard; it ends when its device is replaced."""

    def __init__(self, state: ChatState, user: str, device: str | None = None) -> None:
        self.state = state
        self.user = user
        self.device = device
        self.live = True
        self.deliveries: list[Delivery] = []
        self.gone = False

    def deliver(self, delivery: Delivery) -> None:
        """Remember."""
        self.deliveries.append(delivery)

    def tell(self, payload: bytes, origin: str) -> bool:
        """Nothing that these tests are about."""
        return True

    def replaced(self) -> None:
        """End."""
        self.gone = True
        self.state.detach(self)

    def take(self) -> list[str]:
        """What was heard since the last time: texts, and kinds of the rest."""
        heard, self.deliveries = self.deliveries, []
        return [each.entry.msg or each.entry.kind for each in heard]


class StateCase(SynchronousTestCase):
    """A state over a real store, with the clock of the test."""

    def setUp(self) -> None:
        """Begin with an empty house."""
        self.clock = make_clock()
        self.open(make_store(self.clock))

    def open(self, store: Any) -> None:
        """Begin with this store."""
        self.state = ChatState(store, self.clock, counter("s"))
        self.state.start()

    def ear(self, user: str, device: str | None = None) -> Ear:
        """An attached subscriber."""
        ear = Ear(self.state, user, device)
        self.state.attach(ear)
        return ear

    def say(self, user: str, kind: Any, name: str, msg: str) -> Deferred[Receipt]:
        """Publish a message."""
        append = Append(op="send", user=user, address=Address(kind, name), msg=msg)
        return appended(self.state.publish, append)

    def do(self, user: str, op: Any, group: str) -> Deferred[Receipt]:
        """Join, leave or create a group."""
        append = Append(op=op, user=user, address=Address("group", group))
        return appended(self.state.publish, append)

    def nothing_is_left(self) -> None:
        """No registry remembers anybody."""
        self.assertEqual(len(self.state.clients), 0)
        self.assertEqual(self.state.groups._subscribers, {})
        self.assertEqual(self.state.topics._holds, {})
        self.assertFalse(self.state.topics._tree)
