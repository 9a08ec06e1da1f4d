"""The end of all connections: who is told when, and what is dropped."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.draining import Draining


class Guest:
    """A connection that is asked to leave; ``done`` is what it calls when its commands are."""

    def __init__(self) -> None:
        self.done: Callable[[], None] | None = None
        self.heard: list[str] = []

    def finish(self, then: Callable[[], None]) -> None:
        """Keep whom to tell."""
        self.done = then

    def farewell(self) -> None:
        """Note it."""
        self.heard.append("farewell")

    def abort(self) -> None:
        """Note it."""
        self.heard.append("abort")


class DrainingTheHouse(SynchronousTestCase):
    """Two guests, and a clock."""

    def setUp(self) -> None:
        """Begin."""
        self.clock = Clock()
        self.guests = [Guest(), Guest()]
        self.here = dict.fromkeys(self.guests)
        self.draining = Draining(self.here.keys(), self.clock)
        self.gone = self.draining.begin()

    def finish(self, guest: Guest) -> None:
        """A guest's commands are done."""
        assert guest.done is not None
        guest.done()

    def leave(self, guest: Guest) -> None:
        """A guest's connection is lost."""
        del self.here[guest]
        self.draining.lost(guest)

    def test_nobody_is_told_before_all_have_finished(self) -> None:
        """Then all are, each once."""
        one, two = self.guests
        self.finish(one)
        self.assertEqual((one.heard, two.heard), ([], []))
        self.finish(two)
        self.assertEqual((one.heard, two.heard), (["farewell"], ["farewell"]))

    def test_who_is_lost_is_not_waited_for(self) -> None:
        """It counts as finished, and as gone."""
        one, two = self.guests
        self.leave(one)
        self.finish(two)
        self.assertEqual((one.heard, two.heard), ([], ["farewell"]))
        self.assertNoResult(self.gone)
        self.leave(two)
        self.assertIsNone(self.successResultOf(self.gone))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_who_does_not_finish_is_told_all_the_same(self) -> None:
        """After two seconds; and dropped three seconds later."""
        one, two = self.guests
        self.finish(one)
        self.clock.advance(2)
        self.assertEqual((one.heard, two.heard), (["farewell"], ["farewell"]))
        self.leave(one)
        self.clock.advance(2.9)
        self.assertEqual(two.heard, ["farewell"])
        self.clock.advance(0.1)
        self.assertEqual(two.heard, ["farewell", "abort"])

    def test_an_empty_house_is_drained_at_once(self) -> None:
        """And leaves no timer."""
        draining = Draining((), self.clock)
        self.assertIsNone(self.successResultOf(draining.begin()))
        self.finish(self.guests[0])
        for guest in self.guests:
            self.leave(guest)
        self.assertEqual(self.clock.getDelayedCalls(), [])
