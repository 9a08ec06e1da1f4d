"""Which delivered positions are kept, and when."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred, fail

from chatsvc.messages.errors import Code, Refused
from chatsvc.state import ChatState
from chatsvc.store import DeviceKey
from chatsvc.store.memory import MemoryStore
from tests.ears import StateCase
from tests.fakes import DAY, MIB, START, counter, make_clock


class Ledger(MemoryStore):
    """A store that notes what is saved, and refuses what it is told to."""

    refusal: Refused | None = None

    def __init__(self, clock: Any) -> None:
        super().__init__(clock, "epoch-1", retention=30 * DAY, quota=100, max_bytes=MIB)
        self.saved: list[dict[DeviceKey, int]] = []

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        """Note, then save."""
        if self.refusal is not None:
            return fail(self.refusal)
        self.saved.append(dict(positions))
        return super().save_positions(positions)


class Positions(StateCase):
    """What was proven is kept."""

    def setUp(self) -> None:
        """Begin with a store that notes what is saved."""
        super().setUp()
        self.store = Ledger(self.clock)
        self.open(self.store)

    def test_they_are_saved_every_three_seconds(self) -> None:
        """All of that time at once, the highest of each; nothing, where there is nothing."""
        self.clock.advance(3.0)
        self.assertEqual(self.store.saved, [])
        for seq in (5, 7, 6):
            self.state.proven("alice", None, seq)
        self.state.proven("bob", None, 2)
        self.clock.advance(2.9)
        self.assertEqual(self.store.saved, [])
        self.clock.advance(0.1)
        self.assertEqual(self.store.saved, [{("alice", None): 7, ("bob", None): 2}])
        self.clock.advance(3.0)
        self.assertEqual(len(self.store.saved), 1)

    def test_a_device_moves_its_own_position_and_the_users(self) -> None:
        """The user's is the highest that any connection has proven."""
        self.state.proven("alice", "phone", 5)
        self.state.proven("alice", "tablet", 3)
        self.state.save_positions()
        self.assertEqual(
            self.store.saved,
            [{("alice", None): 5, ("alice", "phone"): 5, ("alice", "tablet"): 3}],
        )

    def test_what_could_not_be_saved_is_saved_later(self) -> None:
        """Merged with what was proven meanwhile."""
        self.state.proven("alice", None, 5)
        self.state.proven("bob", None, 5)
        self.store.refusal = Refused(Code.UNAVAILABLE, "not now")
        self.clock.advance(3.0)
        self.state.proven("alice", None, 4)
        self.state.proven("bob", None, 6)
        self.store.refusal = None
        self.clock.advance(3.0)
        self.assertEqual(self.store.saved, [{("alice", None): 5, ("bob", None): 6}])

    def test_a_late_failure_does_not_move_a_position_back(self) -> None:
        """What was proven while the store was asked is higher."""
        answer: Deferred[None] = Deferred()

        class Slow(Ledger):
            def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
                return super().save_positions(positions) if answer.called else answer

        store = Slow(self.clock)
        self.open(store)
        self.state.proven("alice", None, 5)
        self.state.save_positions()
        self.state.proven("alice", None, 8)
        answer.errback(Refused(Code.UNAVAILABLE, "not now"))
        self.state.save_positions()
        self.assertEqual(store.saved, [{("alice", None): 8}])

    def test_a_reader_begins_after_what_was_just_proven(self) -> None:
        """It is saved first, so nothing proven is given again."""
        for text in "abc":
            self.say("bob", "to", "alice", text)
        self.state.proven("alice", None, 2)
        start = self.successResultOf(self.state.start_for("alice", None, None))
        self.assertEqual(start.after, 2)

    def test_stopping_saves_them_and_leaves_no_timer(self) -> None:
        """Nor one of the store."""
        state = ChatState(store := Ledger(clock := make_clock()), clock, counter("s"))
        state.start()
        state.proven("alice", None, 1)
        self.successResultOf(state.stop())
        self.assertEqual(store.saved, [{("alice", None): 1}])
        self.assertEqual(clock.getDelayedCalls(), [])
        self.assertEqual(clock.seconds(), START)
