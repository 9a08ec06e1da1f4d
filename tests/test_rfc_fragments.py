"""Messages in fragments by RFC 6455, and what may come between them."""

from __future__ import annotations

import tracemalloc
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    closing,
    frame,
    split,
)
from tests.stranger import EchoCase

BEGUN: Final = frame(TEXT, b"begun, ", fin=False)
"""The first fragment of a message."""
GONE_ON: Final = frame(CONTINUATION, b"gone on, ", fin=False)
ENDED: Final = frame(CONTINUATION, b"ended")


class Fragments(EchoCase):
    """A message in pieces is the message."""

    def test_a_message_in_fragments_comes_back_as_one(self) -> None:
        """Text and binary, in two fragments and in many."""
        for opcode in (TEXT, BINARY):
            for pieces in (
                [b"one", b"two"],
                [b"a", b"b", b"c", b"d"],
                [b"*"] * 300,
                [b"x" * 126, b"y" * 20_000, b"z" * 125],
            ):
                data = b"".join(split(opcode, pieces))
                self.assert_answered(data, [(opcode, b"".join(pieces))], len(pieces))

    def test_a_fragment_may_be_empty(self) -> None:
        """The first, the last, one between, or all of them."""
        for opcode in (TEXT, BINARY):
            for pieces in (
                [b"", b""],
                [b"", b"", b""],
                [b"", b"end"],
                [b"begin", b""],
                [b"", b"middle", b""],
                [b"a", b"", b"", b"b"],
            ):
                data = b"".join(split(opcode, pieces))
                self.assert_answered(data, [(opcode, b"".join(pieces))], pieces)

    def test_whatever_the_pieces(self) -> None:
        """And whatever comes between them, and after."""
        between = st.lists(
            st.sampled_from([(PING, b""), (PING, b"ping"), (PONG, b""), (PONG, b"pong")]),
            max_size=2,
        )
        message = st.tuples(
            st.sampled_from([TEXT, BINARY]),
            st.lists(st.tuples(st.text(max_size=5).map(str.encode), between), min_size=1),
        )

        @settings(deadline=None, database=None, max_examples=100)
        @given(st.lists(message, max_size=3))
        def hold(messages: list[tuple[int, list[tuple[bytes, list[tuple[int, bytes]]]]]]) -> None:
            data, expected = b"", []
            for opcode, parts in messages:
                pieces = split(opcode, [piece for piece, _ in parts])
                pongs = []
                for at, (piece, (_, controls)) in enumerate(zip(pieces, parts, strict=True)):
                    data += piece
                    if at < len(pieces) - 1:
                        data += b"".join(frame(control, load) for control, load in controls)
                        pongs += [(PONG, load) for control, load in controls if control == PING]
                expected += [*pongs, (opcode, b"".join(piece for piece, _ in parts))]
            self.assert_answered(data, expected, data)

        hold()

    def test_endless_empty_fragments_leave_nothing_behind(self) -> None:
        """They never reach the limit of a message, however many there are."""
        stranger = self.connect()
        stranger.feed(BEGUN)
        nothing = frame(CONTINUATION, fin=False) * 5000
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        before, _ = tracemalloc.get_traced_memory()
        stranger.feed(nothing)
        after, _ = tracemalloc.get_traced_memory()
        self.assertLess(after - before, 5000)
        stranger.feed(ENDED)
        self.assert_frames(stranger.take(), [(TEXT, b"begun, ended")], "the message")


class Between(EchoCase):
    """Control frames within a fragmented message."""

    def test_a_ping_is_answered_before_the_message_is_complete(self) -> None:
        """Wherever between the fragments it comes."""
        message = (TEXT, b"begun, gone on, ended")
        for data in (
            BEGUN + frame(PING, b"ping") + GONE_ON + ENDED,
            BEGUN + GONE_ON + frame(PING, b"ping") + ENDED,
        ):
            self.assert_answered(data, [(PONG, b"ping"), message], data)
        for stranger in self.after(BEGUN + frame(PING, b"ping")):
            self.assert_frames(stranger.take(), [(PONG, b"ping")], "not complete")

    def test_pings_between_all_fragments_are_answered_in_their_order(self) -> None:
        """A pong between them is not."""
        data = (
            BEGUN
            + frame(PING, b"1")
            + frame(PING, b"2")
            + GONE_ON
            + frame(PONG, b"no question")
            + frame(PING, b"3")
            + ENDED
        )
        message = (TEXT, b"begun, gone on, ended")
        answer = [(PONG, b"1"), (PONG, b"2"), (PONG, b"3"), message]
        self.assert_answered(data, answer, "pings")

    def test_a_close_ends_an_unfinished_message(self) -> None:
        """It is not taken."""
        self.assert_closed(BEGUN + closing(1000), [], "a Close")
        self.assert_closed(BEGUN + GONE_ON + closing(1000) + ENDED, [], "and the rest after it")

    def test_a_control_frame_in_fragments_fails_the_connection(self) -> None:
        """At its first, whatever comes after, and within a message, too."""
        for opcode in (PING, PONG, CLOSE):
            for payload in (b"", b"\x03\xe8"):
                for data in (
                    frame(opcode, payload, fin=False),
                    frame(opcode, payload, fin=False) + frame(CONTINUATION, b"more"),
                    BEGUN + frame(opcode, payload, fin=False) + ENDED,
                ):
                    self.assert_failed(data, 1002, data)


class OutOfOrder(EchoCase):
    """Fragments that do not fit what came before."""

    def test_a_continuation_of_nothing_fails_the_connection(self) -> None:
        """The last or not; first of all, or after a message that was complete."""
        whole = frame(TEXT, b"whole")
        fragmented = BEGUN + ENDED
        for fin in (False, True):
            for payload in (b"", b"of nothing"):
                orphan = frame(CONTINUATION, payload, fin=fin)
                self.assert_failed(orphan, 1002, orphan)
                self.assert_failed(orphan + whole, 1002, orphan)
                self.assert_failed(whole + orphan, 1002, orphan, [(TEXT, b"whole")])
                self.assert_failed(fragmented + orphan, 1002, orphan, [(TEXT, b"begun, ended")])

    def test_a_message_begun_within_another_fails_the_connection(self) -> None:
        """Neither of them is taken."""
        for begin in (frame(TEXT, b"a", fin=False), frame(BINARY, b"a", fin=False)):
            for opcode in (TEXT, BINARY):
                for fin in (False, True):
                    intruder = frame(opcode, b"intruder", fin=fin)
                    self.assert_failed(begin + intruder, 1002, intruder)
                    self.assert_failed(begin + intruder + ENDED, 1002, intruder)
                    data = begin + frame(PING, b"ping") + intruder
                    self.assert_failed(data, 1002, intruder, [(PONG, b"ping")])
