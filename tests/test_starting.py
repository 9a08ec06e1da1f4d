"""The real ``twistd chat`` starts, or says why not."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import SkipTest, TestCase

from tests.caller import Caller
from tests.server import CHAT_TAC, Outcome, Server, run


def free(port: int) -> bool:
    """Whether a port of this machine can be had."""
    with closing(socket.socket()) as stream:
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            stream.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def end(pidfile: Path) -> bool:
    """End the daemon that a PID file names, if there is one; whether there is such a file."""
    if not pidfile.exists():
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(pidfile.read_text(encoding="ascii")), signal.SIGKILL)
    return True


class StartingIt(TestCase):
    """As the readme says."""

    def works(self, server: Server, place: str | None = None) -> None:
        """Whether somebody who connects is served."""
        with Caller(place or server.url) as caller:
            self.assertEqual(caller.ask(op="ping", id=1)["event"], "pong")

    def test_it_says_where_it_listens_and_what_to_try(self) -> None:
        """With an address that works."""
        with Server() as server:
            self.assertRegex(server.url, r"^ws://127\.0\.0\.1:[1-9]\d*/ws$")
            self.assertIn(f"try: websocat {server.url}\n", server.log)
            self.works(server)

    def test_it_says_where_things_are_kept(self) -> None:
        """In a file beside it, or nowhere."""
        with Server() as server:
            self.assertIn(f"storing in {server.directory.resolve()}/chat.sqlite ", server.log)
        with Server("--store", "memory:") as server:
            self.assertIn("in memory (lost when the server stops)", server.log)

    def test_what_it_says_to_type_works(self) -> None:
        """Typed as it stands, it reaches the second terminal."""
        with Server() as server:
            frame = server.log.rpartition("and type: ")[2].strip()
            with Caller(server.url) as a, Caller(server.url) as b:
                a.say(frame)
                self.assertEqual(b.text(), '{"from":"client-a","to":"client-b","msg":"Hello!"}')

    def test_chat_tac_starts_it_on_3030(self) -> None:
        """`twistd -ny chat.tac`, from wherever it is called."""
        if not free(3030):
            raise SkipTest("port 3030 is in use")
        with Server(tac=CHAT_TAC) as server:
            self.assertEqual(server.url, "ws://127.0.0.1:3030/ws")
            self.works(server)

    def test_it_listens_in_several_places(self) -> None:
        """One of them a socket in the file system; all lead to the same people."""
        with TemporaryDirectory(prefix="chatsvc-") as directory:
            path = Path(directory) / "chat.sock"
            with (
                Server(
                    "--listen", "tcp:0:interface=127.0.0.1", "--listen", f"unix:{path}"
                ) as server,
                Caller(server.url, "alice") as alice,
                Caller("ws://localhost/ws", "bob", unix=path) as bob,
            ):
                self.assertEqual(len(server.places), 2)
                alice.say(to="bob", msg="over there")
                self.assertEqual(bob.text(), '{"from":"alice","to":"bob","msg":"over there"}')

    def test_a_place_that_is_no_port_is_shown_as_one_would_write_it(self) -> None:
        """Not as Python writes it; and websocat is not told to connect to it."""
        with TemporaryDirectory(prefix="chatsvc-") as directory:
            path = f"{directory}/chat.sock"
            with Server("--listen", f"unix:{path}") as server:
                self.assertIn(path, server.url)
                self.assertNotIn("UNIXAddress", server.log)

    def test_it_listens_on_ip_version_6(self) -> None:
        """Where the machine has it."""
        with closing(socket.socket(socket.AF_INET6)) as stream:
            try:
                stream.bind(("::1", 0))
            except OSError:
                raise SkipTest("there is no IPv6 here") from None
        with Server("--listen", r"tcp6:0:interface=\:\:1") as server:
            self.assertRegex(server.url, r"^ws://\[::1\]:\d+/ws$")
            self.works(server)

    def test_two_servers_know_nothing_of_each_other(self) -> None:
        """Each has its own log."""
        with (
            Server() as one,
            Server() as other,
            Caller(one.url, "alice") as alice,
            Caller(other.url, "bob") as bob,
        ):
            self.assertEqual(alice.ask(id=1, to="bob", msg="hi")["seq"], 1)
            self.assertEqual(bob.heard_within(0.5), [])

    def test_the_log_is_for_people(self) -> None:
        """No addresses in memory, nothing that is worth no attention."""
        with Server() as server:
            self.assertNotRegex(server.log, r" object at 0x[0-9a-f]+")
            self.assertNotIn("Traceback", server.log)


class NotStarting(TestCase):
    """What cannot be had ends the start with a message, and a status that is not 0."""

    def assert_refused(self, outcome: Outcome, *words: str) -> None:
        """It ended by itself, unsuccessfully, said why in so many words, and served nobody."""
        self.assertIsNotNone(outcome.status, f"it went on running:\n{outcome.output}")
        self.assertNotEqual(outcome.status, 0)
        for word in words:
            self.assertIn(word, outcome.output)
        self.assertNotIn("Traceback", outcome.output)
        self.assertNotIn("listening on", outcome.output)
        self.assertNotIn("storing", outcome.output)

    def test_it_does_not_listen_to_other_machines(self) -> None:
        """Where names are believed, the world must not come in."""
        for endpoint in ("tcp:0:interface=0.0.0.0", "tcp:0", r"tcp6:0:interface=\:\:"):
            outcome = run("-n", "chat", "--listen", endpoint, timeout=3.0)
            self.assert_refused(outcome, endpoint, "open to other machines", "127.0.0.1")

    def test_one_open_place_among_others_is_enough_to_refuse(self) -> None:
        """The good one does not make up for it."""
        listen = ("--listen", "tcp:0:interface=127.0.0.1", "--listen", "tcp:0:interface=0.0.0.0")
        outcome = run("-n", "chat", *listen, timeout=3.0)
        self.assert_refused(outcome, "tcp:0:interface=0.0.0.0", "open to other machines")

    def test_a_port_in_use_is_named(self) -> None:
        """By its number."""
        with closing(socket.create_server(("127.0.0.1", 0))) as taken:
            port = str(taken.getsockname()[1])
            outcome = run("-n", "chat", "--port", port, timeout=3.0)
        self.assert_refused(outcome, port, "in use")

    def test_a_socket_that_cannot_be_made_is_named(self) -> None:
        """By its path."""
        outcome = run("-n", "chat", "--listen", "unix:/nonexistent/chat.sock", timeout=3.0)
        self.assert_refused(outcome, "/nonexistent/chat.sock")

    def test_a_machine_that_is_not_this_one_is_named(self) -> None:
        """Its address cannot be had here."""
        outcome = run("-n", "chat", "--listen", "tcp:0:interface=192.0.2.1", timeout=3.0)
        self.assert_refused(outcome, "192.0.2.1")

    def test_a_daemon_that_cannot_start_says_so_where_it_was_called(self) -> None:
        """The caller sees the failure, the log the reason; no PID file is left behind."""
        with (
            TemporaryDirectory(prefix="chatsvc-") as directory,
            closing(socket.create_server(("127.0.0.1", 0))) as taken,
        ):
            pidfile = Path(directory) / "chat.pid"
            port = str(taken.getsockname()[1])
            log = Path(directory) / "chat.log"
            outcome = run(f"--pidfile={pidfile}", f"--logfile={log}", "chat", "--port", port)
            left_behind = end(pidfile)
            self.assertNotEqual(outcome.status, 0)
            self.assertIn(port, outcome.output)
            self.assertIn("in use", log.read_text(encoding="utf-8"))
            self.assertFalse(left_behind)

    def test_a_wrong_value_is_explained(self) -> None:
        """The last line has the option and its rule."""
        for option, value, rule in (
            ("--port", "x", "a number from 0 to 65535"),
            ("--quota", "0", "a whole number above 0"),
            ("--store", "disk:", "memory:"),
        ):
            outcome = run("-n", "chat", option, value, timeout=3.0)
            self.assertEqual(outcome.status, 1)
            last = outcome.output.splitlines()[-1]
            self.assertIn(rule, last)
            self.assertIn(option, last)

    def test_help_ends_well(self) -> None:
        """With status 0, and every option."""
        outcome = run("chat", "--help", timeout=3.0)
        self.assertEqual(outcome.status, 0)
        for option in ("port", "listen", "store", "retention", "quota", "max-message"):
            self.assertIn(f"--{option}=", outcome.output)

    def test_twistd_lists_it(self) -> None:
        """Among the commands, with what it is."""
        outcome = run("--help", timeout=5.0)
        self.assertRegex(outcome.output, r"\n +chat +Chat over WebSocket")
