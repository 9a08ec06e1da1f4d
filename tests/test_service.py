"""The order in which the running server starts and stops."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from chatsvc.service import ChatService, is_loopback, url_of
from chatsvc.state import ChatState
from chatsvc.store import Announce
from chatsvc.store.memory import MemoryStore
from chatsvc.web.pages import Root
from chatsvc.web.site import HttpSite
from chatsvc.websocket import ChatFactory
from tests.fakes import counter, make_clock, make_store
from tests.peer import OPTIONS, Peer


class SlowStore:
    """A store that is ready, and that has stopped, when the test says so."""

    def __init__(self, behind: MemoryStore, told: list[str]) -> None:
        self._behind = behind
        self._told = told
        self.ready: Deferred[None] = Deferred()
        self.stopped: Deferred[None] = Deferred()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)

    def start(self, announce: Announce) -> Deferred[None]:
        """Start the store behind when the test fires ``ready``."""
        self._told.append("the store is started")
        return self.ready.addCallback(lambda _: self._behind.start(announce))

    def stop(self) -> Deferred[None]:
        """Stop the store behind when the test fires ``stopped``."""
        self._told.append("the store is stopped")
        return self.stopped.addCallback(lambda _: self._behind.stop())


@implementer(IListeningPort)
class Door:
    """A port that is open until it is closed."""

    def __init__(self, address: Any, told: list[str]) -> None:
        self._address = address
        self._told = told
        self.open = True
        self.closed: Deferred[None] = Deferred()

    def startListening(self) -> None:
        """It is open already."""

    def stopListening(self) -> Deferred[None]:
        """Close; done when the test fires ``closed``."""
        self._told.append("a port is closed")
        self.open = False
        return self.closed

    def getHost(self) -> Any:
        """Where it is."""
        return self._address


@implementer(IStreamServerEndpoint)
class Place:
    """An endpoint at ``address``."""

    def __init__(self, address: Any, told: list[str]) -> None:
        self._told = told
        self.door = Door(address, told)

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Listen at once."""
        self._told.append("a port is opened")
        return succeed(self.door)


class _WithService(SynchronousTestCase):
    def setUp(self) -> None:
        """Make a service at two places, over a store that is slow."""
        self.told: list[str] = []
        self.clock = make_clock()
        self.store = SlowStore(make_store(self.clock), self.told)
        state = ChatState(self.store, self.clock, counter("s"))
        site = HttpSite(Root(ready=lambda: self.factory.serving), OPTIONS.hosts, self.clock)
        self.factory = ChatFactory(state, OPTIONS, {}, self.clock, site)
        self.places = [
            Place(IPv4Address("TCP", "127.0.0.1", 3030), self.told),
            Place(IPv6Address("TCP", "::1", 3030), self.told),
        ]
        self.service = ChatService(
            self.factory, [("one", self.places[0]), ("two", self.places[1])], loopback_only=True
        )

    def run_it(self) -> None:
        """Start the service, with a store that is ready."""
        self.service.privilegedStartService()
        self.service.startService()
        self.store.ready.callback(None)
        self.told.clear()

    def call(self) -> Peer:
        """A client that shakes hands."""
        return Peer(self.factory).connect("ws://localhost/ws?user=alice")

    def close_doors(self) -> None:
        """Let the ports be closed."""
        for place in self.places:
            place.door.closed.callback(None)


def status(peer: Peer) -> int:
    """What a client was answered."""
    assert peer.response is not None
    return peer.response.status_code


class Starting(_WithService):
    """Ports, then the store, then clients."""

    def test_ports_are_bound_before_anything_else(self) -> None:
        """While there are privileges to; the store is not touched by that."""
        self.service.privilegedStartService()
        self.assertEqual(self.told, ["a port is opened"] * 2)
        self.service.startService()
        self.assertEqual(self.told, ["a port is opened"] * 2 + ["the store is started"])

    def test_nobody_is_let_in_before_the_store_is_ready(self) -> None:
        """They are told to come later; afterwards they are served."""
        self.service.privilegedStartService()
        self.assertEqual(status(self.call()), 503)
        self.service.startService()
        self.assertEqual(status(self.call()), 503)
        self.store.ready.callback(None)
        self.assertEqual(status(self.call()), 101)

    def test_it_knows_its_ports(self) -> None:
        """All of them, in the order given."""
        self.run_it()
        self.assertEqual(self.service.ports, [place.door for place in self.places])
        self.assertEqual(self.service.running, 1)


class Stopping(_WithService):
    """Ports, then clients, then the store."""

    def test_without_clients_only_ports_and_store_are_waited_for(self) -> None:
        """It has stopped when the store has."""
        self.run_it()
        stopped = self.service.stopService()
        self.assertEqual(self.told, ["a port is closed"] * 2)
        self.close_doors()
        self.assertEqual(self.told, ["a port is closed"] * 2 + ["the store is stopped"])
        self.assertNoResult(stopped)
        self.store.stopped.callback(None)
        self.successResultOf(stopped)

    def test_clients_go_between_the_ports_and_the_store(self) -> None:
        """The store is there for as long as there is anybody."""
        self.run_it()
        peer = self.call()
        self.clock.advance(0.25)
        self.service.stopService()
        self.assertEqual(peer.take(), [])
        self.close_doors()
        self.assertEqual([frame["event"] for frame in peer.take()], ["closing"])
        self.assertTrue(peer.gone)
        self.assertEqual(self.told[-1], "the store is stopped")

    def test_a_client_that_does_not_go_is_dropped(self) -> None:
        """After 3 seconds, and only then is the store stopped."""
        self.run_it()
        peer = self.call()
        peer.wire.stalled = True
        self.service.stopService()
        self.close_doors()
        self.clock.advance(2.9)
        self.assertNotIn("the store is stopped", self.told)
        self.clock.advance(0.2)
        self.assertTrue(peer.wire.aborted)
        peer.lose()
        self.assertEqual(self.told[-1], "the store is stopped")

    def test_nothing_is_left_that_would_happen_later(self) -> None:
        """No timer, no port."""
        self.run_it()
        peer = self.call()
        self.clock.advance(0.25)
        stopped = self.service.stopService()
        self.close_doors()
        peer.flush()
        self.store.stopped.callback(None)
        self.successResultOf(stopped)
        self.assertEqual(self.service.ports, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_can_be_stopped_before_the_store_was_ready(self) -> None:
        """Who stops a start that takes too long is not told of an error."""
        self.service.privilegedStartService()
        self.service.startService()
        stopped = self.service.stopService()
        self.close_doors()
        self.store.stopped.callback(None)
        self.successResultOf(stopped)
        self.store.ready.callback(None)
        self.assertEqual(status(self.call()), 503)


class Addresses(SynchronousTestCase):
    """What is shown, and what is this machine alone."""

    def test_a_port_is_shown_as_an_address_to_connect_to(self) -> None:
        """With brackets where IPv6 wants them."""
        for address, url in (
            (IPv4Address("TCP", "127.0.0.1", 3030), "ws://127.0.0.1:3030/ws"),
            (IPv6Address("TCP", "::1", 4040), "ws://[::1]:4040/ws"),
        ):
            self.assertEqual(url_of(Door(address, [])), url)

    def test_loopback_is_this_machine(self) -> None:
        """All of 127.0.0.0/8, and ::1, with or without a scope."""
        for host in ("127.0.0.1", "127.1.2.3", "::1", "::1%lo"):
            self.assertTrue(is_loopback(host), host)

    def test_all_else_is_not(self) -> None:
        """Least of all the wildcards."""
        for host in ("0.0.0.0", "::", "192.168.1.1", "10.0.0.1", "fe80::1%eth0", "8.8.8.8"):
            self.assertFalse(is_loopback(host), host)
