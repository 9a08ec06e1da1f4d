"""What a pong proves."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.proof import WINDOW, Position, Proof


class PingsAndPongs(SynchronousTestCase):
    """An exact echo of the outstanding ping proves what was written before it."""

    def setUp(self) -> None:
        """Begin with a connection on which nothing was written."""
        self.proof = Proof(itertools.count(1))

    def test_an_echo_proves_the_seq_of_the_ping(self) -> None:
        """And all that was written up to then."""
        self.proof.written += 100
        payload = self.proof.ping(7, 1.0)
        self.assertFalse(self.proof.complete)
        self.assertEqual(self.proof.echo(payload), 7)
        self.assertTrue(self.proof.complete)

    def test_what_is_written_after_the_ping_is_not_proven_by_it(self) -> None:
        """Only the next one proves it."""
        self.proof.written += 100
        payload = self.proof.ping(7, 1.0)
        self.proof.written += 1
        self.assertEqual(self.proof.echo(payload), 7)
        self.assertFalse(self.proof.complete)
        self.assertEqual(self.proof.echo(self.proof.ping(8, 2.0)), 8)
        self.assertTrue(self.proof.complete)

    def test_only_an_exact_echo_counts(self) -> None:
        """Nothing else changes anything, and the ping stays outstanding."""
        self.assertIsNone(self.proof.echo(b""))
        self.proof.written += 1
        payload = self.proof.ping(7, 1.0)
        for other in (b"", b"7", b"8 1", payload + b" ", payload[:-1], b"0" + payload):
            self.assertIsNone(self.proof.echo(other))
            self.assertFalse(self.proof.complete)
        self.assertEqual(self.proof.echo(payload), 7)

    def test_an_echo_counts_once(self) -> None:
        """A repeated one proves nothing, not even after a later ping of the same seq."""
        payload = self.proof.ping(7, 1.0)
        self.proof.echo(payload)
        self.assertIsNone(self.proof.echo(payload))
        self.proof.written += 1
        later = self.proof.ping(7, 2.0)
        self.assertNotEqual(later, payload)
        self.assertIsNone(self.proof.echo(payload))
        self.assertFalse(self.proof.complete)

    def test_streams_of_one_connection_share_their_numbers(self) -> None:
        """A late echo to an earlier one proves nothing of the later."""
        numbers = itertools.count(1)
        early = Proof(numbers).ping(7, 1.0)
        proof = Proof(numbers)
        proof.ping(7, 1.0)
        self.assertIsNone(proof.echo(early))

    def test_a_ping_tells_since_when_it_waits(self) -> None:
        """And when the last one went out, also after its echo."""
        self.assertEqual(self.proof.last_ping, float("-inf"))
        self.assertIsNone(self.proof.outstanding)
        payload = self.proof.ping(7, 5.0)
        assert self.proof.outstanding is not None
        self.assertEqual((self.proof.outstanding.since, self.proof.outstanding.seq), (5.0, 7))
        self.proof.echo(payload)
        self.assertIsNone(self.proof.outstanding)
        self.assertEqual(self.proof.last_ping, 5.0)

    def test_a_payload_fits_into_a_control_frame(self) -> None:
        """At most 125 bytes (RFC 6455, section 5.5), and it names the seq."""
        payload = Proof(itertools.count(2**63)).ping(2**63, 1.0)
        self.assertLessEqual(len(payload), 125)
        self.assertIn(str(2**63).encode(), payload)

    def test_a_window_of_256_kib_may_be_unproven(self) -> None:
        """Then there is no room until an echo."""
        self.assertEqual(WINDOW, 262_144)
        self.proof.written += WINDOW - 1
        self.assertTrue(self.proof.has_room)
        self.proof.written += 1
        self.assertFalse(self.proof.has_room)
        payload = self.proof.ping(1, 1.0)
        self.proof.written += WINDOW - 1
        self.assertFalse(self.proof.has_room)
        self.proof.echo(payload)
        self.assertTrue(self.proof.has_room)


class ProofModel(RuleBasedStateMachine):
    """Writes, pings and all manner of echoes, against a list of what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.proof = Proof(itertools.count(1))
        self.written = self.proven = 0
        self.pings: list[tuple[bytes, int, int]] = []
        self.open = False

    @rule(size=st.sampled_from([1, 100, WINDOW // 2, WINDOW]))
    def write(self, size: int) -> None:
        """Something is written."""
        self.proof.written += size
        self.written += size

    @rule(seq=st.integers(0, 3))
    def ping(self, seq: int) -> None:
        """A ping goes out, one at a time."""
        if not self.open:
            self.pings.append((self.proof.ping(seq, 0.0), seq, self.written))
            self.open = True

    @rule(back=st.integers(1, 4))
    def echo(self, back: int) -> None:
        """One of the last pings is echoed, perhaps again."""
        if back > len(self.pings):
            return
        payload, seq, written = self.pings[-back]
        if back == 1 and self.open:
            assert self.proof.echo(payload) == seq
            self.proven, self.open = written, False
        else:
            assert self.proof.echo(payload) is None

    @rule(payload=st.binary(max_size=4))
    def pong(self, payload: bytes) -> None:
        """A pong comes that nobody asked for (RFC 6455, section 5.5.3)."""
        if payload not in [ping[0] for ping in self.pings]:
            assert self.proof.echo(payload) is None

    @invariant()
    def the_counts_agree(self) -> None:
        """What is proven is what the last good echo covered."""
        assert self.proof.complete == (self.written == self.proven)
        assert self.proof.has_room == (self.written - self.proven < WINDOW)
        assert (self.proof.outstanding is not None) == self.open


class AnyExchange(SynchronousTestCase):
    """Writes, pings and echoes in any order."""

    def test_nothing_is_proven_but_by_the_right_echo(self) -> None:
        """As the list of what was written says."""
        run_state_machine_as_test(
            ProofModel,
            settings=settings(
                database=None, deadline=None, max_examples=60, stateful_step_count=30
            ),
        )


class WhereAUserIs(SynchronousTestCase):
    """`Position`: what counts, and when."""

    def setUp(self) -> None:
        """Nothing has counted."""
        self.reached: list[int] = []

    def test_pongs_count_until_the_client_says_itself(self) -> None:
        """Then only its word does, and a pong says it again."""
        position = Position(self.reached.append, provisional=False)
        position.echoed(3)
        position.acknowledge(2)
        position.echoed(9)
        position.acknowledge(1)
        self.assertEqual(self.reached, [3, 2, 2, 2])

    def test_under_a_provisional_name_nothing_counts_before_it_is_confirmed(self) -> None:
        """And nothing at all if it was not the own one."""
        for own, expected in ((True, [4, 6]), (False, [6])):
            self.reached.clear()
            position = Position(self.reached.append, provisional=True)
            position.echoed(4)
            position.echoed(3)
            self.assertEqual(self.reached, [])
            position.confirm(own=own)
            position.confirm(own=True)
            position.echoed(6)
            self.assertEqual(self.reached, expected)
