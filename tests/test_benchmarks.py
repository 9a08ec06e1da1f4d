"""The benchmarks: how their figures are made of what was measured; nothing looks at a clock."""

from __future__ import annotations

import contextlib
import io
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase, skipUnless

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.__main__ import main
from benchmarks.load import Load, LoadFailed, compile_load, find_compiler
from benchmarks.results import Results, Sample, Spread, goals_table, rows_table, tables
from benchmarks.runs import Bench, figures
from benchmarks.scenarios import FIGURES, SCENARIOS, How
from benchmarks.servers import OURS, PEERS, Cores, Memory, Usage
from tests.server import Server

ABOUT = {"date": "a day", "machine": "a machine", "rounds": 3, "quick": False, "versions": {}}

END = {
    "seconds": 2.0,
    "deliveries": 1000,
    "opened": 0,
    "acks": 1000,
    "lagging": 0,
    "unsent": 0,
    "disorder": 0,
    "errors": 0,
    "p50": 1500.0,
    "p99": 2500.0,
    "user": 0.25,
    "system": 0.5,
}
"""What the load generator says of a window."""


def results(**rates: list[float | None]) -> Results:
    """Three rounds of pairs-32: for each server its rates, None where a run failed."""
    samples = [
        Sample("pairs-32", "", peer, number, {"rate": rate, "load_share": 0.5})
        if rate is not None
        else Sample("pairs-32", "", peer, number, failure="it fell over")
        for peer, of_rounds in rates.items()
        for number, rate in enumerate(of_rounds, 1)
    ]
    return Results(dict(ABOUT), samples)


class Ratios(SynchronousTestCase):
    """Servers are compared within a round."""

    def ratio(self, taken: Results, peer: str = "websockets") -> Spread | None:
        """Ours against a peer's."""
        return taken.compared("pairs-32", "rate", ("", OURS), ("", peer))

    def test_the_median_of_the_rounds_ratios_counts(self) -> None:
        """Not the ratio of the medians, which may be from different rounds."""
        taken = results(chatsvc=[10.0, 40.0, 90.0], websockets=[10.0, 10.0, 100.0])
        self.assertEqual(self.ratio(taken), Spread(1.0, 0.9, 4.0))

    def test_a_round_in_which_one_failed_is_left_out(self) -> None:
        """What the other did then is compared with nothing."""
        taken = results(chatsvc=[10.0, None, 90.0], websockets=[10.0, 10.0, 30.0])
        self.assertEqual(self.ratio(taken), Spread(2.0, 1.0, 3.0))
        self.assertIn("failed: it fell over", rows_table(taken))

    def test_what_was_not_played_has_no_ratio(self) -> None:
        """Nor has what was never in the same round."""
        self.assertIsNone(self.ratio(results(chatsvc=[10.0])))
        self.assertIsNone(self.ratio(results(chatsvc=[10.0, None], websockets=[None, 10.0])))

    def test_a_difference_is_taken_within_a_round_too(self) -> None:
        """As a ratio is."""
        taken = results(chatsvc=[10.0, 40.0], websockets=[1.0, 50.0])
        found = taken.compared("pairs-32", "rate", ("", OURS), ("", "websockets"), How.DIFFERENCE)
        self.assertEqual(found, Spread(-0.5, -10.0, 9.0))


class Tables(SynchronousTestCase):
    """What is told of the figures."""

    def line(self, table: str, *words: str) -> str:
        """The only line that has all of the words."""
        (line,) = [line for line in table.splitlines() if all(word in line for word in words)]
        return line

    def test_a_row_has_its_ratio_and_range(self) -> None:
        """And ours has none, against itself."""
        table = rows_table(results(chatsvc=[100.0, 200.0, 300.0], websockets=[100.0] * 3))
        self.assertIn("| 200 (100 to 300) |  |", self.line(table, "| chatsvc |"))
        self.assertIn("| 100 | 2 × (1 to 3) |", self.line(table, "| websockets |"))

    def test_a_row_says_when_the_load_may_have_been_the_limit(self) -> None:
        """By a mark behind its share."""
        taken = results(chatsvc=[100.0], websockets=[100.0])
        for sample in taken.samples:
            sample.figures["server_share"] = 1.0
        taken.samples[1].figures["load_share"] = 0.9
        table = rows_table(taken)
        self.assertIn("| 100%, 50% |", self.line(table, "| chatsvc |"))
        self.assertIn("| 100%, 90% ! |", self.line(table, "| websockets |"))

    def test_a_goal_is_reached_or_not(self) -> None:
        """At least twice the relay's, four times if it can be."""
        for rate, verdict in ((399.0, "| reached |"), (400.0, "| aim reached |")):
            table = goals_table(results(chatsvc=[rate], websockets=[100.0]))
            self.assertIn(verdict, self.line(table, "pairs-32"))
        table = goals_table(results(chatsvc=[199.0], websockets=[100.0]))
        self.assertIn("| 1.99 × websockets | at least 2 × | 4 × | **not reached** |", table)
        self.assertIn("| not measured |", goals_table(results(chatsvc=[199.0])))

    def test_of_some_figures_less_is_better(self) -> None:
        """Such as what a connection costs."""
        samples = [
            Sample("accept", "", OURS, 1, {"cpu_us": 50.0}),
            Sample("accept", "", "autobahn", 1, {"cpu_us": 100.0}),
        ]
        table = goals_table(Results(dict(ABOUT), samples))
        self.assertIn("| 0.5 × autobahn | at most 0.6 × | 0.4 × | reached |", table)

    def test_disturbed_runs_are_counted(self) -> None:
        """Something else on the machine makes figures worth less."""
        taken = results(chatsvc=[100.0, 100.0])
        for sample, share in zip(taken.samples, (0.01, 0.5), strict=True):
            sample.figures["others_share"] = share
        self.assertIn("In 1 of 2 runs something else", tables(taken))

    def test_what_is_swept_can_be_left_to_the_plots(self) -> None:
        """Its rows are many."""
        taken = Results(dict(ABOUT), [Sample("clients", "20", OURS, 1, {"rate": 1.0})])
        self.assertIn("clients 20", tables(taken))
        self.assertNotIn("clients 20", tables(taken, swept=False))

    def test_json_brings_back_the_same(self) -> None:
        """So that a run can be told of again."""
        taken = results(chatsvc=[100.0, None])
        self.assertEqual(Results.from_json(taken.to_json()), taken)


class Readings(SynchronousTestCase):
    """What is read of a process, and made of it."""

    def test_times_are_read_behind_any_name(self) -> None:
        """The name of a program may look like the rest of the line."""
        ticks = os.sysconf("SC_CLK_TCK")
        stat = f"7 (a) R 9 (b) S 1 2 3 4 5 6 7 8 9 10 {2 * ticks} {ticks} 0 0 20 0 1 0 0"
        self.assertEqual(Usage.read(stat), Usage(2.0, 1.0))
        self.assertEqual(Usage(2.0, 1.0).since(Usage(0.5, 0.25)), Usage(1.5, 0.75))

    def test_memory_is_read_in_bytes(self) -> None:
        """`Pss` is not `Pss_Anon`."""
        rollup = "00-ff ---p 0 00:00 0 [rollup]\nRss:    20 kB\nPss:  10 kB\nPss_Anon:  9 kB\n"
        self.assertEqual(Memory.read(rollup), Memory(20 * 1024, 10 * 1024))

    def measured(self, end: dict[str, Any], connections: int = 100) -> dict[str, float]:
        """The figures of a run in which the server took 2 s and 1 MiB, and the rest 0.25 s."""
        return figures(
            end,
            Usage(1.5, 0.5),
            busy=3.0,
            connections=connections,
            before=Memory(0, 1024 * 1024),
            ready=Memory(3 * 2**20, 2 * 2**20),
            peak=5 * 2**20,
        )

    def test_figures_are_per_delivery(self) -> None:
        """And the memory is per connection."""
        found = self.measured(END)
        self.assertEqual((found["rate"], found["p50_ms"], found["p99_ms"]), (500.0, 1.5, 2.5))
        self.assertEqual((found["user_us"], found["system_us"]), (1500.0, 500.0))
        self.assertEqual((found["kib"], found["growth_mib"]), (10.24, 2.0))
        shares = (found["server_share"], found["load_share"], found["others_share"])
        self.assertEqual(shares, (1.0, 0.375, 0.125))

    def test_figures_are_per_connection_where_nothing_is_sent(self) -> None:
        """As when 500 are made."""
        found = self.measured({**END, "deliveries": 0, "opened": 500}, connections=0)
        self.assertEqual((found["rate"], found["cpu_us"]), (250.0, 4000.0))
        self.assertNotIn("kib", found)

    def test_nothing_done_has_no_rate(self) -> None:
        """Idle connections have memory only."""
        found = self.measured({**END, "deliveries": 0})
        self.assertNotIn("rate", found)
        self.assertIn("kib", found)


class TheTable(SynchronousTestCase):
    """The scenarios fit together."""

    def test_every_scenario_names_what_there_is(self) -> None:
        """Its servers, its figures, and the variants of its goals."""
        for scenario in SCENARIOS.values():
            self.assertLessEqual(set(scenario.peers or ()), set(PEERS))
            self.assertLessEqual(set(scenario.quick_variants or ()), set(scenario.variants))
            self.assertIn(scenario.figure, FIGURES)
            for goal in scenario.goals:
                self.assertIn(goal.figure, FIGURES)
                self.assertIn(goal.against, PEERS)
                self.assertIn(goal.variant, scenario.variants)

    def test_a_quick_run_differs_as_the_scenario_says(self) -> None:
        """The rest stays."""
        long, quick = (
            Bench(Path(), Cores(frozenset(), frozenset()), Path(), quick=quick).options(
                "accept", "", OURS
            )
            for quick in (False, True)
        )
        self.assertEqual((long["bystanders"], quick["bystanders"]), (10_000, 3000))
        self.assertEqual(long["mode"], quick["mode"])

    def test_the_command_tells_of_a_run_again(self) -> None:
        """From what is kept of it; and writes the table beside."""
        with TemporaryDirectory() as name:
            directory = Path(name)
            kept = results(chatsvc=[300.0], websockets=[100.0]).to_json()
            (directory / "results.json").write_text(kept)
            told, progress = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(told), contextlib.redirect_stderr(progress):
                self.assertEqual(main(["--redraw", "--out", name]), 0)
            self.assertIn("| 3 × |", told.getvalue())
            self.assertEqual((directory / "table.md").read_text(), told.getvalue())


@skipUnless(find_compiler(), "there is no C compiler")
class TheLoad(TestCase):
    """The load generator, against the real server."""

    def setUp(self) -> None:
        """Compile it, with every warning an error."""
        directory = Path(self.enterContext(TemporaryDirectory()))
        self.program = compile_load(directory)

    def play(self, **options: str | int) -> dict[str, Any]:
        """What it says at the end of a run."""
        with (
            Server("--store", "memory:64") as server,
            Load(self.program, {"port": server.port, **options}) as load,
        ):
            load.wait_for("ready")
            load.go()
            load.wait_for("begin")
            end = load.wait_for("end")
            self.assertNotIn("Traceback", server.log)
            return end

    def check(self, end: dict[str, Any], **wanted: int) -> None:
        """It counted this, and nothing went wrong."""
        self.assertEqual((end["errors"], end["error"], end["disorder"]), (0, "", 0))
        self.assertEqual({name: end[name] for name in wanted}, wanted)

    def test_each_message_of_a_pair_comes_once_and_is_acknowledged(self) -> None:
        """Two pairs, 50 messages each."""
        end = self.play(shape="pairs", pairs=2, window=7, messages=50)
        self.check(end, sent=100, deliveries=100, acks=100)

    def test_each_message_to_a_topic_comes_to_all_its_subscribers(self) -> None:
        """Two topics, three subscribers each."""
        end = self.play(shape="fanout", senders=2, receivers=3, window=3, messages=20)
        self.check(end, sent=40, deliveries=120, acks=40)

    def test_a_large_message_comes_whole(self) -> None:
        """Its length is written in another way."""
        end = self.play(shape="pairs", pairs=1, window=2, messages=10, text=5000)
        self.check(end, sent=10, deliveries=10, acks=10)

    def test_connections_are_counted_when_they_have_said_hello(self) -> None:
        """More than are made at the same time."""
        end = self.play(mode="connect", shape="alone", bystanders=30, dial=7)
        self.check(end, opened=30, deliveries=0)

    def test_who_comes_back_gets_all_that_was_missed(self) -> None:
        """Two users, 300 messages each."""
        end = self.play(mode="resume", shape="alone", bystanders=2, messages=300, window=20)
        self.check(end, opened=2, deliveries=600)

    def test_what_it_does_not_know_is_an_error(self) -> None:
        """Rather than something else being measured."""
        for option in ({"shape": "square"}, {"colour": "red"}):
            with Load(self.program, option) as load, self.assertRaises(LoadFailed):
                load.wait_for("ready")
