"""Text frames, read by another implementation of RFC 6455."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from chatsvc.framing import text_frame

SIZES = (0, 1, 125, 126, 127, 65535, 65536, 524288)


def read(*chunks: bytes) -> list[Frame]:
    """The frames that a client sees in what a server sent."""
    client = ClientProtocol(parse_uri("ws://localhost/"), state=State.OPEN)
    for chunk in chunks:
        client.receive_data(chunk)
    if client.parser_exc is not None:
        raise client.parser_exc
    return [event for event in client.events_received() if isinstance(event, Frame)]


class TextFrames(SynchronousTestCase):
    """What a peer reads."""

    def test_a_peer_reads_what_was_sent_at_every_size(self) -> None:
        """On both sides of where the length changes its form."""
        for size in SIZES:
            payload = b"x" * size
            self.assertEqual(read(text_frame(payload)), [Frame(Opcode.TEXT, payload)])

    def test_each_length_has_its_shortest_form(self) -> None:
        """RFC 6455, section 5.2; nothing is masked."""
        for size, header in (
            (0, "8100"),
            (125, "817d"),
            (126, "817e007e"),
            (65535, "817effff"),
            (65536, "817f0000000000010000"),
        ):
            self.assertEqual(text_frame(b"x" * size), bytes.fromhex(header) + b"x" * size)

    def test_the_same_bytes_as_another_implementation_sends(self) -> None:
        """There is one way to write an unmasked frame."""
        for size in SIZES:
            other = Frame(Opcode.TEXT, b"y" * size).serialize(mask=False)
            self.assertEqual(text_frame(b"y" * size), other)

    @settings(database=None, deadline=None, max_examples=100)
    @given(st.lists(st.text(max_size=200), max_size=5), st.integers(1, 50))
    def test_frames_in_a_row_are_read_in_any_chunks(self, texts: list[str], size: int) -> None:
        """Each says how long it is."""
        sent = b"".join(text_frame(text.encode()) for text in texts)
        chunks = [sent[start : start + size] for start in range(0, len(sent), size)]
        self.assertEqual([bytes(frame.data).decode() for frame in read(*chunks)], texts)
