"""The WebSocket edge: who gets in, flow, deadlines, closing; seen by the websockets library."""

from __future__ import annotations

import gc
import weakref

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from websockets.frames import Opcode

from chatsvc.pipeline import AT_ONCE
from tests.fakes import make_late_house
from tests.peer import OPTIONS, Peer, make_factory


class _WithFactory(SynchronousTestCase):
    def setUp(self) -> None:
        """Open a house with a factory; its store answers late when a test says so."""
        self.store, self.house = make_late_house()
        self.factory = make_factory(self.house)

    def plain(self, user: str) -> Peer:
        """A plain client, settled."""
        peer = Peer(self.factory).connect(f"ws://localhost/ws?user={user}")
        self.house.clock.advance(0.25)
        return peer

    def advance(self, seconds: float, *peers: Peer) -> None:
        """Let time pass in steps of a second, with clients that answer pings."""
        for _ in range(int(seconds)):
            self.house.clock.advance(1)
            for peer in peers:
                peer.flush()


class GettingIn(_WithFactory):
    """The handshake."""

    def status(self, uri: str = "ws://localhost/ws", **headers: str) -> int:
        """What the server answers to a handshake."""
        peer = Peer(self.factory).connect(uri, **headers)
        assert peer.response is not None
        return peer.response.status_code

    def test_the_path_is_ws(self) -> None:
        """Any other is not found."""
        self.assertEqual(self.status(), 101)
        self.assertEqual(self.status("ws://localhost/"), 404)
        self.assertEqual(self.status("ws://localhost/ws/"), 404)

    def test_the_subprotocol_is_selected_where_it_is_offered(self) -> None:
        """And only then."""
        peer = Peer(self.factory).connect(subprotocol="chat.v1")
        self.assertEqual(peer.client.subprotocol, "chat.v1")
        other = Peer(self.factory).connect(subprotocol="soap")
        self.assertIsNone(other.client.subprotocol)
        self.assertEqual(other.response and other.response.status_code, 101)

    def test_in_open_mode_only_local_hosts_are_answered(self) -> None:
        """So that no web page can reach the server under a name that points here."""
        for host in ("localhost", "LOCALHOST:3030", "127.0.0.1:3030", "[::1]:3030", "[::1]"):
            self.assertEqual(self.status(Host=host), 101, host)
        for host in ("example.org", "localhost.example.org", "127.0.0.1.example.org:3030"):
            self.assertEqual(self.status(Host=host), 403, host)

    def test_foreign_origins_are_refused(self) -> None:
        """An allowed one and none at all are let in."""
        self.assertEqual(self.status(Origin="http://localhost:8080"), 101)
        for origin in ("http://example.org", "null", "http://localhost.example.org", "file://"):
            self.assertIn(self.status(Origin=origin), (400, 403), origin)

    def test_the_user_of_the_url_must_be_a_name(self) -> None:
        """Anything else is a bad request."""
        self.assertEqual(self.status("ws://localhost/ws?user=alice"), 101)
        for query in ("user=a%20b", "user=a%0A", "user=a&user=b", "user=" + "a" * 65):
            self.assertEqual(self.status(f"ws://localhost/ws?{query}"), 400, query)

    def test_connections_are_limited(self) -> None:
        """One more than the limit is told to come later."""
        factory = make_factory(self.house, replace(OPTIONS, max_connections=2))
        peers = [Peer(factory).connect() for _ in range(3)]
        self.assertEqual(
            [peer.response and peer.response.status_code for peer in peers], [101, 101, 503]
        )

    def test_before_the_store_is_ready_nobody_gets_in(self) -> None:
        """They are told to come later."""
        peer = Peer(make_factory(self.house, serving=False)).connect()
        self.assertEqual(peer.response and peer.response.status_code, 503)

    def test_an_endless_head_is_refused(self) -> None:
        """At 16 KiB, however it comes."""
        peer = Peer(self.factory)
        for _ in range(17):
            peer.feed(b"X-Padding: " + b"x" * 1012 + b"\r\n")
        self.assertTrue(bytes(peer.wire.value()).startswith(b"HTTP/1.1 431 "))
        self.assertTrue(peer.wire.lost)

    def test_a_handshake_may_come_byte_by_byte(self) -> None:
        """And one that does not come is dropped after five seconds."""
        slow = Peer(self.factory)
        slow.client.send_request(slow.client.connect())
        slow.flush(size=1)
        self.assertEqual(slow.response and slow.response.status_code, 101)
        silent = Peer(self.factory)
        self.house.clock.pump([1] * 4)
        self.assertFalse(silent.wire.lost)
        self.house.clock.advance(1)
        self.assertTrue(silent.wire.aborted)

    def test_autobahns_options_are_not_left_at_their_defaults(self) -> None:
        """Each that has an unlimited or surprising default is set."""
        factory = self.factory
        self.assertEqual(
            (
                factory.failByDrop,
                factory.maxFramePayloadSize,
                factory.maxMessagePayloadSize,
                factory.maxConnections,
                factory.allowedOrigins,
                factory.allowNullOrigin,
                factory.webStatus,
            ),
            (False, 65536, 65536, 100, ["http://localhost:*"], False, False),
        )


class Talking(_WithFactory):
    """Frames in and out."""

    def test_a_binary_frame_is_read_as_text(self) -> None:
        """Its answer is text."""
        peer = self.plain("alice")
        peer.client.send_binary(b'{"op":"ping","id":1}')
        (pong,) = peer.take()
        self.assertEqual((pong["event"], pong["id"]), ("pong", 1))

    def test_fragments_and_any_cut_of_the_bytes_are_the_same_message(self) -> None:
        """As RFC 6455 has it."""
        peer = self.plain("alice")
        peer.client.send_text(b'{"op":', fin=False)
        peer.client.send_continuation(b'"ping"}', fin=True)
        peer.flush(size=1)
        self.assertEqual([frame["event"] for frame in peer.take()], ["pong"])

    def test_pings_are_answered_in_the_order_of_frames(self) -> None:
        """A client's own ping has its pong."""
        peer = self.plain("alice")
        peer.client.send_ping(b"mine")
        peer.flush()
        self.assertEqual([(e.opcode, e.data) for e in peer.events], [(Opcode.PONG, b"mine")])

    def test_delivery_is_proven_by_the_peers_own_pong(self) -> None:
        """No client code is needed for a position to move."""
        bob = self.plain("bob")
        self.plain("alice").say({"to": "bob", "msg": "x"})
        self.assertEqual(len(bob.take()), 1)
        bob.lose()
        self.assertEqual(self.plain("bob").take(), [])

    def test_a_message_that_is_too_long_closes_with_1009(self) -> None:
        """After a frame that says why; one of just the right size is fine."""
        alice, bob = self.plain("alice"), self.plain("bob")
        start, end = b'{"to":"bob","msg":"', b'"}'
        most = start + b"x" * (65536 - len(start) - len(end)) + end
        alice.say(most)
        self.assertEqual(len(bob.take()[0]["msg"]), 65536 - len(start) - len(end))
        alice.say(most.replace(b"xx", b"xxx", 1))
        (closing,) = alice.take()
        self.assertEqual((closing["event"], alice.client.close_code), ("closing", 1009))

    def test_text_that_is_not_utf8_closes_with_1007(self) -> None:
        """In a binary frame it is an error, and the connection stays."""
        alice = self.plain("alice")
        alice.client.send_binary(b'{"to":"bob","msg":"\xff"}')
        self.assertEqual([frame["code"] for frame in alice.take()], ["bad_request"])
        alice.say(b'{"to":"bob","msg":"\xff"}')
        self.assertEqual((alice.take()[0]["event"], alice.client.close_code), ("closing", 1007))


class Flow(_WithFactory):
    """Readers that do not read."""

    def test_a_stalled_reader_holds_a_bounded_amount(self) -> None:
        """The rest stays in the log, and comes when it reads again; others notice nothing."""
        alice, bob, carol = self.plain("alice"), self.plain("bob"), self.plain("carol")
        bob.wire.stalled = True
        for number in range(200):
            text = f"{number:03}" + "x" * 4000
            alice.say({"to": "bob", "msg": text}, {"to": "carol", "msg": text})
            carol.flush()
        self.assertLess(len(bob.wire.value()), 80_000)
        self.assertEqual(len(carol.take()), 200)
        bob.wire.stalled = False
        self.advance(10, bob)
        texts = [frame["msg"][:3] for frame in bob.take()]
        self.assertEqual(texts, [f"{number:03}" for number in range(200)])

    def test_a_client_that_does_not_read_its_replies_is_not_read_from(self) -> None:
        """Until it reads; then every reply is there."""
        alice = self.plain("alice")
        alice.say({"to": "bob", "msg": "x" * 60_000})
        alice.wire.stalled = True
        for mark in range(3):
            alice.say({"op": "history", "to": "bob", "id": mark})
        self.assertFalse(alice.wire.reading)
        alice.wire.stalled = False
        self.assertEqual([frame["id"] for frame in alice.take()], [0, 1, 2])
        self.assertTrue(alice.wire.reading)

    def test_a_burst_of_commands_is_bounded_by_what_is_read_of_the_replies(self) -> None:
        """However many came in one read, no more are done than replies can be taken."""
        alice = self.plain("alice")
        for _ in range(20):
            alice.say({"to": "bob", "msg": "x" * 4000})
        alice.wire.stalled = True
        for mark in range(100):
            alice.client.send_text(b'{"op":"history","to":"bob","id":%d}' % mark)
        alice.feed(b"".join(alice.client.data_to_send()))
        self.house.clock.advance(0)
        self.assertLess(len(alice.wire.value()), 400_000)
        alice.wire.stalled = False
        for _ in range(200):
            alice.flush()
        self.assertEqual([frame["id"] for frame in alice.take()], list(range(100)))

    def test_a_flood_leaves_the_others_their_turns(self) -> None:
        """Of thousands of messages in one read, a few are stored before those of others."""
        mallory, alice = self.plain("mallory"), self.plain("alice")
        for _ in range(5000):
            mallory.client.send_text(b'{"topic":"t","msg":"x"}')
        flood = b"".join(mallory.client.data_to_send())
        mallory.feed(flood)
        alice.say({"to": "bob", "msg": "hi", "id": 1})
        (ok,) = alice.take()
        self.assertLessEqual(ok["seq"], 2 * AT_ONCE + 1)
        self.advance(1)
        self.assertEqual(self.store.head, 5001)

    def test_of_the_pings_of_a_client_that_does_not_read_the_last_is_answered(self) -> None:
        """When it reads again (RFC 6455, section 5.5.3); until then they cost nothing."""
        alice = self.plain("alice")
        alice.say({"to": "bob", "msg": "x" * 60_000})
        alice.wire.stalled = True
        alice.say({"op": "history", "to": "bob"}, {"op": "history", "to": "bob"})
        held = len(alice.wire.value())
        for number in range(1000):
            alice.client.send_ping(b"%d" % number)
        alice.flush()
        self.assertEqual(len(alice.wire.value()), held)
        alice.wire.stalled = False
        alice.flush()
        pongs = [bytes(event.data) for event in alice.events if event.opcode is Opcode.PONG]
        self.assertEqual(pongs, [b"999"])

    def test_a_client_stuck_for_a_minute_is_dropped(self) -> None:
        """With what was unsent for it."""
        alice = self.plain("alice")
        alice.say({"to": "bob", "msg": "x" * 60_000})
        alice.wire.stalled = True
        for mark in range(3):
            alice.say({"op": "history", "to": "bob", "id": mark})
        self.advance(60)
        self.assertFalse(alice.wire.lost)
        self.advance(8)
        self.assertTrue(alice.wire.aborted)

    def test_a_stuck_plain_reader_of_live_messages_is_dropped_as_well(self) -> None:
        """No progress for 60 s is the end, and nothing is lost to its user."""
        alice, bob = self.plain("alice"), self.plain("bob")
        bob.wire.stalled = True
        for _ in range(30):
            alice.say({"to": "bob", "msg": "x" * 4000})
        self.advance(70, alice)
        self.assertTrue(bob.wire.aborted)
        bob.lose()
        self.assertEqual(len(self.plain("bob").take()), 30)


class Closing(_WithFactory):
    """The end of a connection."""

    def test_a_close_is_answered_after_the_replies_to_what_came_before(self) -> None:
        """So that a client which closes at once still has its `ok`."""
        alice = self.plain("alice")
        self.store.late = True
        alice.client.send_text(b'{"to":"bob","msg":"x","id":1}')
        alice.client.send_close(1000)
        alice.flush()
        self.assertEqual(alice.take(), [])
        self.store.release()
        self.assertEqual([frame["id"] for frame in alice.take()], [1])
        self.assertEqual((alice.client.close_code, alice.gone), (1000, True))

    def test_but_after_five_seconds_in_any_case(self) -> None:
        """A store that hangs does not hold the connection."""
        alice = self.plain("alice")
        self.store.late = True
        alice.client.send_text(b'{"to":"bob","msg":"x","id":1}')
        alice.client.send_close(1000)
        self.advance(6, alice)
        self.assertEqual((alice.client.close_code, alice.gone), (1000, True))

    def test_a_peer_that_does_not_answer_a_close_is_dropped(self) -> None:
        """After five seconds, by the sweep."""
        peer = Peer(self.factory).connect(subprotocol="chat.v1")
        peer.wire.stalled = True
        self.house.clock.pump([1] * 11)
        self.assertFalse(peer.wire.lost)
        self.house.clock.pump([1] * 7)
        self.assertTrue(peer.wire.aborted)

    def test_nothing_is_kept_of_a_connection_that_is_gone(self) -> None:
        """Neither with the factory nor with the state."""
        for _ in range(3):
            peer = self.plain("alice").say({"op": "subscribe", "topic": "t"})
            peer.lose()
        self.assertEqual((len(self.factory.connections), len(self.house.state.clients)), (0, 0))

    def test_nothing_of_it_waits_for_the_collector(self) -> None:
        """Not even when it ends with commands under way; so there need not be one."""
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        self.store.late = True
        peer = Peer(self.factory).connect(subprotocol="chat.v1").say({"op": "hello", "user": "a"})
        self.store.release()
        peer.say({"to": "b", "msg": "hi", "id": 1}, {"op": "history", "to": "b", "id": 2})
        assert peer.protocol.session is not None
        assert peer.protocol.session._actor is not None
        parts = (peer.protocol, peer.protocol.session, peer.protocol.session._actor.stream)
        left = [weakref.ref(part) for part in parts]
        peer.lose()
        self.store.release()
        del peer, parts
        self.assertEqual([part() for part in left], [None, None, None])

    def test_draining_tells_everybody_and_closes_with_1001(self) -> None:
        """Plain connections as well, with when to come again."""
        peers = [self.plain("alice"), Peer(self.factory).connect(subprotocol="chat.v1")]
        drained = self.factory.drain()
        for peer in peers:
            (closing,) = peer.take()
            self.assertEqual(
                closing,
                {"event": "closing", "reason": "the server is stopping", "retry_in_ms": 1000},
            )
            self.assertEqual(peer.client.close_code, 1001)
        self.assertIsNone(self.successResultOf(drained))

    def test_draining_waits_for_what_was_taken(self) -> None:
        """The `ok` comes before the `closing`."""
        alice = self.plain("alice")
        self.store.late = True
        alice.say({"to": "bob", "msg": "x", "id": 1})
        drained = self.factory.drain()
        alice.say({"to": "bob", "msg": "y", "id": 2})
        self.assertEqual(alice.take(), [])
        self.assertNoResult(drained)
        self.store.late = False
        self.store.release()
        self.assertEqual([f.get("id", f["event"]) for f in alice.take()], [1, "closing"])
        self.assertIsNone(self.successResultOf(drained))

    def test_draining_shows_what_others_sent_before_it_lets_anybody_go(self) -> None:
        """Who has nothing under way is told to go only when all are done."""
        alice, bob = self.plain("alice"), self.plain("bob")
        self.store.late = True
        alice.say({"to": "bob", "msg": "x", "id": 1})
        drained = self.factory.drain()
        self.assertEqual(bob.take(), [])
        self.store.late = False
        self.store.release()
        self.assertEqual([f.get("msg", f.get("event")) for f in bob.take()], ["x", "closing"])
        alice.flush()
        self.assertIsNone(self.successResultOf(drained))

    def test_draining_drops_after_three_seconds_who_does_not_go(self) -> None:
        """And lets nobody in meanwhile."""
        alice = self.plain("alice")
        alice.wire.stalled = True
        drained = self.factory.drain()
        late = Peer(self.factory).connect()
        self.assertEqual(late.response and late.response.status_code, 503)
        self.house.clock.pump([1] * 2)
        self.assertFalse(alice.wire.lost)
        self.house.clock.advance(1)
        self.assertTrue(alice.wire.aborted)
        self.assertNoResult(drained)
        alice.lose()
        self.assertIsNone(self.successResultOf(drained))
