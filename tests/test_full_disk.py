"""The real server on a disk that is full, and on files and disks that it cannot use."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import TestCase

import apsw

from tests.caller import Caller
from tests.chance import chance
from tests.disk import Disk
from tests.restarting import soundness
from tests.server import Outcome, Server, run, until


class Filling(TestCase):
    """The disk becomes full while the server runs."""

    def setUp(self) -> None:
        """A server that keeps its log on the small disk, and everything else elsewhere."""
        self.disk = self.enterContext(Disk())
        self.path = self.disk.path / "chat.sqlite"
        self.acknowledged: list[str] = []
        self.refused: list[str] = []
        self.start()

    def tearDown(self) -> None:
        """Nothing that happened is a defect of the server."""
        self.assertNotIn("Traceback", self.server.log)
        self.assertNotIn("Unhandled", self.server.log)

    def start(self) -> None:
        """Start the server."""
        self.server = self.enterContext(Server("--store", f"sqlite:{self.path}"))

    def call(self, user: str) -> Caller:
        """A plain connection, to be closed at the end."""
        return self.enterContext(Caller(self.server.url, user))

    def session(self, user: str, **hello: Any) -> tuple[Caller, list[dict[str, Any]]]:
        """A session, to be closed at the end, and the messages that it had missed."""
        caller = self.enterContext(Caller(self.server.url, program=True))
        caller.hello(user, **hello)
        return caller, caller.take_until(event="caught_up")[:-1]

    def send(self, caller: Caller) -> bool:
        """Send a message to bob; whether it was taken."""
        msg = f"m{len(self.acknowledged) + len(self.refused)}"
        reply = caller.ask(id=msg, to="bob", msg=msg, data="x" * 1000)
        if reply["event"] == "ok":
            self.acknowledged.append(msg)
            return True
        self.assertEqual((reply["event"], reply["code"]), ("error", "unavailable"))
        self.refused.append(msg)
        return False

    def fill(self, caller: Caller) -> None:
        """Fill the disk, and send until nothing is taken any more."""
        self.disk.fill()
        until(lambda: self.send_some(caller) == 0, "the disk is full")

    def send_some(self, caller: Caller) -> int:
        """Send twenty messages; how many were taken."""
        return [self.send(caller) for _ in range(20)].count(True)

    def lines(self, words: str) -> int:
        """How many lines of the server's log have these words."""
        return sum(words in line for line in self.server.log.splitlines())

    def test_senders_are_told_and_nothing_else_is_lost(self) -> None:
        """No false ``ok``; readers see what was acknowledged, and that only."""
        ann, (bob, _) = self.call("ann"), self.session("bob")
        for _ in range(20):
            self.assertTrue(self.send(ann))
        self.fill(ann)
        heard = [bob.take()["msg"] for _ in self.acknowledged]
        self.assertEqual(heard, self.acknowledged)
        self.assertEqual(bob.ask(op="ping", id=1)["event"], "pong")

    def test_who_is_there_can_read(self) -> None:
        """The history of all that was acknowledged."""
        ann = self.call("ann")
        self.send(ann)
        self.fill(ann)
        page = ann.ask(id="h", op="history", to="bob", limit=200)
        self.assertEqual([m["msg"] for m in page["messages"]], self.acknowledged[-200:])

    def test_who_comes_gets_what_it_missed(self) -> None:
        """Whether it has been here before or not, with and without ``since``, or plain."""
        ann = self.call("ann")
        self.session("bob", device="phone")[0].close()
        for _ in range(20):
            self.send(ann)
        self.fill(ann)
        for hello in ({}, {"since": 0}, {"device": "phone"}):
            _, missed = self.session("bob", **hello)
            self.assertEqual([frame["msg"] for frame in missed], self.acknowledged)
        self.assertEqual(self.session("never-seen")[1], [])
        self.assertEqual(self.call("never-seen-either").ask(op="ping", id=1)["event"], "pong")

    def test_a_new_device_is_not_taken_up(self) -> None:
        """Its place could not be kept, and without it something might be skipped later."""
        ann = self.call("ann")
        self.fill(ann)
        caller = self.enterContext(Caller(self.server.url, program=True))
        reply = caller.ask(op="hello", id=1, user="bob", device="new")
        self.assertEqual((reply["event"], reply["code"]), ("error", "unavailable"))

    def test_it_goes_on_by_itself_when_there_is_room_again(self) -> None:
        """With the next message; what was refused can be said again."""
        ann, (bob, _) = self.call("ann"), self.session("bob")
        ann.ask(id=1, op="join", group="devs")
        self.fill(ann)
        key = ann.ask(id=2, group="devs", msg="hi", key="k")
        self.assertEqual(key["code"], "unavailable")
        self.disk.clear()
        for _ in range(100):
            self.assertTrue(self.send(ann))
        reply = ann.ask(id=3, group="devs", msg="hi", key="k")
        self.assertEqual((reply["event"], reply.get("dup")), ("ok", None))
        heard = [bob.take()["msg"] for _ in self.acknowledged]
        self.assertEqual(heard, self.acknowledged)

    def test_the_log_tells_it_once(self) -> None:
        """However many are refused; and that it is over."""
        ann = self.call("ann")
        self.send(ann)
        before = len(self.server.log.splitlines())
        self.fill(ann)
        for _ in range(300):
            self.send(ann)
        self.assertEqual(self.lines("cannot be written"), 1)
        self.assertLessEqual(len(self.server.log.splitlines()), before + 1)
        self.disk.clear()
        self.send(ann)
        self.assertEqual(self.lines("can be written again"), 1)
        self.assertLessEqual(len(self.server.log.splitlines()), before + 2)

    def test_it_can_be_killed_and_started_again(self) -> None:
        """While there is no room; all that was acknowledged is there, and more when there is."""
        ann = self.call("ann")
        for _ in range(20):
            self.send(ann)
        self.fill(ann)
        self.server.kill()
        self.tearDown()
        self.start()
        _, missed = self.session("bob", since=0)
        self.assertEqual([frame["msg"] for frame in missed], self.acknowledged)
        ann = self.call("ann")
        self.fill(ann)
        self.disk.clear()
        self.assertTrue(self.send(ann))
        _, missed = self.session("bob", since=0)
        self.assertEqual([frame["msg"] for frame in missed], self.acknowledged)

    def test_however_much_room_there_is(self) -> None:
        """A few pages come and go, and the server as well: it is the same with any number."""
        ann = self.call("ann")
        with chance() as rng:
            for _ in range(60):
                self.disk.fill(pages=rng.choice((0, 0, 1, 2, 3, 5, 8, 13, 21)))
                for _ in range(5):
                    self.send(ann)
                if rng.random() < 0.1:
                    self.server.kill()
                    self.tearDown()
                    self.assertEqual(soundness(self.disk.path), "ok")
                    self.start()
                    ann = self.call("ann")
            _, missed = self.session("bob", since=0)
            self.assertEqual([frame["msg"] for frame in missed], self.acknowledged)

    def test_it_stops_as_it_should(self) -> None:
        """While there is no room."""
        ann = self.call("ann")
        self.send(ann)
        self.fill(ann)
        self.server.stop()
        self.disk.clear()
        self.tearDown()
        self.start()
        _, missed = self.session("bob", since=0)
        self.assertEqual([frame["msg"] for frame in missed], self.acknowledged)


class NotStarting(TestCase):
    """A file or disk that cannot be used ends the start with one line that says why."""

    def setUp(self) -> None:
        """A place for files."""
        self.directory = Path(self.enterContext(TemporaryDirectory(prefix="chatsvc-")))
        self.path = self.directory / "chat.sqlite"

    def refuse(self, path: Path, *words: str) -> None:
        """A start on ``path`` ends unsuccessfully, and its last line has the path and the words."""
        outcome: Outcome = run("-n", "chat", "--port", "0", "--store", f"sqlite:{path}")
        self.assertEqual(outcome.status, 1, outcome.output)
        last = outcome.output.splitlines()[-1]
        self.assertIn(f"chatsvc: the store cannot be started: {path} ", last)
        for word in words:
            self.assertIn(word, last)
        for word in ("Traceback", "listening on", "storing"):
            self.assertNotIn(word, outcome.output)

    def refuse_unchanged(self, path: Path, *words: str) -> None:
        """It is refused, and not a byte of it is another afterwards."""
        before = path.read_bytes()
        self.refuse(path, *words)
        self.assertEqual(path.read_bytes(), before)

    def serve_once(self, path: Path) -> None:
        """Have a server make the file."""
        with Server("--store", f"sqlite:{path}") as server, Caller(server.url, "ann") as caller:
            self.assertEqual(caller.ask(id=1, to="bob", msg="hi")["event"], "ok")

    def test_a_full_disk(self) -> None:
        """Nothing of a file is left there."""
        with Disk() as disk:
            disk.fill()
            self.refuse(disk.path / "chat.sqlite", "the disk is full")

    def test_a_read_only_disk(self) -> None:
        """With a file and without."""
        with Disk() as disk:
            self.serve_once(disk.path / "chat.sqlite")
            disk.make_read_only()
            self.refuse_unchanged(disk.path / "chat.sqlite", "read-only")
            self.refuse(disk.path / "other.sqlite", "read-only")

    def test_a_directory(self) -> None:
        """In the place of the file."""
        self.path.mkdir()
        self.refuse(self.path, "is a directory")

    def test_a_directory_that_is_not_there(self) -> None:
        """For the file to be in."""
        outcome = run("-n", "chat", "--port", "0", "--store", f"sqlite:{self.path}/chat.sqlite")
        self.assertEqual(outcome.status, 1)
        self.assertIn(f"{self.path} is not a directory", outcome.output.splitlines()[-1])

    def test_garbage(self) -> None:
        """Much of it, or little."""
        for garbage in (os.urandom(20_000), os.urandom(10)):
            self.path.write_bytes(garbage)
            self.refuse_unchanged(self.path, "is not a database of chatsvc")

    def test_a_text_file(self) -> None:
        """Short or long."""
        for text in ("hello\n", "hello\n" * 1000):
            self.path.write_text(text, encoding="ascii")
            self.refuse_unchanged(self.path, "is not a database of chatsvc")

    def test_a_file_whose_first_page_was_overwritten(self) -> None:
        """The rest of it is as we wrote it."""
        self.serve_once(self.path)
        with self.path.open("r+b") as file:
            file.write(os.urandom(4096))
        self.refuse_unchanged(self.path, "is not a database of chatsvc")

    def test_a_file_of_which_only_the_head_is_sound(self) -> None:
        """It is a database of ours by its name, and nothing stands behind it."""
        self.serve_once(self.path)
        with self.path.open("r+b") as file:
            file.seek(100)
            file.write(b"\xff" * 20_000)
        self.refuse_unchanged(self.path, "is damaged", "restore a backup")

    def test_a_database_of_another_program(self) -> None:
        """Whatever number it gives its format."""
        for version in (0, 1):
            self.path.unlink(missing_ok=True)
            with closing(apsw.Connection(str(self.path))) as connection:
                connection.execute("CREATE TABLE songs (title)")
                connection.pragma("user_version", version)
            self.refuse_unchanged(self.path, "is not a database of chatsvc")

    def test_a_file_from_a_newer_version(self) -> None:
        """With its format, and those that are known."""
        self.serve_once(self.path)
        with closing(apsw.Connection(str(self.path))) as connection:
            known = connection.pragma("user_version")
            connection.pragma("user_version", known + 1)
        self.refuse_unchanged(
            self.path, "a newer chatsvc", f"its format is {known + 1}", f"up to {known}"
        )

    def test_a_file_that_another_server_has(self) -> None:
        """By whatever path it is called; that server goes on."""
        link = self.directory / "link.sqlite"
        link.symlink_to(self.path)
        other = self.directory / "other"
        other.symlink_to(self.directory)
        with Server("--store", f"sqlite:{self.path}") as server, Caller(server.url) as caller:
            for path in (self.path, link, other / "chat.sqlite"):
                outcome = run("-n", "chat", "--port", "0", "--store", f"sqlite:{path}")
                self.assertEqual(outcome.status, 1)
                last = outcome.output.splitlines()[-1]
                self.assertIn(f"{self.path} is in use by another server", last)
                self.assertIn(f"(process {server.pid})", last)
                self.assertNotIn("Traceback", outcome.output)
                self.assertEqual(caller.ask(id=1, to="bob", msg="hi")["event"], "ok")

    def test_a_file_that_a_killed_server_had_can_be_had(self) -> None:
        """The lock goes with the process."""
        with Server("--store", f"sqlite:{self.path}") as server:
            server.kill()
        self.serve_once(self.path)
