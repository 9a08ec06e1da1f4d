"""The closing handshake by RFC 6455, sections 5.5.1 and 7."""

from __future__ import annotations

from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.errors import CloseCode
from tests.fakes import make_late_house
from tests.frames import CLOSE, CONTINUATION, PING, PONG, TEXT, closing, code_of, frame
from tests.peer import make_factory
from tests.stranger import PATIENCE, EchoCase, Stranger

VALID: Final = (
    *(1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011),  # RFC 6455
    *(1012, 1013),  # registered since
    *(3000, 3999, 4000, 4999),  # left to libraries, and to applications
)
INVALID: Final = (
    *(0, 1, 999),  # not used
    *(1004, 1005, 1006, 1015),  # reserved, or never to be sent
    1014,  # registered since for gateways, which Autobahn does not know
    *(1016, 1100, 2000, 2999),  # not assigned
    *(5000, 65535),  # beyond all ranges
)
NOT_UTF8: Final = (b"\xff", b"\xc3", b"\xed\xa0\x80", b"fine until \xf4\x90\x80\x80")


class AClose(EchoCase):
    """What a client's Close may hold."""

    def test_a_close_is_answered_and_the_connection_closed(self) -> None:
        """Without a code, too; and after the answers to what came before."""
        self.assert_closed(closing(), [], "no code")
        data = frame(TEXT, b"first") + frame(PING, b"ping") + closing()
        self.assert_closed(data, [(TEXT, b"first"), (PONG, b"ping")], "after a message")

    def test_every_valid_code_is_accepted(self) -> None:
        """The answer is that all is well."""
        for code in VALID:
            self.assert_closed(closing(code), [], code)

    def test_a_reason_may_have_what_a_control_frame_can_hold(self) -> None:
        """Which are 123 bytes beside the code."""
        for reason in (b"", b"bye", "\u2192 \U0001f44b".encode(), b"*" * 123):
            self.assert_closed(closing(1000, reason), [], reason)
        self.assert_failed(closing(1000, b"*" * 124), 1002, "one more")

    def test_one_byte_is_no_code(self) -> None:
        """It breaks the protocol."""
        self.assert_failed(frame(CLOSE, b"\x03"), 1002, "one byte")

    def test_a_code_that_must_not_be_sent_is_answered_by_1002(self) -> None:
        """With a reason or without; what was sent before is answered."""
        for code in INVALID:
            self.assert_failed(closing(code), 1002, code)
            self.assert_failed(closing(code, b"why"), 1002, code)
            data = frame(TEXT, b"first") + closing(code)
            self.assert_failed(data, 1002, code, [(TEXT, b"first")])

    def test_a_reason_that_is_not_utf8_is_answered_by_1007(self) -> None:
        """Cut short, or not possible at all."""
        for reason in NOT_UTF8:
            self.assert_failed(closing(1000, reason), 1007, reason)


class AfterAClose(EchoCase):
    """A Close is the last thing that a client says."""

    def test_what_comes_after_it_has_no_effect(self) -> None:
        """Messages, pings, another Close, what breaks every rule."""
        for late in (
            frame(TEXT, b"late"),
            frame(PING, b"late"),
            closing(1001),
            frame(TEXT, b"la", fin=False) + frame(CONTINUATION, b"te"),
            frame(CONTINUATION, b"late"),
            frame(3, b"late"),
            frame(TEXT, b"\xff"),
            frame(TEXT, b"late", mask=None),
            frame(PING, size=1 << 40),
            b"GET / HTTP/1.1\r\n\r\n",
        ):
            self.assert_closed(closing(1000) + late, [], late)
            data = frame(TEXT, b"in time") + closing(4000, b"bye") + late
            self.assert_closed(data, [(TEXT, b"in time")], late)


class WhileRepliesAreDue(SynchronousTestCase):
    """A Close that the chat server answers only after replies which the store owes it."""

    def test_what_comes_after_it_has_no_effect_either(self) -> None:
        """Though the connection is still open to us; then come the reply and the Close."""
        for late in (
            b"",
            frame(PING, b"late"),
            frame(TEXT, b'{"op":"ping","id":2}'),
            closing(1001),
            frame(3, b"late"),
            frame(TEXT, b"\xff"),
            frame(TEXT, size=1 << 40),
        ):
            for pieces in ([closing(1000) + late], [closing(1000), late]):
                store, house = make_late_house()
                stranger = Stranger(make_factory(house))
                house.clock.advance(0.25)
                store.late = True
                stranger.feed(frame(TEXT, b'{"to":"bob","msg":"x","id":1}'))
                for piece in pieces:
                    stranger.feed(piece)
                self.assertEqual(stranger.take(), [], late)
                store.release()
                house.clock.advance(0)
                (_, reply), (opcode, payload) = stranger.take()
                self.assertIn(b'"event":"ok"', reply, late)
                self.assertEqual((opcode, code_of(payload)), (CLOSE, 1000), late)
                self.assertEqual((stranger.wire.lost, stranger.wire.aborted), (True, False), late)
                stranger.lose()
        self.assertEqual(self.flushLoggedErrors(), [])


class OurClose(EchoCase):
    """The server closes first."""

    def test_it_ends_when_the_client_answers(self) -> None:
        """With the same code, another or none; nothing more is said."""
        for answer in (closing(1001), closing(1000, b"bye"), closing(), closing(3000)):
            stranger = self.connect()
            stranger.protocol.close(CloseCode.GOING_AWAY, "bye")
            self.house.clock.advance(0)
            ((opcode, payload),) = stranger.take()
            self.assertEqual((opcode, code_of(payload)), (CLOSE, 1001))
            self.assertFalse(stranger.wire.lost)
            stranger.feed(answer)
            self.assert_frames(stranger.take(), [], answer)
            self.assertTrue(stranger.wire.lost, answer)

    def test_what_was_under_way_to_it_has_no_effect(self) -> None:
        """Messages whole and in fragments; the Close after them is found."""
        for late in (
            frame(TEXT, b"late"),
            frame(TEXT, b"la", fin=False) + frame(CONTINUATION, b"te"),
            frame(TEXT, b"*" * 70_000),
            frame(PONG, b"late"),
        ):
            stranger = self.connect()
            stranger.protocol.close(CloseCode.GOING_AWAY, "bye")
            stranger.feed(late + closing(1001))
            self.assert_frames(stranger.take()[1:], [], late[:20])
            self.assertTrue(stranger.wire.lost, late[:20])

    def test_a_client_that_does_not_answer_is_dropped_in_time(self) -> None:
        """Though it goes on sending."""
        stranger = self.connect()
        stranger.protocol.close(CloseCode.GOING_AWAY, "bye")
        for _ in range(PATIENCE):
            stranger.feed(frame(TEXT, b"I stay"))
            self.house.clock.advance(1)
        self.assertTrue(stranger.wire.aborted)
