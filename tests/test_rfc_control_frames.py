"""Pings and pongs by RFC 6455, section 5.5."""

from __future__ import annotations

import tracemalloc
from typing import Final

from tests.frames import CLOSE, PING, PONG, TEXT, closing, frame
from tests.stranger import EchoCase

TOO_LONG: Final = 126


class Pings(EchoCase):
    """Each is answered with what it holds."""

    def test_a_pong_has_the_payload_of_its_ping(self) -> None:
        """From nothing to 125 bytes, which need not be text."""
        for size in (0, 1, 4, 124, 125):
            payload = b"\x00\xff\xfe\xed" * (size // 4) + b"*" * (size % 4)
            self.assert_answered(frame(PING, payload), [(PONG, payload)], size)
        self.assert_answered(frame(PING, b"Hello"), [(PONG, b"Hello")], "text")

    def test_many_at_once_are_answered_in_their_order(self) -> None:
        """Among messages, where they stand."""
        payloads = [b"%d" % number for number in range(10)]
        data = b"".join(frame(PING, payload) for payload in payloads)
        self.assert_answered(data, [(PONG, payload) for payload in payloads], "ten")
        data = frame(TEXT, b"a") + frame(PING, b"1") + frame(TEXT, b"b") + frame(PING, b"2")
        answer = [(TEXT, b"a"), (PONG, b"1"), (TEXT, b"b"), (PONG, b"2")]
        self.assert_answered(data, answer, "among messages")

    def test_a_client_that_does_not_read_has_the_answer_to_its_last_later(self) -> None:
        """RFC 6455, section 5.5.3: only the most recent ping needs an answer, but that does."""
        stranger = self.connect()
        stranger.wire.stalled = True
        for _ in range(2):
            stranger.feed(frame(TEXT, b"*" * 60_000))
        for number in range(100):
            stranger.feed(frame(PING, b"%d" % number))
        stranger.wire.stalled = False
        _, _, *pongs = stranger.take()
        self.house.clock.advance(0)
        self.assert_frames([*pongs, *stranger.take()][-1:], [(PONG, b"99")], "the last")


class Pongs(EchoCase):
    """Those that nobody asked for."""

    def test_a_pong_is_not_answered(self) -> None:
        """Whatever it holds, though it looks like one that the server would ask for."""
        for payload in (b"", b"unasked", b"*" * 125, b"\x00\xff", b"1", b"1 1", b"0" * 12):
            self.assert_answered(frame(PONG, payload), [], payload)
        self.assert_answered(frame(PONG, b"a") * 50, [], "fifty")

    def test_a_ping_after_pongs_is_answered(self) -> None:
        """With its own payload."""
        data = frame(PONG, b"unasked") + frame(PING, b"ping") + frame(PONG, b"again")
        self.assert_answered(data, [(PONG, b"ping")], "a pong before, and one after")

    def test_in_the_chat_server_pongs_change_nothing_too(self) -> None:
        """A session has its next command done."""
        stranger = self.connect(self.chat)
        self.house.clock.advance(0.25)
        for payload in (b"", b"1", b"18446744073709551616", b"-1", b"\xff" * 125):
            stranger.feed(frame(PONG, payload))
        self.assert_frames(stranger.take(), [], "pongs")
        stranger.feed(frame(TEXT, b'{"op":"ping","id":1}'))
        ((opcode, answer),) = stranger.take()
        self.assertEqual((opcode, b'"pong"' in answer), (TEXT, True))


class TooLong(EchoCase):
    """Control frames of more than 125 bytes."""

    def test_a_control_frame_that_is_too_long_fails_the_connection(self) -> None:
        """What was sent before is answered."""
        for opcode in (PING, PONG):
            for size in (TOO_LONG, 1000, 65_536):
                case = f"{size} bytes of opcode {opcode}"
                self.assert_failed(frame(opcode, b"*" * size), 1002, case)
                data = frame(TEXT, b"fine") + frame(opcode, b"*" * size)
                self.assert_failed(data, 1002, case, [(TEXT, b"fine")])
        self.assert_failed(frame(CLOSE, b"\x03\xe8" + b"*" * 124), 1002, "a Close")

    def test_though_only_its_length_is_written_as_if_it_were(self) -> None:
        """The longer forms are never the shortest."""
        for opcode in (PING, PONG):
            for width in (2, 8):
                self.assert_failed(frame(opcode, b"short", width=width), 1002, (opcode, width))

    def test_its_end_is_not_waited_for_and_nothing_is_kept_of_it(self) -> None:
        """However much of it is sent before the connection is dropped."""
        for opcode in (PING, PONG, CLOSE):
            self.assert_failed(frame(opcode, size=1 << 40), 1002, opcode, unfinished=True)
            stranger = self.connect()
            stranger.feed(frame(opcode, size=1 << 40))
            tracemalloc.start()
            self.addCleanup(tracemalloc.stop)
            before, _ = tracemalloc.get_traced_memory()
            for _ in range(10):
                stranger.feed(b"\0" * 100_000)
            after, _ = tracemalloc.get_traced_memory()
            self.assertLess(after - before, 100_000)


class AfterTheEnd(EchoCase):
    """Pings that come too late."""

    def test_a_ping_after_a_close_is_not_answered(self) -> None:
        """In the same piece or later."""
        self.assert_closed(closing(1000) + frame(PING, b"late"), [], "a ping")
        self.assert_closed(
            frame(PING, b"in time") + closing(1000) + frame(PING, b"late"),
            [(PONG, b"in time")],
            "one before",
        )
