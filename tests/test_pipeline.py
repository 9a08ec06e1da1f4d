"""The order in which one connection's commands take effect."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.pipeline import AT_ONCE, FEW, MANY, Pipeline


class Said(NamedTuple):
    """A command: whether it overlaps, and whether it is done at once or late."""

    number: int
    overlaps: bool
    answer: str = "late"


class Bench:
    """A pipeline over a store that answers in the order asked, when the test lets it."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.blocked = False
        self.log: list[str] = []
        self.asked: list[Said] = []
        self.reading: list[bool] = []
        self.pipeline: Pipeline[Said] = Pipeline(
            self.run,
            lambda command: command.overlaps,
            self.reading.append,
            lambda: self.blocked,
            self.clock,
        )

    def run(self, command: Said) -> None:
        """Start a command."""
        self.log.append(f"start {command.number}")
        if command.answer == "late":
            self.asked.append(command)
        else:
            self.log.append(f"done {command.number}")
            self.pipeline.done()

    def say(self, *commands: Said) -> None:
        """Push commands, and let as many turns pass as they need."""
        for command in commands:
            self.pipeline.push(command)
            self.pipeline.work()
        self.turns()

    def turns(self) -> None:
        """Let reactor turns pass, until nothing is left for the next."""
        while self.clock.getDelayedCalls():
            self.clock.advance(0)

    def answer(self, count: int = 1) -> None:
        """Let the store answer what it was asked first."""
        while count and self.asked:
            count -= 1
            command = self.asked.pop(0)
            self.log.append(f"done {command.number}")
            self.pipeline.done()
        self.turns()

    def take(self) -> list[str]:
        """What happened since the last time."""
        log, self.log = self.log, []
        return log


class _AtTheBench(SynchronousTestCase):
    def setUp(self) -> None:
        """Begin with nothing said."""
        self.bench = Bench()


class Order(_AtTheBench):
    """What waits for what."""

    def test_commands_that_overlap_start_without_waiting(self) -> None:
        """One after another, in the order said."""
        self.bench.say(*(Said(number, overlaps=True) for number in (1, 2, 3)))
        self.assertEqual(self.bench.take(), ["start 1", "start 2", "start 3"])

    def test_an_exclusive_command_waits_for_all_before_it(self) -> None:
        """Until the last of them is done."""
        self.bench.say(Said(1, overlaps=True), Said(2, overlaps=True), Said(3, overlaps=False))
        self.bench.take()
        self.bench.answer()
        self.assertEqual(self.bench.take(), ["done 1"])
        self.bench.answer()
        self.assertEqual(self.bench.take(), ["done 2", "start 3"])

    def test_an_exclusive_command_holds_up_all_after_it(self) -> None:
        """Those that overlap among themselves too."""
        self.bench.say(Said(1, overlaps=False), Said(2, overlaps=True), Said(3, overlaps=True))
        self.assertEqual(self.bench.take(), ["start 1"])
        self.bench.answer()
        self.assertEqual(self.bench.take(), ["done 1", "start 2", "start 3"])

    def test_nothing_overtakes_a_command_that_waits(self) -> None:
        """What could start by itself stays behind it."""
        self.bench.say(Said(1, overlaps=True), Said(2, overlaps=False), Said(3, overlaps=True))
        self.assertEqual(self.bench.take(), ["start 1"])

    def test_what_is_done_at_once_holds_up_nothing(self) -> None:
        """Before `run` returns."""
        self.bench.say(Said(1, overlaps=False, answer="now"), Said(2, overlaps=False, answer="now"))
        self.assertEqual(self.bench.take(), ["start 1", "done 1", "start 2", "done 2"])

    def test_whether_it_overlaps_is_asked_just_before(self) -> None:
        """A command may change what the next one is."""
        log: list[str] = []
        settled: list[bool] = []
        pipeline = Pipeline(
            log.append, lambda _: bool(settled), lambda _: None, lambda: False, Clock()
        )
        for command in ("first", "second", "third"):
            pipeline.push(command)
        pipeline.work()
        self.assertEqual(log, ["first"])
        settled.append(True)
        pipeline.done()
        self.assertEqual(log, ["first", "second", "third"])

    def test_a_command_said_while_another_starts_comes_after_it(self) -> None:
        """It does not begin inside of it."""
        log: list[str] = []

        def run(command: str) -> None:
            log.append(f"start {command}")
            if command == "outer":
                pipeline.push("inner")
            log.append(f"done {command}")

        pipeline = Pipeline(run, lambda _: True, lambda _: None, lambda: False, Clock())
        pipeline.push("outer")
        pipeline.work()
        self.assertEqual(log, ["start outer", "done outer", "start inner", "done inner"])

    def test_many_that_are_done_at_once_need_no_stack(self) -> None:
        """Thousands that waited for one start in a loop."""
        self.bench.say(Said(0, overlaps=False))
        self.bench.say(*(Said(n, overlaps=False, answer="now") for n in range(1, 5000)))
        self.bench.answer()
        self.assertEqual(len(self.bench.take()), 10_000)


class TheEnd(_AtTheBench):
    """`when_idle` and `end`."""

    def idle(self) -> None:
        """Note that all is done."""
        self.bench.log.append("idle")

    def test_an_idle_pipeline_says_so_at_once(self) -> None:
        """And once."""
        self.bench.pipeline.when_idle(self.idle)
        self.bench.say(Said(1, overlaps=True, answer="now"))
        self.assertEqual(self.bench.take(), ["idle", "start 1", "done 1"])

    def test_a_busy_one_says_so_when_all_is_done(self) -> None:
        """What waits as well as what is under way; then no more."""
        self.bench.say(Said(1, overlaps=True), Said(2, overlaps=False))
        self.bench.pipeline.when_idle(self.idle)
        self.bench.answer()
        self.bench.answer()
        self.bench.say(Said(3, overlaps=True, answer="now"))
        self.assertEqual(
            self.bench.take(),
            ["start 1", "done 1", "start 2", "done 2", "idle", "start 3", "done 3"],
        )

    def test_what_has_not_started_can_be_forgotten(self) -> None:
        """What has started is still done, and then the pipeline is idle."""
        self.bench.say(Said(1, overlaps=True), Said(2, overlaps=False), Said(3, overlaps=True))
        self.bench.pipeline.end()
        self.bench.pipeline.when_idle(self.idle)
        self.bench.answer()
        self.assertEqual(self.bench.take(), ["start 1", "done 1", "idle"])


class Holding(_AtTheBench):
    """A client that sends faster than its commands are done is not read from."""

    def test_the_numbers_are_256_and_64(self) -> None:
        """As the manual says."""
        self.assertEqual((MANY, FEW), (256, 64))

    def test_reading_stops_at_many_and_goes_on_at_few(self) -> None:
        """Each said once."""
        self.bench.say(*(Said(number, overlaps=True) for number in range(MANY - 1)))
        self.assertEqual(self.bench.reading, [])
        self.bench.say(Said(MANY, overlaps=True), Said(MANY + 1, overlaps=True))
        self.assertEqual(self.bench.reading, [True])
        self.bench.answer(MANY - FEW)
        self.assertEqual(self.bench.reading, [True])
        self.bench.answer()
        self.assertEqual(self.bench.reading, [True, False])
        self.bench.answer(FEW)
        self.assertEqual(self.bench.reading, [True, False])

    def test_what_waits_counts_as_what_is_under_way(self) -> None:
        """Behind an exclusive one too."""
        self.bench.say(*(Said(number, overlaps=False) for number in range(MANY)))
        self.assertEqual(self.bench.reading, [True])
        self.bench.answer(MANY - FEW - 1)
        self.assertEqual(self.bench.reading, [True])
        self.bench.answer()
        self.assertEqual(self.bench.reading, [True, False])


class AnyCommands(SynchronousTestCase):
    """Random commands with answers that come late, in store order."""

    @settings(database=None, deadline=None, max_examples=100)
    @given(
        st.lists(
            st.tuples(st.just("say"), st.booleans(), st.sampled_from(["late", "now"]))
            | st.tuples(st.just("many"), st.integers(1, 300))
            | st.tuples(st.just("answer"), st.integers(1, 300)),
            max_size=12,
        )
    )
    def test_effects_come_in_order_and_exclusive_ones_alone(
        self, steps: list[tuple[str, int | bool, str] | tuple[str, int]]
    ) -> None:
        """Whatever is said and whenever it is answered; all is done in the end."""
        bench = Bench()
        said: list[Said] = []
        for step in steps:
            if step[0] == "answer":
                bench.answer(step[1])
            else:
                for _ in range(step[1] if step[0] == "many" else 1):
                    said.append(
                        Said(len(said), overlaps=True)
                        if len(step) == 2
                        else Said(len(said), overlaps=bool(step[1]), answer=step[2])
                    )
                    bench.say(said[-1])
            self.check(bench, said)
        idle: list[int] = []
        bench.pipeline.when_idle(lambda: idle.append(len(bench.log)))
        while bench.asked:
            self.assertEqual(idle, [])
            bench.answer()
        self.check(bench, said)
        self.assertEqual(idle, [2 * len(said)])

    def check(self, bench: Bench, said: list[Said]) -> None:
        """What has happened is what may have happened, and nothing waits that need not."""
        started = 0
        under_way: set[Said] = set()
        alone: Said | None = None
        held = False
        for event in bench.log:
            word, number = event.split()
            command = said[int(number)]
            if word == "done":
                under_way.remove(command)
                alone = None if command is alone else alone
                continue
            self.assertEqual(int(number), started)
            self.assertIsNone(alone)
            self.assertFalse(under_way and not command.overlaps)
            started += 1
            under_way.add(command)
            alone = None if command.overlaps else command
        if started < len(said):
            self.assertTrue(alone or (under_way and not said[started].overlaps))
        here = len(said) - started + len(under_way)
        for is_held in bench.reading:
            self.assertIs(is_held, not held)
            held = is_held
        if here >= MANY or here <= FEW:
            self.assertIs(held, here >= MANY)


class FairTurns(_AtTheBench):
    """A burst is not the others' wait, nor the server's memory."""

    def burst(self, count: int) -> None:
        """Push commands that are done at once, as from one read of the socket."""
        for number in range(count):
            self.bench.pipeline.push(Said(number, overlaps=False, answer="now"))
        self.bench.pipeline.work()

    def started(self) -> int:
        """How many were started since the last time."""
        return sum(line.startswith("start") for line in self.bench.take())

    def test_a_turn_starts_only_so_many(self) -> None:
        """The rest has the next turns."""
        self.burst(AT_ONCE * 2 + 1)
        self.assertEqual(self.started(), AT_ONCE)
        self.bench.pipeline.work()
        self.assertEqual(self.started(), 0)
        self.bench.turns()
        self.assertEqual(self.started(), AT_ONCE + 1)

    def test_nothing_is_started_while_replies_are_unread(self) -> None:
        """Until the client has read them."""
        self.bench.blocked = True
        self.burst(3)
        self.assertEqual(self.started(), 0)
        self.bench.blocked = False
        self.bench.pipeline.work()
        self.assertEqual(self.started(), 3)

    def test_what_waits_for_its_turn_is_not_idle(self) -> None:
        """`when_idle` comes after the last of it."""
        idle: list[bool] = []
        self.burst(AT_ONCE + 1)
        self.bench.pipeline.when_idle(lambda: idle.append(True))
        self.assertEqual(idle, [])
        self.bench.turns()
        self.assertEqual(idle, [True])

    def test_what_is_cleared_leaves_no_call_behind(self) -> None:
        """Neither commands nor a turn."""
        self.burst(AT_ONCE + 1)
        self.bench.pipeline.end()
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])
