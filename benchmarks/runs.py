"""One run: a server is started, the load is put on it, and a :class:`Sample` comes out.

The figures, of the measured window alone:

- ``rate``: deliveries, connections or replayed messages a second;
- ``p50_ms``, ``p99_ms``: the latency of what ``rate`` counts, from the client that wrote it to the
  one that read it; of a connection from dialling to being ready, of a resumption from ``hello`` to
  ``caught_up``;
- ``user_us``, ``system_us``, ``cpu_us``: the server's time on its core for each of them;
- ``server_share``, ``load_share``, ``others_share``: what the server, the load generator and all
  else on this machine took, in cores;
- ``kib``: the server's memory for each connection, before the window, against having none;
- ``growth_mib``: how far its memory rose in the window above what it had before;
- ``lagging``, ``unsent``, ``errors``: connections that were told to be lagging, messages that were
  not sent because too many were under way, and what should not have happened.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.load import Load, LoadFailed
from benchmarks.results import Sample
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import PEERS, Cores, Memory, Server, ServerFailed, Usage, busy_seconds

__all__ = ["Bench", "figures"]

WINDOW: Final = {"warmup": 2000, "measured": 5000}
QUICK_WINDOW: Final = {"warmup": 500, "measured": 1500}


def figures(
    end: Mapping[str, Any],
    usage: Usage,
    *,
    busy: float,
    connections: int,
    before: Memory,
    ready: Memory,
    peak: int,
) -> dict[str, float]:
    """The figures of a run, from what the load generator said at its ``end`` and the rest."""
    done = end["deliveries"] or end["opened"]
    seconds = end["seconds"]
    load = end["user"] + end["system"]
    found: dict[str, float] = {
        "seconds": seconds,
        "done": done,
        "growth_mib": max(0, peak - ready.resident) / 2**20,
        "lagging": end["lagging"],
        "unsent": end["unsent"],
        "disorder": end["disorder"],
        "errors": end["errors"],
    }
    if connections:
        found["kib"] = (ready.share - before.share) / 1024 / connections
    if done:
        found |= {
            "rate": done / seconds,
            "server_share": sum(usage) / seconds,
            "load_share": load / seconds,
            "others_share": max(0.0, busy - sum(usage) - load) / seconds,
            "p50_ms": end["p50"] / 1000,
            "p99_ms": end["p99"] / 1000,
            "user_us": usage.user / done * 1e6,
            "system_us": usage.system / done * 1e6,
            "cpu_us": sum(usage) / done * 1e6,
        }
    return found


@dataclass(frozen=True)
class Bench:
    """Where runs are made: with which program, on which cores, below which directory."""

    program: Path
    cores: Cores
    directory: Path
    quick: bool

    def variants(self, scenario: str) -> list[str]:
        """The variants of a scenario that are played."""
        chosen = SCENARIOS[scenario]
        if self.quick and chosen.quick_variants is not None:
            return list(chosen.quick_variants)
        return list(chosen.variants)

    def plays(self, scenario: str, peer: str) -> bool:
        """Whether a server is measured in a scenario."""
        wanted, able = SCENARIOS[scenario].peers, PEERS[peer].plays
        return (wanted is None or peer in wanted) and (able is None or scenario in able)

    def options(self, scenario: str, variant: str, peer: str) -> dict[str, str | int]:
        """What the load generator is told."""
        chosen = SCENARIOS[scenario]
        return {
            **(QUICK_WINDOW if self.quick else WINDOW),
            **chosen.load,
            **(chosen.quick if self.quick else {}),
            **chosen.variants[variant],
            **PEERS[peer].options,
        }

    def run(self, scenario: str, variant: str, peer: str, number: int) -> Sample:
        """One run, in round ``number``."""
        try:
            found = self._measure(scenario, variant, peer)
        except (LoadFailed, ServerFailed) as failed:
            text = " ".join(str(failed).split())[-200:]
            return Sample(scenario, variant, peer, number, failure=text)
        return Sample(scenario, variant, peer, number, found)

    def _measure(self, scenario: str, variant: str, peer: str) -> dict[str, float]:
        options = self.options(scenario, variant, peer)
        with Server(PEERS[peer], self.cores, self.directory, self.directory) as server:
            before = server.memory()
            with Load(self.program, {**options, "port": server.port}) as load:
                connections = load.wait_for("ready")["connections"]
                time.sleep(SCENARIOS[scenario].settle)
                ready = server.memory()
                server.forget_peak()
                load.go()
                load.wait_for("begin")
                begun, others = server.usage(), busy_seconds()
                end = load.wait_for("end")
                usage, busy = server.usage().since(begun), busy_seconds() - others
                peak = server.peak()
        if end["errors"]:
            raise LoadFailed(end["error"])
        if end["disorder"]:
            raise LoadFailed(f"{end['disorder']} messages came out of order")
        return figures(
            end,
            usage,
            busy=busy,
            connections=connections,
            before=before,
            ready=ready,
            peak=peak,
        )
