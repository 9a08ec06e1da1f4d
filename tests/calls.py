"""Calls of the real ``chatsvc``, as operators make them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

__all__ = ["Calls"]

BIN = Path(sys.executable).absolute().parent
CHATSVC = BIN / "chatsvc"


class Calls(TestCase):
    """Calls of ``chatsvc`` in a directory of the test's own."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.enterContext(TemporaryDirectory(prefix="chatsvc-")))
        self.path = self.directory / "chat.sqlite"

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Call it, and wait for nothing."""
        given = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(
            [str(CHATSVC), *arguments],
            cwd=self.directory,
            env={**os.environ, "COLUMNS": "80", "LC_ALL": "C.UTF-8"},
            **{**given, **options},
        )

    def call(self, *arguments: str, **options: Any) -> tuple[int, bytes, str]:
        """Call it; its status, its output, and what it says on standard error."""
        with self.start(*arguments, **options) as process:
            output, errors = process.communicate(timeout=60)
        self.assertNotIn(b"Traceback", errors)
        return process.returncode, output or b"", errors.decode()

    def shell(self, script: str) -> tuple[int, bytes, str]:
        """Run a script that calls it; the same."""
        done = subprocess.run(
            ["bash", "-eo", "pipefail", "-c", script],
            cwd=self.directory,
            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"},
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertNotIn(b"Traceback", done.stderr)
        return done.returncode, done.stdout, done.stderr.decode()

    def do(self, *arguments: str, **options: Any) -> bytes:
        """Call it, and it does it without a word on standard error; its output."""
        status, output, errors = self.call(*arguments, **options)
        self.assertEqual((status, errors), (0, ""))
        return output

    def refuse(self, status: int, words: str, *arguments: str) -> None:
        """Call it, and it ends with that status, and one line with the words."""
        before = self.names()
        outcome, output, errors = self.call(*arguments)
        self.assertEqual((outcome, output), (status, b""), errors)
        self.assertRegex(errors, rf"\Achatsvc: [^\n]*{words}[^\n]*\n\Z")
        self.assertEqual(self.names(), before)

    def names(self) -> set[str]:
        """What is in the directory, but for the lock, which may stay."""
        return {path.name for path in self.directory.iterdir()} - {"chat.sqlite.lock"}
