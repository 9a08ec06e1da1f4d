"""The servers that are measured: how each is started, and what it takes.

:data:`PEERS` is the table of them. :class:`Server` is one that runs, pinned to the core that
:class:`Cores` keeps for servers, in a directory of its own. What it takes is read from ``/proc``:
the time of all its threads on a core, and the memory that is its own.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple, Self

import chatsvc

__all__ = [
    "OURS",
    "PEERS",
    "Cores",
    "Memory",
    "Peer",
    "Server",
    "ServerFailed",
    "Usage",
    "allow_files",
    "busy_seconds",
]

TWISTD: Final = Path(sys.executable).absolute().parent / "twistd"
RELAYS: Final = Path(__file__).with_name("peers")
START_TIMEOUT: Final = 20.0
STOP_TIMEOUT: Final = 10.0
OURS: Final = "chatsvc"
MOST_CONNECTIONS: Final = 20_000
_TICKS: Final = os.sysconf("SC_CLK_TCK")


class ServerFailed(Exception):
    """A server did not start, or did not stay."""


# --- who there is ---


@dataclass(frozen=True)
class Peer:
    """A server that can be measured.

    ``command`` gives what starts it, for a port, in the directory it runs in, and with the
    directory of programs that were installed for the benchmarks. ``needs`` gives how to install
    what is missing, or None. ``dialect`` is what it speaks; ours acknowledges besides. ``plays``
    are the only scenarios in which it can be, if not all.
    """

    what: str
    command: Callable[[int, Path, Path], Sequence[str]]
    needs: Callable[[Path], str | None] = lambda _: None
    dialect: str = "relay"
    plays: frozenset[str] | None = None

    @property
    def options(self) -> dict[str, str | int]:
        """What the load generator is told of it."""
        return {"dialect": self.dialect, "acks": int(self.dialect == "chat")}


def _chat(store: str) -> Callable[[int, Path, Path], Sequence[str]]:
    def command(port: int, directory: Path, _: Path) -> Sequence[str]:
        kept = store.format(directory / "chat.sqlite")
        limits = ("--max-connections", str(MOST_CONNECTIONS), "--quota", "1000000000")
        return (sys.executable, str(TWISTD), "-n", "chat", "-p", str(port), "-s", kept, *limits)

    return command


def _relay(name: str) -> Callable[[int, Path, Path], Sequence[str]]:
    return lambda port, _, __: (sys.executable, str(RELAYS / f"{name}_relay.py"), str(port))


def _modules(*names: str) -> Callable[[Path], str | None]:
    def needs(_: Path) -> str | None:
        missing = [name for name in names if importlib.util.find_spec(name) is None]
        return f"pip install {' '.join(missing)}" if missing else None

    return needs


def _ws_command(port: int, _: Path, installed: Path) -> Sequence[str]:
    modules = f"NODE_PATH={installed / 'node' / 'node_modules'}"
    return ("env", modules, "node", str(RELAYS / "ws_relay.js"), str(port))


def _ws_needs(installed: Path) -> str | None:
    if shutil.which("node") is None:
        return "apt-get install nodejs npm"
    if not (installed / "node" / "node_modules" / "ws").exists():
        return f"npm install --prefix {installed / 'node'} ws"
    return None


def _mosquitto_command(port: int, directory: Path, _: Path) -> Sequence[str]:
    settings = directory / "mosquitto.conf"
    settings.write_text(
        f"listener 0 {directory / 'socket'}\n"  # without one of this kind it does not start
        f"listener {port} 127.0.0.1\nprotocol websockets\nallow_anonymous true\n"
        "set_tcp_nodelay true\nmax_queued_messages 0\nuser root\n"
    )
    return (_mosquitto() or "mosquitto", "-c", str(settings))


def _mosquitto() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _mosquitto_needs(_: Path) -> str | None:
    return None if _mosquitto() else "apt-get install mosquitto"


PEERS: Final[dict[str, Peer]] = {
    OURS: Peer(
        "this server: stored in SQLite with an fsync, acknowledged",
        _chat("sqlite:{}"),
        dialect="chat",
    ),
    "chatsvc-memory": Peer(
        "this server: kept in memory, acknowledged", _chat("memory:512"), dialect="chat"
    ),
    "websockets": Peer(
        "relay on `websockets` and uvloop", _relay("websockets"), _modules("websockets", "uvloop")
    ),
    "picows": Peer(
        "relay on `picows` (Cython), uvloop and orjson",
        _relay("picows"),
        _modules("picows", "uvloop", "orjson"),
    ),
    "autobahn": Peer("relay on Autobahn as in its examples", _relay("autobahn")),
    "ws": Peer("relay on Node's `ws`", _ws_command, _ws_needs),
    "mosquitto": Peer(
        "Mosquitto, MQTT 3.1.1 with QoS 0 over WebSocket",
        _mosquitto_command,
        _mosquitto_needs,
        dialect="mqtt",
        plays=frozenset({"fanout-1000", "fanout-10x100", "groups-200x50", "idle"}),
    ),
}


# --- where they run ---


@dataclass(frozen=True)
class Cores:
    """One core for the server and the others for the load; the same where there is one only."""

    server: frozenset[int]
    load: frozenset[int]

    @classmethod
    def of_this_machine(cls) -> Self:
        """The last core that this process may use is the server's."""
        usable = sorted(os.sched_getaffinity(0))
        return cls(frozenset(usable[-1:]), frozenset(usable[:-1] or usable))

    @contextlib.contextmanager
    def as_server(self) -> Iterator[None]:
        """What is started in here runs on the server's core."""
        os.sched_setaffinity(0, self.server)
        try:
            yield
        finally:
            os.sched_setaffinity(0, self.load)


def allow_files() -> None:
    """Let this process and those it starts have as many open files as the machine allows."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


# --- what they take ---


class Usage(NamedTuple):
    """Seconds on a core, of all threads, since a process began."""

    user: float
    system: float

    @classmethod
    def read(cls, stat: str) -> Self:
        """From the text of ``/proc/PID/stat``, where the name of the program may have spaces."""
        fields = stat.rpartition(")")[2].split()
        return cls(int(fields[11]) / _TICKS, int(fields[12]) / _TICKS)

    def since(self, before: Usage) -> Usage:
        """What was taken after ``before``."""
        return Usage(self.user - before.user, self.system - before.system)


class Memory(NamedTuple):
    """Bytes of a process now: ``resident``, and its ``share``, where shared pages count in part."""

    resident: int
    share: int

    @classmethod
    def read(cls, rollup: str) -> Self:
        """From the text of ``/proc/PID/smaps_rollup``."""
        sizes = dict(re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE))
        return cls(int(sizes["Rss"]) * 1024, int(sizes["Pss"]) * 1024)


def busy_seconds() -> float:
    """Seconds that all cores of this machine together have worked, for whomever."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return (sum(map(int, fields)) - int(fields[3]) - int(fields[4])) / _TICKS


class Server:
    """``peer``, running; a context manager that leaves nothing behind.

    It keeps what it stores below ``where``, which must be a real disk for the figures to mean
    anything, and ``installed`` is where programs for the benchmarks are.
    """

    def __init__(self, peer: Peer, cores: Cores, where: Path, installed: Path) -> None:
        self._peer = peer
        self._cores = cores
        self._where = where
        self._installed = installed
        self._open = contextlib.ExitStack()
        self.port = _free_port()

    def __enter__(self) -> Self:
        directory = Path(self._open.enter_context(TemporaryDirectory(dir=self._where)))
        self._log = directory / "out.log"
        # The server that is measured is the one beside this package, wherever twistd comes from.
        paths = [str(Path(chatsvc.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
        with self._log.open("wb") as log, self._cores.as_server():
            self._process = subprocess.Popen(
                self._peer.command(self.port, directory, self._installed),
                cwd=directory,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._open.close()

    def _wait(self) -> None:
        """Wait until the port answers as a WebSocket server does."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise ServerFailed(f"{self._peer.what}: {self.log}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        request = (
            f"GET /ws?user=probe HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nUpgrade: websocket\r\n"
            "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            f"{'Sec-WebSocket-Protocol: mqtt' if self._peer.dialect == 'mqtt' else 'X: x'}\r\n\r\n"
        )
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as probe:
                probe.sendall(request.encode())
                return probe.recv(12) == b"HTTP/1.1 101"
        except OSError:
            return False

    @property
    def log(self) -> str:
        """All that the server has written."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def usage(self) -> Usage:
        """The time it has taken so far."""
        return Usage.read(Path(f"/proc/{self._process.pid}/stat").read_text())

    def memory(self) -> Memory:
        """The memory it has now."""
        return Memory.read(Path(f"/proc/{self._process.pid}/smaps_rollup").read_text())

    def forget_peak(self) -> None:
        """Let :meth:`peak` begin here."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5")

    def peak(self) -> int:
        """The most bytes that were resident since."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * 1024 if found else 0
