"""The real ``chatsvc`` beside a real server that is written to meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from threading import Event, Thread

from tests.caller import Caller
from tests.calls import Calls
from tests.server import Server, until
from tests.test_transfer import GOLDEN


class BesideAServer(Calls):
    """The server goes on, and what is made has all that was acknowledged before."""

    def setUp(self) -> None:
        """Start a server, and somebody who writes without a pause."""
        super().setUp()
        self.server = self.enterContext(Server(directory=self.directory))
        self.acknowledged = 0
        self.enough = Event()
        self.writing = Thread(target=self.write)
        self.writing.start()
        self.addCleanup(self.stop_writing)
        until(lambda: self.acknowledged > 50, "some messages are stored")

    def write(self) -> None:
        """Send messages to bob, one after another."""
        with Caller(self.server.url, "alice") as alice:
            number = 0
            while not self.enough.is_set():
                number += 1
                answer = alice.ask(id=number, to="bob", msg=str(number), key=str(number))
                self.acknowledged = answer["seq"]

    def stop_writing(self) -> None:
        """Stop the writer, and look that nothing went wrong."""
        self.enough.set()
        self.writing.join()

    def stop(self) -> str:
        """Stop the server; the epoch it had."""
        self.stop_writing()
        with Caller(self.server.url, program=True) as bob:
            epoch = bob.hello("bob")["epoch"]
        self.server.stop()
        self.assertNotIn("Traceback", self.server.log)
        return str(epoch)

    def told(self, store: Path) -> tuple[str, list[str]]:
        """What a server on a log tells bob: the epoch, and what he has missed."""
        with (
            Server("--store", f"sqlite:{store}") as server,
            Caller(server.url, program=True) as bob,
        ):
            epoch = bob.hello("bob", since=0)["epoch"]
            frames = bob.take_until(event="caught_up")
            self.assertNotIn("Traceback", server.log)
        return str(epoch), [frame["msg"] for frame in frames if "msg" in frame]

    def test_a_backup_is_another_log_with_all_of_this(self) -> None:
        """Under an epoch of its own; and what comes later is not in it."""
        before = self.acknowledged
        self.do("backup", "copy.sqlite")
        after = self.acknowledged
        until(lambda: self.acknowledged > after + 20, "the server goes on")
        old_epoch = self.stop()
        epoch, messages = self.told(self.directory / "copy.sqlite")
        self.assertNotEqual(epoch, old_epoch)
        self.assertEqual(messages, [str(number + 1) for number in range(len(messages))])
        self.assertGreaterEqual(len(messages), before)
        self.assertLessEqual(len(messages), after + 1)

    def test_an_export_is_of_one_moment(self) -> None:
        """With all that was acknowledged before; a new server serves it, under its epoch."""
        before = self.acknowledged
        self.do("export", "lines")
        after = self.acknowledged
        until(lambda: self.acknowledged > after + 20, "the server goes on")
        self.assertEqual(self.do("check"), b"ok\n")
        old_epoch = self.stop()
        header, *lines = (self.directory / "lines").read_text().splitlines()
        head = json.loads(header)["head"]
        for kind in ("entry", "key"):
            found = [json.loads(line) for line in lines if f'"type":"{kind}"' in line]
            self.assertEqual(sorted(each["seq"] for each in found), list(range(1, head + 1)))
        self.assertGreaterEqual(head, before)
        self.assertLessEqual(head, after + 1)
        self.do("import", "lines", "--store", "sqlite:new.sqlite")
        epoch, messages = self.told(self.directory / "new.sqlite")
        self.assertEqual(epoch, old_epoch)
        self.assertEqual(messages, [str(number + 1) for number in range(head)])

    def test_an_import_is_refused(self) -> None:
        """The server would not know of it."""
        (self.directory / "lines").write_bytes(GOLDEN)
        status, _, errors = self.call("import", "lines")
        self.assertEqual(status, 1)
        self.assertRegex(
            errors, r"\Achatsvc: .*chat.sqlite is in use by another server \(process \d+\)\n\Z"
        )
        self.stop()
