"""``python -m benchmarks``: plays the scenarios, prints the table, writes figures and plots."""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final

from benchmarks.load import LoadFailed, compile_load
from benchmarks.results import Results, tables
from benchmarks.runs import Bench
from benchmarks.scenarios import SCENARIOS
from benchmarks.servers import OURS, PEERS, Cores, allow_files

DOCS: Final = Path(__file__).parent.parent / "docs"
PAGE: Final = DOCS / "performance.md"
MARKS: Final = ("<!-- results -->", "<!-- end of results -->")
ROUNDS: Final = 5


def _names(known: Sequence[str]) -> Any:
    def parse(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name} is none of {', '.join(known)}")
        return [name for name in known if name in names]

    return parse


def _arguments(words: Sequence[str]) -> argparse.Namespace:
    listed = "\n".join(
        [
            "scenarios:",
            *(f"  {name:15}{scenario.what}" for name, scenario in SCENARIOS.items()),
            "servers:",
            *(f"  {name:15}{peer.what}" for name, peer in PEERS.items()),
        ]
    )
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures the server against relays on other stacks, on this machine.",
        epilog=listed,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="short windows, small crowds, one round: 5 minutes")
    add("--only", type=_names(list(SCENARIOS)), metavar="SCENARIO,...", help="these scenarios")
    add("--peers", type=_names(list(PEERS)), metavar="SERVER,...", help="ours and these servers")
    add("--rounds", type=int, help=f"rounds; {ROUNDS} unless told, 1 with --quick")
    add(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path.home() / ".cache" / "chatsvc-benchmarks",
        help="where results, plots and the databases are written: a real disk (%(default)s)",
    )
    add("--redraw", action="store_true", help="measure nothing; tell of the last run in DIR again")
    add("--docs", action="store_true", help="put table and plots into docs/performance.md")
    return parser.parse_args(words)


def _model() -> str:
    found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found[1] if found else platform.machine()


def _versions() -> dict[str, str]:
    found = {"Python": platform.python_version(), "Linux": platform.release()}
    for package in ("chatsvc", "autobahn", "twisted", "websockets", "picows", "uvloop"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _about(*, quick: bool, rounds: int) -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{len(os.sched_getaffinity(0))} × {_model()}",
        "rounds": rounds,
        "quick": quick,
        "versions": _versions(),
    }


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - it is a command


def _available(wanted: Sequence[str] | None, directory: Path) -> list[str]:
    """Ours, and those of the ``wanted`` servers, or of all, that are installed."""
    found = []
    for name, peer in PEERS.items():
        if wanted is not None and name != OURS and name not in wanted:
            continue
        missing = peer.needs(directory)
        if missing is None:
            found.append(name)
        else:
            _say(f"{name} is left out, because it is not installed: {missing}")
    return found


def measure(arguments: argparse.Namespace) -> Results:
    """Play the scenarios, round by round.

    Every other round has the servers in the opposite order, so that what drifts favours none.
    """
    directory: Path = arguments.out
    rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    results = Results(_about(quick=arguments.quick, rounds=rounds))
    peers = _available(arguments.peers, directory)
    cores = Cores.of_this_machine()
    if cores.server == cores.load:
        _say("there is one core only: what is measured is the server and the load together")
    allow_files()
    os.sched_setaffinity(0, cores.load)
    bench = Bench(compile_load(directory), cores, directory, arguments.quick)
    for number in range(1, rounds + 1):
        for name in arguments.only or SCENARIOS:
            for variant in bench.variants(name):
                played = [peer for peer in peers if bench.plays(name, peer)]
                for peer in played if number % 2 else reversed(played):
                    sample = bench.run(name, variant, peer, number)
                    results.samples.append(sample)
                    rate = sample.figures.get("rate")
                    told = sample.failure or ("" if rate is None else f"{rate:,.0f} a second")
                    _say(f"{number}/{rounds} {name} {variant} {peer}: {told}")
    return results


def put_into_docs(text: str) -> None:
    """Replace what stands between the marks of the page."""
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    _, _, after = rest.partition(MARKS[1])
    PAGE.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{after}")


def main(words: Sequence[str]) -> int:
    """Do what the command line says; the exit status."""
    arguments = _arguments(words)
    directory: Path = arguments.out.absolute()
    arguments.out = directory
    directory.mkdir(parents=True, exist_ok=True)
    kept = directory / "results.json"
    try:
        results = Results.from_json(kept.read_text()) if arguments.redraw else measure(arguments)
    except LoadFailed as failed:
        _say(str(failed))
        return 1
    kept.write_text(results.to_json())
    text = tables(results)
    (directory / "table.md").write_text(f"{text}\n")
    print(text)  # noqa: T201 - it is a command
    if arguments.docs:
        put_into_docs(tables(results, swept=False))
    try:
        from benchmarks.plots import draw  # noqa: PLC0415 - only where it can be
    except ImportError:
        _say("no plots are drawn, because matplotlib is not installed: pip install matplotlib")
        return 0
    for path in draw(results, directory):
        _say(f"drawn: {path}")
    if arguments.docs:
        draw(results, DOCS / "performance")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
