"""A small disk that can be full: a file system of its own, in memory."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Self
from unittest import SkipTest

__all__ = ["Disk"]


class Disk:
    """A file system of 4 MiB at ``path``; a context manager.

    :raises SkipTest: it cannot be had here.
    """

    def __init__(self) -> None:
        self._place = TemporaryDirectory(prefix="chatsvc-")
        self.path = Path(self._place.name)

    def __enter__(self) -> Self:
        if self._mount("-t", "tmpfs", "-o", "size=4m", "tmpfs", str(self.path)):
            self._place.cleanup()
            raise SkipTest("no file system may be mounted here")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", "-l", str(self.path)], check=True)
        self._place.cleanup()

    @staticmethod
    def _mount(*arguments: str) -> int:
        command = ["mount", *arguments]
        try:
            return subprocess.run(command, check=False, capture_output=True).returncode
        except FileNotFoundError:
            return 1

    def fill(self, *, pages: int = 0) -> None:
        """Leave no room, or that of a few pages."""
        filler = self.path / "filler"
        with suppress(OSError), filler.open("ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        os.truncate(filler, max(0, filler.stat().st_size - pages * 4096))

    def clear(self) -> None:
        """Give back the room."""
        (self.path / "filler").unlink()

    def make_read_only(self) -> None:
        """Let nothing be written any more."""
        assert self._mount("-o", "remount,ro", str(self.path)) == 0
