"""Draws what came out: one SVG for each question.

Colours stay with their servers in every plot. The files are the same for the same figures, so that
a change of them in the repository is a change of the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.results import Results
from benchmarks.servers import PEERS

__all__ = ["draw"]

COLOURS: Final = dict(
    zip(
        PEERS,
        ("#b40426", "#e58368", "#3b6fb6", "#2a9d8f", "#8d6cab", "#7a7a7a", "#c9a227"),
        strict=True,
    )
)
MARKERS: Final = dict(zip(PEERS, "osD^vPX", strict=True))
SIZE: Final = (7.5, 4.2)
CPU_OF: Final = ("pairs-1", "pairs-32", "fanout-1000", "fanout-10x100", "groups-200x50")


def _peers(results: Results, scenario: str) -> list[str]:
    played = {peer for _, peer in results.rows(scenario)}
    return [peer for peer in PEERS if peer in played]


def _lines(axes: Any, results: Results, scenario: str, figure: str, *, style: str = "-") -> None:
    """A figure against the number that is the variant's name, a line for each server."""
    for peer in _peers(results, scenario):
        points = [
            (int(variant.replace(",", "")), spread.middle)
            for variant, of in results.rows(scenario)
            if of == peer and (spread := results.figure(scenario, variant, peer, figure))
        ]
        if points:
            axes.plot(
                *zip(*sorted(points), strict=True),
                style,
                color=COLOURS[peer],
                marker=MARKERS[peer],
                markersize=4,
                label=peer if style == "-" else None,
            )


def _plain(axis: Any) -> None:
    """Plain numbers on an axis."""
    axis.set_major_formatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}")
    axis.set_minor_formatter(NullFormatter())


def _finished(axes: Any, across: str, up: str) -> None:
    """Words on the axes, and a grid."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, which="major", alpha=0.3)
    axes.legend(frameon=False, fontsize="small")


def _clients(results: Results, figure: Any) -> None:
    axes = figure.add_subplot()
    _lines(axes, results, "clients", "rate")
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    _finished(axes, "clients", "deliveries a second")


def _latency(results: Results, figure: Any) -> None:
    axes = figure.add_subplot()
    _lines(axes, results, "latency", "p50_ms")
    _lines(axes, results, "latency", "p99_ms", style=":")
    axes.set_xscale("log")
    axes.set_yscale("log")
    _plain(axes.xaxis)
    _plain(axes.yaxis)
    _finished(axes, "messages offered a second", "ms (line: p50, dots: p99)")


def _memory(results: Results, figure: Any) -> None:
    axes = figure.add_subplot()
    for peer in _peers(results, "idle"):
        points = [(0, 0.0)]
        for variant, of in results.rows("idle"):
            number = int(variant.replace(",", ""))
            spread = results.figure("idle", variant, peer, "kib") if of == peer else None
            if spread is not None:
                points.append((number, spread.middle * number / 1024))
        axes.plot(
            *zip(*sorted(points), strict=True),
            color=COLOURS[peer],
            marker=MARKERS[peer],
            markersize=4,
            label=peer,
        )
    _plain(axes.xaxis)
    _finished(axes, "idle connections", "MiB more than with none")


def _cpu(results: Results, figure: Any) -> None:
    """A bar for each server, in a part of its own for each scenario: their scales differ."""
    scenarios = [name for name in CPU_OF if results.rows(name)]
    for axes, name in zip(
        figure.subplots(1, len(scenarios), squeeze=False)[0], scenarios, strict=True
    ):
        peers = _peers(results, name)
        for place, peer in enumerate(peers):
            user = results.figure(name, "", peer, "user_us")
            system = results.figure(name, "", peer, "system_us")
            if user is None or system is None:
                continue
            edge = {"edgecolor": COLOURS[peer], "linewidth": 0.8}
            axes.bar(place, user.middle, color=COLOURS[peer], **edge)
            axes.bar(place, system.middle, bottom=user.middle, color="none", hatch="////", **edge)
        axes.set_xticks(range(len(peers)), peers, rotation=90, fontsize="small")
        axes.set_title(name, fontsize="small")
        axes.grid(visible=True, axis="y", alpha=0.3)
    figure.supylabel("µs of CPU a delivery (full: user, hatched: system)", fontsize="small")


PLOTS: Final[dict[str, tuple[tuple[str, ...], Callable[[Results, Any], None]]]] = {
    "clients": (("clients",), _clients),
    "latency": (("latency",), _latency),
    "memory": (("idle",), _memory),
    "cpu": (CPU_OF, _cpu),
}
"""Each plot: the scenarios that it needs one of, and what draws it."""


def draw(results: Results, directory: Path) -> list[Path]:
    """Draw the plots of which there are figures into ``directory``; the files."""
    directory.mkdir(parents=True, exist_ok=True)
    mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "chatsvc"})
    drawn = []
    for name, (needed, plot) in PLOTS.items():
        if not any(results.rows(scenario) for scenario in needed):
            continue
        figure = Figure(SIZE, layout="constrained")
        plot(results, figure)
        path = directory / f"{name}.svg"
        figure.savefig(path, metadata={"Date": None})
        drawn.append(path)
    return drawn
