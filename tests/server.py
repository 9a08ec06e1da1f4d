"""The real server as a process of its own: ``twistd -n chat`` of the installed package.

:class:`Server` starts it in a directory of its own and reads its log for the address;
:func:`run` is for starts that are expected to end by themselves.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

__all__ = ["CHAT_TAC", "TWISTD", "Outcome", "Server", "run", "until"]

# Beside the interpreter as it was called: a virtual environment's is a link to another place.
TWISTD = Path(sys.executable).absolute().parent / "twistd"
CHAT_TAC = Path(__file__).absolute().parent.parent / "chat.tac"

START_TIMEOUT = 15.0
STOP_TIMEOUT = 10.0

_LISTENING = re.compile(r"\] listening on (\S+)")
_READY = re.compile(r"\] storing ")


def until(condition: Callable[[], bool], what: str, timeout: float = 5.0) -> None:
    """Wait until ``condition`` holds.

    :raises AssertionError: it does not in time.
    """
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what}")
        time.sleep(0.01)


class Outcome(NamedTuple):
    """How a process ended: its exit status, None if it had to be killed, and all it wrote."""

    status: int | None
    output: str


def _environment() -> dict[str, str]:
    # Error messages and help are compared with what is promised, line breaks included.
    return {**os.environ, "PYTHONUNBUFFERED": "1", "COLUMNS": "80", "LC_ALL": "C.UTF-8"}


def run(*arguments: str, timeout: float = 10.0, directory: Path | None = None) -> Outcome:
    """Run twistd with ``arguments`` until it ends; killed if that takes too long.

    It runs in ``directory``, or in one of its own.
    """
    with TemporaryDirectory(prefix="chatsvc-") as own:
        process = subprocess.Popen(
            [str(TWISTD), *arguments],
            cwd=directory or own,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
            return Outcome(None, output)
        return Outcome(process.returncode, output)


class Server:
    """A running server; a context manager that leaves nothing behind.

    ``options`` are those of ``twistd chat``; without ``--port`` or ``--listen`` it takes a free
    port. With ``tac`` it is ``twistd -ny`` of that file instead. It runs in ``directory``, so that
    another finds there what it left, or in one of its own. ``under`` is a command that runs it.
    """

    def __init__(
        self,
        *options: str,
        tac: Path | None = None,
        directory: Path | None = None,
        under: Sequence[str] = (),
    ) -> None:
        if tac is not None:
            self._arguments = ["-ny", str(tac)]
        else:
            given = any(option.startswith(("--port", "--listen", "-p")) for option in options)
            self._arguments = ["-n", "chat", *options, *([] if given else ["--port", "0"])]
        self._given = directory
        self._under = under
        self._process: subprocess.Popen[bytes] | None = None
        self._open = contextlib.ExitStack()
        self._log = Path()
        self.directory = Path()

    def __enter__(self) -> Self:
        self.begin()
        try:
            until(self._ready, "the server listens", START_TIMEOUT)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def begin(self) -> None:
        """Start the process, and wait for nothing."""
        own = Path(self._open.enter_context(TemporaryDirectory(prefix="chatsvc-")))
        self.directory = self._given or own
        self._log = own / "out.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [*self._under, str(TWISTD), *self._arguments],
                cwd=self.directory,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def _ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise AssertionError(f"twistd ended with {self._process.returncode}:\n{self.log}")
        return _READY.search(self.log) is not None

    @property
    def log(self) -> str:
        """All that the server has written so far."""
        return self._log.read_text(encoding="utf-8")

    @property
    def places(self) -> list[str]:
        """Where the server says that it listens."""
        return _LISTENING.findall(self.log)

    @property
    def url(self) -> str:
        """The first of the addresses."""
        return self.places[0]

    @property
    def port(self) -> int:
        """The TCP port of the first of the addresses."""
        return int(self.url.removesuffix("/ws").rpartition(":")[2])

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send the process a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def terminate(self) -> None:
        """Ask the server to stop, by SIGTERM."""
        self.send(signal.SIGTERM)

    def kill(self) -> None:
        """End the process at once, by SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self, timeout: float = STOP_TIMEOUT) -> int:
        """The exit status, once the process has ended.

        :raises AssertionError: it does not end in time.
        """
        assert self._process is not None
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s:\n{self.log}") from None

    def stop(self) -> int:
        """Ask the server to stop, and wait until it has."""
        self.terminate()
        return self.wait()

    def close(self) -> None:
        """End the process in any case, and remove its directory."""
        if self.running:
            self.terminate()
            try:
                self.wait()
            except AssertionError:
                self.kill()
        self._open.close()
