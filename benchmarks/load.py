"""The load generator: compiled when it is first needed, and run on the cores that are its own.

Its source, ``load.c``, says what it does. :class:`Load` is one run of it: it has connected and
waits when it is made, and goes through its phases as it is asked.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Self

__all__ = ["SOURCE", "Load", "LoadFailed", "compile_load", "find_compiler"]

SOURCE: Final = Path(__file__).with_name("load.c")
FLAGS: Final = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Werror")


class LoadFailed(Exception):
    """The load generator could not do what it was asked for, and said why."""


def find_compiler() -> str | None:
    """A C compiler, if there is one."""
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")


def compile_load(directory: Path) -> Path:
    """The program, compiled into ``directory`` unless it is there.

    :raises LoadFailed: there is no compiler, or it does not like the source.
    """
    compiler = find_compiler()
    if compiler is None:
        raise LoadFailed("a C compiler is needed: apt-get install gcc libc6-dev")
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:12]
    program = directory / f"load-{digest}"
    if not program.exists():
        directory.mkdir(parents=True, exist_ok=True)
        made = subprocess.run(
            [compiler, *FLAGS, "-o", str(program), str(SOURCE)],
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        if made.returncode != 0:
            raise LoadFailed(made.stderr)
    return program


class Load:
    """One run of ``program`` with ``options``; a context manager that ends it in any case."""

    def __init__(self, program: Path, options: Mapping[str, str | int]) -> None:
        self._process = subprocess.Popen(
            [str(program), *(f"{key}={value}" for key, value in options.items())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def wait_for(self, phase: str) -> dict[str, Any]:
        """What it says when it has come to ``phase``.

        :raises LoadFailed: it ended before.
        """
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadFailed(self._process.stderr.read().strip() or "the load generator ended")
        said: dict[str, Any] = json.loads(line)
        if said["phase"] != phase:
            raise LoadFailed(f"{said['phase']} came before {phase}")
        return said

    def go(self) -> None:
        """Let it go on from where it is ready."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
