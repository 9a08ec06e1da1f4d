"""A server that is ended and started again, and what it leaves behind."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

import apsw

from tests.caller import Caller
from tests.server import Server

__all__ = ["Restarting", "soundness"]


def soundness(directory: Path) -> str:
    """What SQLite says of a copy of the file: to mend the file itself is the server's business."""
    with TemporaryDirectory(prefix="chatsvc-") as place:
        for name in ("chat.sqlite", "chat.sqlite-wal"):
            if (directory / name).exists():
                shutil.copy(directory / name, place)
        with closing(apsw.Connection(f"{place}/chat.sqlite")) as connection:
            return str(connection.pragma("integrity_check"))


class Restarting(TestCase):
    """A server that is started again and again, in the same directory and on the same port."""

    def setUp(self) -> None:
        """Start it for the first time."""
        self.directory = Path(self.enterContext(TemporaryDirectory(prefix="chatsvc-")))
        self.port = "0"
        self.start()

    def start(self) -> None:
        """Start it, where it was before."""
        server = Server("--port", self.port, directory=self.directory)
        self.server = self.enterContext(server)
        self.port = str(self.server.port)

    def kill(self) -> None:
        """End it at once."""
        self.server.kill()
        self.check_what_is_left()

    def restart(self) -> None:
        """End it at once, and start it again."""
        self.kill()
        self.start()

    def check_what_is_left(self) -> None:
        """The server that has ended had nothing to be ashamed of, and leaves a sound file."""
        for word in ("Traceback", "Unhandled"):
            self.assertNotIn(word, self.server.log)
        self.assertEqual(soundness(self.directory), "ok")

    def session(self, user: str, **hello: Any) -> Caller:
        """A session, to be closed at the end."""
        caller = self.enterContext(Caller(self.server.url, program=True))
        caller.hello(user, **hello)
        return caller
