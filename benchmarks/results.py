"""What came out: samples, compared within their rounds, as a table and as JSON.

A :class:`Sample` is one run. Two rows are compared by the figures of the same round, because the
machine is not the same from one minute to the next: a ratio is the median of the rounds' ratios,
with the lowest and the highest beside it. A run that failed has no figures and is in no ratio.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any, Final, NamedTuple, Self

from benchmarks.scenarios import FIGURES, SCENARIOS, Goal, How, Scenario
from benchmarks.servers import OURS

__all__ = ["Results", "Sample", "Spread", "goals_table", "rows_table", "tables"]

BUSY: Final = 0.85
"""Share of its core from which on the load generator may have been the limit."""
DISTURBED: Final = 0.1
"""Cores that anything else may take before a run is called disturbed."""


@dataclass(frozen=True)
class Sample:
    """One run of a scenario's variant on a server; what went wrong is in ``failure``."""

    scenario: str
    variant: str
    peer: str
    round: int
    figures: dict[str, float] = field(default_factory=dict)
    failure: str = ""


class Spread(NamedTuple):
    """The median of the rounds, the lowest and the highest."""

    middle: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self | None:
        """None if there are no values."""
        return cls(median(values), min(values), max(values)) if values else None


@dataclass
class Results:
    """All samples, and ``about``: where and how they were taken."""

    about: dict[str, Any]
    samples: list[Sample] = field(default_factory=list)

    def to_json(self) -> str:
        """For :meth:`from_json`, and for others."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What :meth:`to_json` wrote."""
        said = json.loads(text)
        return cls(said["about"], [Sample(**sample) for sample in said["samples"]])

    def rows(self, scenario: str) -> list[tuple[str, str]]:
        """The (variant, peer) of which there are samples, in the order in which they were first."""
        return list(dict.fromkeys((s.variant, s.peer) for s in self._of(scenario)))

    def _of(self, scenario: str) -> Iterator[Sample]:
        return (sample for sample in self.samples if sample.scenario == scenario)

    def by_round(self, scenario: str, variant: str, peer: str, figure: str) -> dict[int, float]:
        """A row's figure in each round in which there is one."""
        return {
            sample.round: sample.figures[figure]
            for sample in self._of(scenario)
            if (sample.variant, sample.peer) == (variant, peer) and figure in sample.figures
        }

    def figure(self, scenario: str, variant: str, peer: str, figure: str) -> Spread | None:
        """A row's figure."""
        return Spread.of(list(self.by_round(scenario, variant, peer, figure).values()))

    def compared(
        self,
        scenario: str,
        figure: str,
        row: tuple[str, str],
        base: tuple[str, str],
        how: How = How.RATIO,
    ) -> Spread | None:
        """One row against another, both as (variant, peer), within each round."""
        ours = self.by_round(scenario, *row, figure)
        theirs = self.by_round(scenario, *base, figure)
        both = [(ours[n], theirs[n]) for n in ours if n in theirs]
        if how is How.DIFFERENCE:
            return Spread.of([a - b for a, b in both])
        return Spread.of([a / b for a, b in both if b])

    def reached(self, scenario: str, goal: Goal) -> Spread | None:
        """What was measured of a goal; of the largest variant if its own was not played."""
        variant = goal.variant
        variants = [v for v, _ in self.rows(scenario)]
        if goal.how is How.VALUE:
            chosen = variant if variant in variants or not variants else variants[-1]
            return self.figure(scenario, chosen, OURS, goal.figure)
        row, base = (variant, OURS), (goal.base, goal.against)
        return self.compared(scenario, goal.figure, row, base, goal.how)

    def failures(self, scenario: str) -> list[Sample]:
        """The runs that failed."""
        return [sample for sample in self._of(scenario) if sample.failure]


# --- as text ---


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(spread: Spread | None, sign: str = "") -> str:
    if spread is None:
        return "-"
    middle, low, high = (_number(value) for value in spread)
    return f"{middle}{sign}" if low == high else f"{middle}{sign} ({low} to {high})"


def _middle(spread: Spread | None) -> str:
    return "-" if spread is None else _number(spread.middle)


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(goal: Goal, measured: Spread | None) -> str:
    if measured is None:
        return "not measured"
    sign = 1 if FIGURES[goal.figure].more_is_better else -1
    if goal.aim is not None and sign * measured.middle >= sign * goal.aim:
        return "aim reached"
    return "reached" if sign * measured.middle >= sign * goal.least else "**not reached**"


def goals_table(results: Results) -> str:
    """The figures to reach, and what was measured of them."""
    rows = []
    for name, scenario in SCENARIOS.items():
        for goal in scenario.goals:
            if not results.rows(name):
                continue
            measured = results.reached(name, goal)
            times = " ×" if goal.how is How.RATIO else ""
            bound = "at least" if FIGURES[goal.figure].more_is_better else "at most"
            to_reach = f"{bound} {goal.least:g}{times}"
            aim = "" if goal.aim is None else f"{goal.aim:g}{times}"
            against = f" {goal.against}" if goal.against != OURS else ""
            rows.append(
                (
                    f"{goal.what} ({name})",
                    f"{_spread(measured, times)}{against}",
                    to_reach,
                    aim,
                    _verdict(goal, measured),
                )
            )
    return _table(("figure", "measured", "to reach", "aim", ""), rows)


def _row(results: Results, name: str, scenario: Scenario, row: tuple[str, str]) -> Sequence[str]:
    variant, peer = row
    failures = [s.failure for s in results.failures(name) if (s.variant, s.peer) == row]

    def figure(key: str) -> Spread | None:
        return results.figure(name, variant, peer, key)

    user, system = figure("user_us"), figure("system_us")
    cpu = "-" if user is None or system is None else f"{user.middle:.1f} + {system.middle:.1f}"
    server, load = figure("server_share"), figure("load_share")
    mark = " !" if load is not None and load.middle > BUSY else ""
    shares = "-" if server is None or load is None else f"{server.middle:.0%}, {load.middle:.0%}"
    main = results.compared(name, scenario.figure, (variant, OURS), row)
    return (
        f"{name} {variant}".strip(),
        peer,
        f"failed: {failures[0]}" if failures else _spread(figure("rate")),
        "" if peer == OURS else _spread(main, " ×"),
        _middle(figure("p50_ms")),
        _middle(figure("p99_ms")),
        cpu,
        _middle(figure("kib")) if scenario.figure == "kib" else "",
        shares + mark,
    )


def rows_table(results: Results, *, swept: bool = True) -> str:
    """What each server did in each scenario; of those that are swept only where it is wanted."""
    rows = [
        _row(results, name, scenario, row)
        for name, scenario in SCENARIOS.items()
        if swept or not scenario.swept
        for row in results.rows(name)
    ]
    heads = (
        "scenario",
        "server",
        "a second",
        "ours ÷ it",
        "p50, ms",
        "p99, ms",
        "CPU each, µs (user + system)",
        "KiB a connection",
        "busy: server, load",
    )
    return _table(heads, rows)


def tables(results: Results, *, swept: bool = True) -> str:
    """Both tables, and where they are from, as Markdown; see :func:`rows_table`."""
    about = results.about
    measured = [s.figures["others_share"] for s in results.samples if "others_share" in s.figures]
    disturbed = sum(share > DISTURBED for share in measured)
    rounds = f"{about['rounds']} round{'s' if about['rounds'] != 1 else ''}"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    taken = (
        f"Measured {about['date']} on {about['machine']}, {rounds}"
        f"{' (quick)' if about['quick'] else ''}; {versions}. In {disturbed} of {len(measured)} "
        f"runs something else on the machine took more than {DISTURBED:.0%} of a core."
    )
    return "\n\n".join((taken, goals_table(results), rows_table(results, swept=swept)))
