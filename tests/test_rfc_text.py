"""Text by RFC 6455, section 8.1: it is UTF-8, and what is not ends the connection at once."""

from __future__ import annotations

from typing import Final

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.frames import BINARY, CONTINUATION, PING, PONG, TEXT, frame, split
from tests.stranger import EchoCase

VALID: Final = (
    # the first and the last of each length
    b"\x00",
    b"\x7f",
    b"\xc2\x80",
    b"\xdf\xbf",
    b"\xe0\xa0\x80",
    b"\xef\xbf\xbf",
    b"\xf0\x90\x80\x80",
    b"\xf4\x8f\xbf\xbf",
    # on both sides of the surrogates
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    # noncharacters are characters here
    b"\xef\xb7\x90",
    b"\xef\xbf\xbe",
    b"\xf0\x9f\xbf\xbe",
    b"\xf3\xbf\xbf\xbf",
    # a mark of byte order, a replacement, a private one
    b"\xef\xbb\xbf",
    b"\xef\xbf\xbd",
    b"\xee\x80\x80\xf3\xb0\x80\x80",
    "Gr\xfc\xdfe, \u03ba\u1f79\u03c3\u03bc\u03b5, \u4f60\u597d, \U0001f600".encode(),
)
IMPOSSIBLE: Final = (
    # What it is, its bytes; the last of them is that with which nothing can make it valid.
    ("a byte that is never used", b"\xfe"),
    ("another", b"\xff"),
    ("a lead byte of two that is always too long", b"\xc0"),
    ("another of these", b"\xc1"),
    ("a lead byte above all characters", b"\xf5"),
    ("a lead byte of five", b"\xf8"),
    ("a lead byte of six", b"\xfc"),
    ("a continuation of nothing", b"\x80"),
    ("the last continuation of nothing", b"\xbf"),
    ("two bytes for what fits one", b"\xc0"),
    ("three bytes for what fits two", b"\xe0\x9f"),
    ("three bytes for nothing", b"\xe0\x80"),
    ("four bytes for what fits three", b"\xf0\x8f"),
    ("four bytes for nothing", b"\xf0\x80"),
    ("the first surrogate", b"\xed\xa0"),
    ("the last surrogate", b"\xed\xbf"),
    ("above the last character", b"\xf4\x90"),
    ("a lead byte after a lead byte", b"\xc3\xc3"),
    ("a letter within two", b"\xc3a"),
    ("a letter within three", b"\xe2\x82a"),
    ("a letter within four", b"\xf0\x9f\x98a"),
)
CUT_SHORT: Final = (
    b"\xc2",
    b"\xe0",
    b"\xe0\xa0",
    b"\xed\x9f",
    b"\xf0",
    b"\xf0\x90",
    b"\xf0\x90\x80",
    b"\xf4\x8f\xbf",
)
"""What could still have become a character."""
AROUND: Final = "\u03ba\u1f79\u03c3\u03bc\u03b5".encode()


class Valid(EchoCase):
    """Text that comes back."""

    def test_every_character_comes_back(self) -> None:
        """The limits of each length, and those with no meaning."""
        for text in VALID:
            self.assert_echoed((TEXT, text))
            self.assert_echoed((TEXT, AROUND + text + AROUND))
        self.assert_echoed((TEXT, b"".join(VALID)))

    def test_a_character_may_stand_in_several_fragments(self) -> None:
        """A fragment for each byte, and one cut at every place."""
        for text in VALID:
            pieces = [bytes([byte]) for byte in AROUND + text]
            self.assert_answered(b"".join(split(TEXT, pieces)), [(TEXT, AROUND + text)], text)
        for place in range(len(AROUND) + 1):
            pieces = [AROUND[:place], AROUND[place:]]
            self.assert_answered(b"".join(split(TEXT, pieces)), [(TEXT, AROUND)], place)

    def test_pings_may_come_within_a_character(self) -> None:
        """They are not text themselves."""
        begin, end = split(TEXT, [b"\xf0\x9f", b"\x98\x80"])
        data = begin + frame(PING, b"\xff") + end
        self.assert_answered(data, [(PONG, b"\xff"), (TEXT, b"\xf0\x9f\x98\x80")], "a ping")


class Invalid(EchoCase):
    """Text that ends the connection, with 1007."""

    def test_what_is_not_utf8_fails_the_connection(self) -> None:
        """Alone, and between what is; what was sent before is answered."""
        for case, text in IMPOSSIBLE:
            for whole in (text, AROUND + text, AROUND + text + b"more"):
                self.assert_failed(frame(TEXT, whole), 1007, case)
                data = frame(TEXT, AROUND) + frame(TEXT, whole) + frame(TEXT, AROUND)
                self.assert_failed(data, 1007, case, [(TEXT, AROUND)])

    def test_a_character_that_is_cut_short_by_the_end_fails_the_connection(self) -> None:
        """In the only frame, and in the last fragment."""
        for text in CUT_SHORT:
            self.assert_failed(frame(TEXT, text), 1007, text)
            self.assert_failed(frame(TEXT, AROUND + text), 1007, text)
            self.assert_failed(b"".join(split(TEXT, [AROUND + text, b""])), 1007, text)
            pieces = [bytes([byte]) for byte in AROUND + text]
            self.assert_failed(b"".join(split(TEXT, pieces)), 1007, text)

    def test_no_more_is_waited_for_than_is_needed_to_see_it(self) -> None:
        """Neither for the next fragment nor for the end of the frame."""
        for case, text in IMPOSSIBLE:
            self.assert_failed(frame(TEXT, AROUND + text, fin=False), 1007, case)
            begun = frame(TEXT, AROUND, fin=False) + frame(CONTINUATION, text, fin=False)
            self.assert_failed(begun, 1007, case)
            claimed = frame(TEXT, AROUND + text, size=1000)
            self.assert_failed(claimed, 1007, case, unfinished=True)

    def test_but_as_long_as_it_may_become_text_it_is_waited_for(self) -> None:
        """Nothing is answered to what is not complete."""
        for text in CUT_SHORT:
            for data in (
                frame(TEXT, AROUND + text, fin=False),
                frame(TEXT, AROUND + text, size=1000),
            ):
                self.assert_answered(data, [], text)

    def test_binary_messages_are_any_bytes(self) -> None:
        """They come back."""
        for _, data in IMPOSSIBLE:
            self.assert_echoed((BINARY, data), (TEXT, AROUND), (BINARY, AROUND + data))
            fragments = b"".join(split(BINARY, [data, data]))
            self.assert_answered(fragments, [(BINARY, data * 2)], data)

    def test_any_bytes_are_judged_as_python_judges_them(self) -> None:
        """In one frame and in fragments."""
        pieces = st.lists(
            st.sampled_from((b"a", *VALID, *CUT_SHORT, *(text for _, text in IMPOSSIBLE)))
            | st.binary(max_size=4),
            min_size=1,
            max_size=4,
        )

        @settings(deadline=None, database=None, max_examples=150)
        @given(pieces)
        @example([b"\xed\xa0\x80", b"\xed\xb0\x80"])
        @example([b"\xf0\x9f", b"\x98\x80"])
        @example([b"\xc0\x80"])
        def hold(pieces: list[bytes]) -> None:
            text = b"".join(pieces)
            try:
                text.decode()
                valid = True
            except UnicodeDecodeError:
                valid = False
            for data in (frame(TEXT, text), b"".join(split(TEXT, pieces))):
                if valid:
                    self.assert_answered(data, [(TEXT, text)], text)
                else:
                    self.assert_failed(data, 1007, text)

        hold()
