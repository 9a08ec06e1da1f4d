"""From Autobahn to twisted.web: who is handed over, and what is left behind."""

from __future__ import annotations

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.handover import SPARE, is_plain
from tests.fakes import House
from tests.peer import OPTIONS, Peer, make_factory
from tests.visitor import Echo, Visitor, get, post

UPGRADE = get("/ws", Connection="Upgrade", Upgrade="websocket")


class WhoIsHandedOver(SynchronousTestCase):
    """Whole heads that ask for no WebSocket."""

    def test_whoever_asks_for_a_web_socket_stays(self) -> None:
        """However that is written, and wherever it leads."""
        for request in (
            UPGRADE,
            get("/elsewhere", Upgrade="websocket"),
            get(upgrade="WebSocket"),
            get(UPGRADE="h2c, websocket"),
            b"GET /ws HTTP/1.1\r\nUpgrade : \t websocket\r\n\r\n",
            b"POST /ws HTTP/1.0\r\nUpgrade:websocket\r\n\r\n",
        ):
            self.assertFalse(is_plain(request), request)

    def test_all_others_go(self) -> None:
        """Also who asks for something else, or names a WebSocket elsewhere."""
        for request in (
            get(),
            get("/ws"),
            get(Upgrade="h2c"),
            get(X_Upgrade="websocket"),
            get(Cookie="upgrade: websocket"),
            get("/upgrade:websocket"),
            post("/", b"\r\nUpgrade: websocket\r\n"),
            b"\r\n\r\n",
            b"\0\xff\r\n\r\n",
        ):
            self.assertTrue(is_plain(request), request)

    def test_half_a_head_waits(self) -> None:
        """It may still ask."""
        for end in range(len(get())):
            self.assertFalse(is_plain(get()[:end]))


class HandedOver(SynchronousTestCase):
    """A connection that has changed hands."""

    def setUp(self) -> None:
        """Make a house with an echo."""
        self.house = House()
        self.factory = make_factory(self.house, replace(OPTIONS, max_connections=3))
        self.factory.site.resource.putChild(b"echo", Echo())

    def test_a_request_is_the_same_however_it_is_cut(self) -> None:
        """At any place, and at all of them."""
        for request in (
            get("/readyz"),
            get("/ws"),
            post("/echo", b"\r\n\r\n{}"),
            b"nonsense\r\n\r\n",
        ):
            whole = Visitor(self.factory)
            expected = whole.ask(request)
            whole.lose()
            cuts = [(request[:at], request[at:]) for at in range(1, len(request))]
            for pieces in (*cuts, tuple(bytes([byte]) for byte in request)):
                visitor = Visitor(self.factory)
                (answer,) = visitor.send(*pieces).turn().take()
                self.assertEqual(answer, expected, pieces)
                visitor.lose()

    def test_a_half_head_is_still_dropped_after_five_seconds(self) -> None:
        """Whatever it would have become; a request that is there is not."""
        half = Visitor(self.factory).send(get()[:-2])
        whole = Visitor(self.factory).send(get())
        self.house.clock.pump([1] * 6)
        self.assertEqual((half.wire.aborted, whole.wire.lost), (True, False))

    def test_an_upgrade_elsewhere_is_refused_as_ever(self) -> None:
        """It is Autobahn that answers."""
        peer = Peer(self.factory).connect("ws://localhost/elsewhere")
        self.assertEqual(peer.response and peer.response.status_code, 404)

    def test_it_counts_until_it_is_lost(self) -> None:
        """With the WebSockets, and once."""
        visitors = [Visitor(self.factory).send(get()) for _ in range(2)]
        self.assertEqual((self.factory.countConnections, len(self.factory.connections)), (2, 2))
        peers = [Peer(self.factory).connect() for _ in range(2)]
        self.assertEqual([p.response and p.response.status_code for p in peers], [101, 503])
        for visitor in visitors:
            visitor.lose()
        self.assertEqual((self.factory.countConnections, len(self.factory.connections)), (1, 1))

    def test_a_full_server_still_answers_a_few(self) -> None:
        """Once each; it must not be taken for a dead one."""
        kept = [Visitor(self.factory).send(get()) for _ in range(3)]
        self.assertFalse(any(visitor.wire.lost for visitor in kept))
        spare = [Visitor(self.factory) for _ in range(SPARE)]
        more = Visitor(self.factory)
        self.assertEqual(more.ask(get()).status, 503)
        for visitor in spare:
            answer = visitor.ask(get())
            self.assertEqual((answer.status, answer.headers["connection"]), (200, "close"))
            self.assertTrue(visitor.wire.lost)
        self.assertEqual(self.factory.countConnections, 3)
