"""What is measured: the table of scenarios, and the figures to reach.

A :class:`Scenario` is what the load generator is told (its options are explained in ``load.c``), in
one or more *variants*, and which servers it is played to. Its *figure* is what servers are
compared by. A :class:`Goal` compares two rows of one scenario, or looks at one.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from benchmarks.servers import OURS

__all__ = ["FIGURES", "SCENARIOS", "Figure", "Goal", "How", "Scenario"]

Options = Mapping[str, str | int]


@dataclass(frozen=True)
class Figure:
    """Something that is measured: its name for people, and whether more of it is better."""

    name: str
    more_is_better: bool = False


FIGURES: Final[dict[str, Figure]] = {
    "rate": Figure("a second", more_is_better=True),
    "cpu_us": Figure("CPU, µs each"),
    "p99_ms": Figure("p99, ms"),
    "kib": Figure("KiB a connection"),
    "growth_mib": Figure("MiB more at the peak"),
}


class How(enum.Enum):
    """What a goal looks at: a row, or one row against another, within a round."""

    VALUE = enum.auto()
    RATIO = enum.auto()
    DIFFERENCE = enum.auto()


@dataclass(frozen=True)
class Goal:
    """A figure to reach: ``least`` in any case, ``aim`` where possible.

    ``variant`` of ours is looked at, against ``base`` of the server ``against``.
    """

    what: str
    figure: str
    how: How
    least: float
    aim: float | None = None
    variant: str = ""
    against: str = OURS
    base: str = ""


@dataclass(frozen=True)
class Scenario:
    """What a crowd does. See the module; ``quick`` is what is different with ``--quick``.

    ``quick_variants`` are those that are played then, all if it is None. ``settle`` is how many
    seconds pass between the last connection and the look at the memory. One that is ``swept`` has
    many rows, which are to be seen in a plot.
    """

    what: str
    load: Options
    variants: Mapping[str, Options] = field(default_factory=lambda: {"": {}})
    peers: tuple[str, ...] | None = None
    figure: str = "rate"
    goals: tuple[Goal, ...] = ()
    quick: Options = field(default_factory=dict)
    quick_variants: tuple[str, ...] | None = None
    settle: float = 0.0
    swept: bool = False


def _against_websockets(what: str, least: float, aim: float) -> tuple[Goal, ...]:
    return (Goal(what, "rate", How.RATIO, least, aim, against="websockets"),)


def _against_autobahn(what: str) -> tuple[Goal, ...]:
    return (Goal(what, "cpu_us", How.RATIO, 0.6, 0.4, against="autobahn"),)


_PAIRS: Final[Options] = {"shape": "pairs", "pairs": 50}
_SHORT: Final[Options] = {"warmup": 300, "measured": 700}

SCENARIOS: Final[dict[str, Scenario]] = {
    "pairs-1": Scenario(
        "50 pairs, 1 message in flight each",
        {**_PAIRS, "window": 1},
        goals=_against_websockets("50 pairs, 1 in flight", 0.5, 0.8),
    ),
    "pairs-32": Scenario(
        "50 pairs, 32 messages in flight each",
        {**_PAIRS, "window": 32},
        goals=_against_websockets("50 pairs, 32 in flight", 2, 4),
    ),
    "signal": Scenario(
        "50 pairs, 32 signals in flight each, of which nothing is stored; relays: as in pairs-32",
        {**_PAIRS, "window": 32, "signal": 1},
        peers=(OURS, "websockets", "picows", "autobahn", "ws"),
        goals=_against_websockets("signals of 50 pairs, 32 in flight", 6, 10),
    ),
    "fanout-1000": Scenario(
        "one sender to a topic of 1,000, 1 message in flight",
        {"shape": "fanout", "senders": 1, "receivers": 1000, "window": 1},
        goals=_against_websockets("one to 1,000", 1, 1.2),
    ),
    "fanout-10x100": Scenario(
        "ten senders, each to a topic of 100, so many messages in flight each",
        {"shape": "fanout", "senders": 10, "receivers": 100},
        variants={"8": {"window": 8}, "32": {"window": 32}},
        goals=(
            Goal(
                "ten senders to 100, 32 in flight",
                *("rate", How.RATIO, 4, 8, "32", "websockets", "32"),
            ),
        ),
    ),
    "groups-200x50": Scenario(
        "200 groups of 50 among 1,000 users, 20 of whom send, 8 messages in flight each",
        {"shape": "groups", "groups": 10, "window": 8},
    ),
    "accept": Scenario(
        "10,000 connections made, 40 at a time",
        {"mode": "connect", "shape": "alone", "bystanders": 10_000, "hello": 0},
        peers=(OURS, "autobahn"),
        figure="cpu_us",
        goals=_against_autobahn("CPU per accepted connection"),
        quick={"bystanders": 3000},
    ),
    "connect": Scenario(
        "10,000 connections made, each says hello; 40 at a time",
        {"mode": "connect", "shape": "alone", "bystanders": 10_000},
        peers=(OURS, "autobahn"),
        figure="cpu_us",
        quick={"bystanders": 3000},
    ),
    "idle": Scenario(
        "connections that have said hello and are silent",
        {"shape": "alone", "measured": 0, "warmup": 0},
        variants={
            "1,000": {"bystanders": 1000},
            "3,000": {"bystanders": 3000},
            "8,000": {"bystanders": 8000},
            "15,000": {"bystanders": 15_000},
        },
        quick_variants=("1,000", "3,000"),
        figure="kib",
        goals=(Goal("memory per idle session, KiB", "kib", How.VALUE, 20, 12, variant="15,000"),),
        settle=1.0,
    ),
    "resume": Scenario(
        "a user comes back to 10,000 missed messages; ten users, one after another",
        {"mode": "resume", "shape": "alone", "bystanders": 10, "messages": 10_000, "window": 256},
        peers=(OURS, "chatsvc-memory"),
        quick={"bystanders": 3},
    ),
    "stuck": Scenario(
        "20 messages of 4 KiB a second to 1,000, of whom so many have stopped reading",
        {
            "shape": "fanout",
            "receivers": 1000,
            "rate": 20,
            "text": 4096,
            "warmup": 4000,
            "measured": 10_000,
        },
        variants={"none": {"stuck": 0}, "10": {"stuck": 10}},
        peers=(OURS,),
        figure="p99_ms",
        goals=(
            Goal("p99 with ten readers stuck", "p99_ms", How.RATIO, 2, None, "10", OURS, "none"),
            Goal("MiB more for them", "growth_mib", How.DIFFERENCE, 10, None, "10", OURS, "none"),
        ),
        quick={"measured": 4000},
    ),
    "scale": Scenario(
        "50 pairs with 32 messages in flight each, among so many connected clients",
        {**_PAIRS, "window": 32},
        variants={"100": {}, "10,000": {"bystanders": 9900}},
        peers=(OURS,),
        goals=(
            Goal("10,000 clients against 100", "rate", How.RATIO, 0.8, None, "10,000", OURS, "100"),
        ),
    ),
    "clients": Scenario(
        "so many clients in pairs, 1,600 messages in flight from all together",
        {"shape": "pairs"},
        variants={
            "20": {"pairs": 10, "window": 160},
            "100": {"pairs": 50, "window": 32},
            "400": {"pairs": 200, "window": 8},
            "1,600": {"pairs": 800, "window": 2},
            "3,200": {"pairs": 1600, "window": 1},
        },
        quick=_SHORT,
        quick_variants=("20", "100", "400"),
        swept=True,
    ),
    "latency": Scenario(
        "50 pairs, so many messages a second from all together",
        _PAIRS,
        variants={
            f"{rate:,}": {"rate": rate}
            for rate in (1000, 5000, 10_000, 20_000, 40_000, 60_000, 80_000, 100_000, 150_000)
        },
        figure="p99_ms",
        quick=_SHORT,
        quick_variants=("1,000", "10,000", "20,000"),
        swept=True,
    ),
}
