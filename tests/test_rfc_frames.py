"""One frame by RFC 6455: its size, mask, reserved bits, opcode and length, and our limit."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

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
from tests.peer import OPTIONS
from tests.stranger import EchoCase

SIZES: Final = (0, 1, 125, 126, 127, 128, 65535, 65536)
"""On both sides of where a length changes its form."""
RESERVED_DATA: Final = (3, 4, 5, 6, 7)
RESERVED_CONTROL: Final = (11, 12, 13, 14, 15)
RSV1: Final = 4
COMPRESSION: Final = b"Sec-WebSocket-Extensions: permessage-deflate\r\n"


class Sizes(EchoCase):
    """Messages in one frame."""

    options = replace(OPTIONS, max_message=100_000)

    def test_every_size_comes_back_as_what_it_was(self) -> None:
        """Text as text, binary as binary."""
        for size in SIZES:
            self.assert_echoed((TEXT, b"*" * size))
            self.assert_echoed((BINARY, b"\xfe" * size))

    def test_any_cut_of_the_bytes_is_the_same_message(self) -> None:
        """A message as large as the limit, in pieces of many sizes."""
        for size in (1399, 4096, 65_535, 65_536):
            stranger = self.connect()
            stranger.feed(frame(TEXT, b"*" * 100_000), size)
            self.assert_frames(stranger.take(), [(TEXT, b"*" * 100_000)], size)

    def test_messages_in_one_piece_come_back_in_their_order(self) -> None:
        """Of both kinds, empty ones among them."""
        self.assert_echoed((TEXT, b"a"), (BINARY, b""), (TEXT, b""), (BINARY, b"b"), (TEXT, b"c"))
        self.assert_echoed(*[(TEXT, b"%d" % number) for number in range(100)])


class Masks(EchoCase):
    """What a client sends is masked."""

    def test_every_mask_is_taken_off(self) -> None:
        """That of zeros too; each frame has its own."""
        for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\1", b"****"):
            data = frame(TEXT, b"*****", mask=mask) + frame(BINARY, b"12345678")
            self.assert_answered(data, [(TEXT, b"*****"), (BINARY, b"12345678")], mask)

    def test_what_looks_like_a_frame_within_a_payload_is_none(self) -> None:
        """Neither when it is masked nor, under a mask of zeros, as it stands."""
        for seeming in (frame(TEXT, b"no frame"), frame(PING), closing(1000)):
            for mask in (b"\0\0\0\0", b"\xff\xff\xff\xff"):
                data = frame(BINARY, seeming, mask=mask)
                self.assert_answered(data, [(BINARY, seeming)], seeming)
                data = frame(PING, seeming, mask=mask)
                self.assert_answered(data, [(PONG, seeming)], seeming)
                data = frame(BINARY, seeming, fin=False, mask=mask)
                data += frame(CONTINUATION, seeming, mask=mask)
                self.assert_answered(data, [(BINARY, seeming * 2)], seeming)

    def test_a_frame_without_a_mask_fails_the_connection(self) -> None:
        """Whatever it is, and whatever was sent before."""
        for opcode in (TEXT, BINARY, PING, PONG):
            for payload in (b"", b"bare"):
                self.assert_failed(frame(opcode, payload, mask=None), 1002, opcode)
        data = frame(TEXT, b"fine") + frame(TEXT, b"bare", mask=None)
        self.assert_failed(data, 1002, "the second", [(TEXT, b"fine")])
        self.assert_failed(frame(CLOSE, b"\x03\xe8", mask=None), 1002, "a Close")
        data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", mask=None)
        self.assert_failed(data, 1002, "the second fragment")


class ReservedBits(EchoCase):
    """They mean nothing where no extension was agreed on."""

    def test_a_reserved_bit_fails_the_connection(self) -> None:
        """Each of the three, and all of them together, in frames of every kind."""
        for rsv in range(1, 8):
            for opcode in (TEXT, BINARY, PING, PONG, CLOSE):
                case = f"bits {rsv} of opcode {opcode}"
                self.assert_failed(frame(opcode, rsv=rsv), 1002, case)
                if opcode != CLOSE:
                    self.assert_failed(frame(opcode, b"some", rsv=rsv), 1002, case)

    def test_what_was_sent_before_is_answered(self) -> None:
        """What is sent after has no effect."""
        for rsv in range(1, 8):
            data = frame(TEXT, b"first") + frame(PING, b"ping") + frame(TEXT, b"second", rsv=rsv)
            for more in (b"", frame(PING, b"more"), frame(TEXT, b"third")):
                before = [(TEXT, b"first"), (PONG, b"ping")]
                self.assert_failed(data + more, 1002, f"bits {rsv} before {more!r}", before)

    def test_a_reserved_bit_in_a_later_fragment_fails_the_connection(self) -> None:
        """The message is not taken."""
        for rsv in range(1, 8):
            data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=rsv)
            self.assert_failed(data, 1002, rsv)

    def test_compression_uses_the_first_bit_and_no_other(self) -> None:
        """And that of a message's first frame only."""
        for rsv in (1, 2, 3, 5, 6, 7):
            data = frame(TEXT, b"\x02\x00", rsv=rsv)
            self.assert_failed(data, 1002, rsv, headers=COMPRESSION)
        for opcode in (PING, PONG):
            data = frame(opcode, rsv=RSV1)
            self.assert_failed(data, 1002, opcode, headers=COMPRESSION)
        data = frame(TEXT, b"a", fin=False) + frame(CONTINUATION, b"b", rsv=RSV1)
        self.assert_failed(data, 1002, "a later fragment", headers=COMPRESSION)
        data = frame(TEXT, b"plain")
        self.assert_answered(data, [(TEXT, b"plain")], "no bit", headers=COMPRESSION)


class Opcodes(EchoCase):
    """Those that mean nothing yet."""

    def test_a_reserved_opcode_fails_the_connection(self) -> None:
        """With a payload or without."""
        for opcode in RESERVED_DATA + RESERVED_CONTROL:
            for payload in (b"", b"some"):
                self.assert_failed(frame(opcode, payload), 1002, opcode)

    def test_what_was_sent_before_is_answered(self) -> None:
        """What is sent after has no effect."""
        for opcode in RESERVED_DATA + RESERVED_CONTROL:
            for payload in (b"", b"some"):
                data = frame(TEXT, b"fine") + frame(opcode, payload) + frame(PING)
                self.assert_failed(data, 1002, opcode, [(TEXT, b"fine")])

    def test_within_a_fragmented_message_too(self) -> None:
        """The message is not taken."""
        for opcode in RESERVED_DATA + RESERVED_CONTROL:
            begin, end = split(TEXT, [b"a", b"b"])
            self.assert_failed(begin + frame(opcode, b"some") + end, 1002, opcode)


class Lengths(EchoCase):
    """How a length is written."""

    def test_a_length_that_could_be_shorter_fails_the_connection(self) -> None:
        """RFC 6455, section 5.2: the minimal number of bytes must be used."""
        for opcode in (TEXT, BINARY):
            for size, width in ((0, 2), (1, 2), (125, 2), (0, 8), (125, 8), (126, 8), (65535, 8)):
                case = f"{size} in {width} bytes, opcode {opcode}"
                self.assert_failed(frame(opcode, b"*" * size, width=width), 1002, case)

    def test_the_highest_bit_of_a_length_must_be_zero(self) -> None:
        """What cannot come to an end is dropped in time."""
        for size in (1 << 63, (1 << 64) - 1):
            for opcode in (TEXT, BINARY):
                self.assert_failed(frame(opcode, size=size), 1002, size, unfinished=True)


class Limits(EchoCase):
    """The longest message that is taken, which is that of `--max-message`."""

    options = replace(OPTIONS, max_message=1000)

    def test_a_message_of_just_the_right_size_is_taken(self) -> None:
        """In one frame or in many."""
        self.assert_echoed((TEXT, b"*" * 1000), (BINARY, b"*" * 1000))
        for pieces in ([b"*" * 500] * 2, [b"*"] * 1000, [b"", b"*" * 1000, b""]):
            data = b"".join(split(TEXT, pieces))
            self.assert_answered(data, [(TEXT, b"*" * 1000)], len(pieces))

    def test_a_frame_beyond_it_fails_the_connection(self) -> None:
        """With 1009; what was sent before is answered."""
        for opcode in (TEXT, BINARY):
            for size in (1001, 2000, 65536):
                data = frame(TEXT, b"fine") + frame(opcode, b"*" * size)
                self.assert_failed(data, 1009, size, [(TEXT, b"fine")])

    def test_its_end_is_not_waited_for(self) -> None:
        """The length it claims is enough."""
        for size in (1001, 65536, 1 << 32, (1 << 63) - 1):
            self.assert_failed(frame(TEXT, size=size), 1009, size, unfinished=True)

    def test_the_fragments_of_a_message_count_together(self) -> None:
        """The one that is too much ends it, before its payload has come."""
        for opcode in (TEXT, BINARY):
            whole = b"".join(split(opcode, [b"*" * 500, b"*" * 500, b"*"]))
            self.assert_failed(whole, 1009, opcode)
            begin = frame(opcode, b"*" * 999, fin=False)
            claim = frame(CONTINUATION, size=2)
            self.assert_failed(begin + claim, 1009, opcode, unfinished=True)
        many = b"".join(split(TEXT, [b"*" * 9] * 112))
        self.assert_failed(many, 1009, "many")

    def test_messages_do_not_count_together(self) -> None:
        """Each begins at nothing."""
        self.assert_echoed(*[(TEXT, b"*" * 900)] * 20)
        fragmented = b"".join(split(TEXT, [b"*" * 450] * 2))
        self.assert_answered(fragmented * 20, [(TEXT, b"*" * 900)] * 20, "fragmented")

    def test_control_frames_do_not_count(self) -> None:
        """However many come within a message."""
        begin, end = split(TEXT, [b"*" * 500, b"*" * 500])
        data = begin + frame(PING, b"*" * 125) * 20 + end + closing()
        self.assert_closed(data, [*[(PONG, b"*" * 125)] * 20, (TEXT, b"*" * 1000)], "pings")
