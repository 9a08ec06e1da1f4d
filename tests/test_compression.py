"""permessage-deflate: what is agreed, what is sent, and what is taken."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

from autobahn.exception import PayloadExceededError
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from websockets.frames import Frame, Opcode

from chatsvc.compression import WORTH_IT, Agreement, Inflater, deflated_frame, negotiate
from tests.caller import Caller
from tests.fakes import House
from tests.peer import OPTIONS, Peer, make_factory
from tests.server import Server
from tests.test_wire import deflated, frame

BROWSER = ClientPerMessageDeflateFactory(client_max_window_bits=True)
"""Offers what browsers do: `permessage-deflate; client_max_window_bits`."""
RESETS = "permessage-deflate; server_no_context_takeover; client_no_context_takeover"


def text(size: int, seed: int = 0) -> str:
    """Words, which can be compressed."""
    words = random.Random(seed).choices(("lunch", "build", "is", "green", "the", "at"), k=size)
    return " ".join(words)[:size]


def noise(size: int) -> str:
    """What can hardly be compressed."""
    letters = "".join(map(chr, (*range(33, 127), *range(161, 383), *range(1024, 1279))))
    return "".join(random.Random(size).choices(letters, k=size))


ALL_DIFFERENT = bytes(range(32, 127))


class Negotiation(SynchronousTestCase):
    """What is answered to an offer."""

    def answer(self, *offers: dict[str, Any]) -> str | None:
        """The answer to offers of permessage-deflate with these parameters."""
        parsed = [
            ("permessage-deflate", {name: [value] for name, value in offer.items()})
            for offer in offers
        ]
        agreement = negotiate(parsed)
        return None if agreement is None else agreement.answer

    def test_what_is_offered_is_taken_with_small_windows_and_no_memory(self) -> None:
        """A window is named where the client says that it can have one named."""
        for offer, more in (
            ({}, ""),
            ({"client_max_window_bits": True}, "; client_max_window_bits=10"),
            ({"client_max_window_bits": "15"}, "; client_max_window_bits=10"),
            ({"client_max_window_bits": "9"}, "; client_max_window_bits=9"),
            ({"client_max_window_bits": "8"}, "; client_max_window_bits=8"),
            ({"server_max_window_bits": "15"}, "; server_max_window_bits=10"),
            ({"server_max_window_bits": "10"}, "; server_max_window_bits=10"),
            ({"server_max_window_bits": "9"}, "; server_max_window_bits=9"),
            ({"server_no_context_takeover": True}, ""),
            ({"client_no_context_takeover": True}, ""),
            (
                {"server_max_window_bits": "12", "client_max_window_bits": "12"},
                "; server_max_window_bits=10; client_max_window_bits=10",
            ),
        ):
            self.assertEqual(self.answer(offer), RESETS + more, offer)

    def test_what_cannot_be_met_is_declined(self) -> None:
        """With a window of 8 bits zlib does not compress; the others are wrong."""
        for offer in (
            {"server_max_window_bits": "8"},
            {"server_max_window_bits": "7"},
            {"server_max_window_bits": "16"},
            {"server_max_window_bits": "010"},
            {"server_max_window_bits": "\u0661\u0660"},
            {"server_max_window_bits": True},
            {"server_max_window_bits": ""},
            {"client_max_window_bits": "16"},
            {"client_max_window_bits": ""},
            {"server_no_context_takeover": "1"},
            {"client_no_context_takeover": ""},
            {"permessage-deflate": True},
            {"x": True},
        ):
            self.assertIsNone(self.answer(offer), offer)
        twice = {"server_max_window_bits": ["10", "10"]}
        self.assertIsNone(negotiate([("permessage-deflate", twice)]))

    def test_the_first_that_can_be_met_is_taken(self) -> None:
        """Other extensions are passed over."""
        offers: list[tuple[str, dict[str, list[str | bool]]]] = [
            ("permessage-bzip2", {}),
            ("permessage-deflate", {"server_max_window_bits": ["8"]}),
            ("x-webkit-deflate-frame", {}),
            ("permessage-deflate", {"server_max_window_bits": ["9"]}),
            ("permessage-deflate", {}),
        ]
        agreement = negotiate(offers)
        self.assertEqual(agreement, Agreement(9, 15, f"{RESETS}; server_max_window_bits=9"))
        self.assertIsNone(negotiate(offers[:3]))
        self.assertIsNone(negotiate([]))


class Frames(SynchronousTestCase):
    """What is sent."""

    def read(self, made: bytes, bits: int) -> bytes:
        """The payload of a frame, inflated if it says that it is compressed."""
        size, begin = made[1], 2
        if size >= 126:
            begin = 4 if size == 126 else 10
            size = int.from_bytes(made[2:begin], "big")
        self.assertEqual(len(made), begin + size)
        if made[0] == 0x81:
            return made[begin:]
        self.assertEqual(made[0], 0xC1)
        inflater = zlib.decompressobj(-bits)
        return inflater.decompress(made[begin:] + b"\0\0\xff\xff")

    def test_a_frame_says_what_was_put_in(self) -> None:
        """Of any size, for the window of the client, and is never longer than without."""

        @settings(deadline=None, database=None, max_examples=200)
        @given(
            st.text(max_size=2000)
            | st.integers(0, 70_000).map(text)
            | st.integers(0, 70_000).map(noise),
            st.sampled_from((9, 10)),
        )
        def hold(said: str, bits: int) -> None:
            payload = said.encode()
            made = deflated_frame(payload, bits)
            self.assertEqual(self.read(made, bits), payload)
            self.assertLessEqual(len(made), len(payload) + 10)

        hold()

    def test_what_does_not_become_smaller_stays_as_it_is(self) -> None:
        """And what does is compressed."""
        self.assertEqual(deflated_frame(ALL_DIFFERENT, 10)[0], 0x81)
        self.assertEqual(deflated_frame(text(300).encode(), 10)[0], 0xC1)


class Inflating(SynchronousTestCase):
    """What is taken."""

    def setUp(self) -> None:
        """Agree with a browser."""
        agreement = negotiate([("permessage-deflate", {"client_max_window_bits": [True]})])
        assert agreement is not None
        self.inflater = Inflater(agreement)
        self.inflater.start_decompress_message()

    def test_a_bomb_is_stopped_at_the_limit(self) -> None:
        """A hundred megabytes in a hundred kilobytes take no more memory than is allowed."""
        bomb = deflated(b"x" * (100 << 20))
        self.assertLess(len(bomb), 1 << 20)
        tracemalloc.start()
        try:
            with self.assertRaises(PayloadExceededError):
                self.inflater.decompress_message_data(bomb, 65536)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 4 * 65536 + len(bomb))

    def test_what_is_too_long_by_less_than_a_match_is_too_long(self) -> None:
        """Where the compressed data are at their end and zlib still has some for us."""
        compressor = zlib.compressobj(wbits=-10)
        data = compressor.compress(b"abcabcabc" + b"x" * 200) + compressor.flush()
        self.assertEqual(len(zlib.decompressobj(-10).decompress(data, 100)), 100)
        with self.assertRaises(PayloadExceededError):
            self.inflater.decompress_message_data(data, 208)
        self.inflater.start_decompress_message()
        self.assertEqual(len(self.inflater.decompress_message_data(data, 209)), 209)

    def test_what_follows_the_end_of_the_data_is_not_kept(self) -> None:
        """In zlib it would be, and a message need never end."""
        compressor = zlib.compressobj(wbits=-10)
        data = compressor.compress(b"Hello") + compressor.flush() + b"\0"
        self.assertEqual(self.inflater.decompress_message_data(data, 65536), b"Hello")
        self.assertIsNone(self.inflater._inflater)
        for _ in range(3):
            self.assertEqual(self.inflater.decompress_message_data(b"x" * 60_000, 65536), b"")
        self.inflater.end_decompress_message()
        self.assertIsNone(self.inflater._inflater)

    def test_between_messages_nothing_is_held(self) -> None:
        """The window is needed while a message comes, and not after."""
        self.inflater.decompress_message_data(deflated(b"x" * 10_000), 65536)
        self.inflater.end_decompress_message()
        self.assertIsNone(self.inflater._inflater)


class Talking(SynchronousTestCase):
    """Over connections, with the websockets library at the other end."""

    def setUp(self) -> None:
        """Open a house."""
        self.house = House()
        self.factory = make_factory(self.house)

    def call(self, user: str, *extensions: ClientPerMessageDeflateFactory) -> Peer:
        """A plain client, settled."""
        uri = f"ws://localhost/ws?user={user}"
        peer = Peer(self.factory, extensions).connect(uri)
        self.house.clock.advance(0.25)
        peer.take()
        return peer

    def answered(self, peer: Peer) -> str | None:
        """What a client was told of its offer."""
        assert peer.response is not None
        return peer.response.headers.get("Sec-WebSocket-Extensions")

    def test_a_browser_gets_what_it_offers(self) -> None:
        """And who offers nothing, nothing."""
        alice, bob = self.call("alice", BROWSER), self.call("bob")
        self.assertEqual(self.answered(alice), f"{RESETS}; client_max_window_bits=10")
        self.assertIsNone(self.answered(bob))

    def test_an_offer_that_cannot_be_met_is_no_reason_to_refuse(self) -> None:
        """The connection is one without compression."""
        for offer in (
            "permessage-deflate; server_max_window_bits=8",
            "permessage-deflate; server_max_window_bits=x; server_max_window_bits",
            "permessage-bzip2; client_max_compress_level=77",
            ";;=,,",
        ):
            peer = Peer(self.factory).connect(**{"Sec-WebSocket-Extensions": offer})
            self.assertEqual(peer.response and peer.response.status_code, 101, offer)
            self.assertIsNone(self.answered(peer))

    def test_it_can_be_switched_off(self) -> None:
        """Then no offer is answered."""
        self.factory = make_factory(self.house, replace(OPTIONS, compression=False))
        peer = self.call("alice", BROWSER)
        self.assertIsNone(self.answered(peer))
        (pong,) = peer.say({"op": "ping", "id": 1}).take()
        self.assertEqual(pong["event"], "pong")

    def test_messages_arrive_as_they_were(self) -> None:
        """Of any size, between clients with all kinds of windows and one without."""
        nine = ClientPerMessageDeflateFactory(server_max_window_bits=9, client_max_window_bits=9)
        peers = {
            "alice": self.call("alice", BROWSER),
            "bob": self.call("bob"),
            "carol": self.call("carol", nine),
            "dan": self.call("dan", ClientPerMessageDeflateFactory()),
        }
        near = st.integers(WORTH_IT - 80, WORTH_IT + 80)
        sizes = near | st.integers(1, 9_000)

        @settings(deadline=None, database=None, max_examples=150)
        @given(
            st.sampled_from(sorted(peers)),
            st.sampled_from(sorted(peers)),
            sizes.map(text) | sizes.map(noise) | st.text(min_size=1, max_size=500),
        )
        def hold(sender: str, receiver: str, said: str) -> None:
            peers[sender].say({"to": receiver, "msg": said, "id": 1})
            heard = peers[receiver].take()
            told = heard if sender == receiver else [*peers[sender].take(), *heard]
            self.assertEqual([f["event"] for f in told if "event" in f], ["ok"])
            expected = [] if sender == receiver else [said]
            self.assertEqual([f["msg"] for f in told if "msg" in f], expected)

        hold()

    def test_many_receivers_share_one_compression(self) -> None:
        """One a window; those without compression have none, and short messages neither."""
        nine = ClientPerMessageDeflateFactory(server_max_window_bits=9)
        receivers = [self.call(f"user{n}", *([BROWSER, nine][n % 2 : n % 2 + 1])) for n in range(8)]
        receivers += [self.call(f"other{n}") for n in range(4)]
        for receiver in receivers:
            receiver.say({"op": "join", "group": "devs"}).take()
        sender = self.call("alice")
        sender.say({"op": "join", "group": "devs"}).take()
        for said in (text(2000), "short"):
            sender.say({"group": "devs", "msg": said})
            for receiver in receivers:
                self.assertEqual([frame["msg"] for frame in receiver.take()], [said])
        made = self.factory.deflated.cache_info()
        self.assertEqual((made.misses, made.hits), (2, 6))

    def test_a_message_that_inflates_to_too_much_closes_with_1009(self) -> None:
        """Who is told why in a frame before."""
        peer = self.call("alice", BROWSER)
        bomb = frame(0xC1, deflated(b" " * (10 << 20)))
        peer.feed(bomb)
        (closing,) = peer.take()
        self.assertIn("65536", closing["reason"])
        self.assertEqual(peer.client.close_code, 1009)

    def test_what_cannot_be_inflated_closes_with_1007(self) -> None:
        """As text that is no UTF-8."""
        peer = self.call("alice", BROWSER)
        peer.feed(frame(0xC1, b"\xff\xff\xff"))
        peer.take()
        self.assertEqual(peer.client.close_code, 1007)

    def test_who_agreed_on_nothing_may_send_nothing_compressed(self) -> None:
        """It breaks the rules: 1002."""
        peer = self.call("alice")
        peer.feed(frame(0xC1, deflated(b'{"op":"ping"}')))
        peer.take()
        self.assertEqual(peer.client.close_code, 1002)

    def test_a_message_may_be_compressed_and_in_fragments(self) -> None:
        """With other frames between them."""
        peer = self.call("alice", BROWSER)
        data = deflated(b'{"op":"ping","id":1}' + b" " * 1000)
        for piece in (frame(0x41, data[:5]), frame(0x89, b"hi"), frame(0x80, data[5:])):
            peer.feed(piece)
        (pong,) = peer.take()
        self.assertEqual(pong["event"], "pong")
        self.assertEqual(peer.events, [Frame(Opcode.PONG, b"hi")])


class OfTheRealServer(SynchronousTestCase):
    """Over real sockets."""

    def test_an_ordinary_client_talks_compressed(self) -> None:
        """It offers that unasked; `--no-compression` declines."""
        for options, names in (((), ["permessage-deflate"]), (("--no-compression",), [])):
            with (
                Server(*options) as server,
                Caller(server.url, "alice", compression="deflate") as alice,
                Caller(server.url, "bob", compression="deflate") as bob,
            ):
                agreed = [extension.name for extension in alice.websocket.protocol.extensions]
                self.assertEqual(agreed, names)
                for size in (1, 200, 2000, 20_000):
                    alice.ask(id=1, to="bob", msg=text(size))
                    self.assertEqual(bob.take()["msg"], text(size))
                self.assertNotIn("Traceback", server.log)
