"""The real server is asked to stop, by SIGTERM."""

from __future__ import annotations

import signal
import time
from contextlib import closing

from websockets.frames import Frame, Opcode

from tests.caller import Caller, ServerCase, dial
from tests.server import Server, until

STOPPED = -signal.SIGTERM
"""How twistd ends when it is asked to: all is tidied up, then the signal takes its own course, so
that whoever sent it sees that it was heeded. A failure is 1."""

CLOSING = {"event": "closing", "reason": "the server is stopping", "retry_in_ms": 1000}


class Stopping(ServerCase):
    """Everybody is told, what was taken is finished, and nothing lingers."""

    def test_every_client_is_told_and_then_closed_with_1001(self) -> None:
        """Plain, session, not yet settled, and one that has not said hello."""
        session = self.call(program=True)
        session.hello("alice")
        self.assertEqual(session.take()["event"], "caught_up")
        plain = self.call("bob")
        plain.ask(op="ping", id=1)
        callers = [session, plain, self.call(program=True), self.call()]
        self.assertEqual(self.server.stop(), STOPPED)
        for caller in callers:
            frames, code, _ = caller.rest()
            self.assertEqual(frames, [CLOSING])
            self.assertEqual(code, 1001)

    def test_a_server_without_clients_stops_at_once(self) -> None:
        """There is nobody to wait for."""
        began = time.monotonic()
        self.assertEqual(self.server.stop(), STOPPED)
        self.assertLess(time.monotonic() - began, 2.0)

    def test_no_ok_is_missing_for_what_was_taken(self) -> None:
        """What others have seen is acknowledged before the connection is closed."""
        alice, bob = self.call("alice"), self.call("bob")
        for number in range(100):
            alice.say(id=number, to="bob", msg=str(number))
        while bob.take()["msg"] != "99":
            pass
        self.server.terminate()
        frames, code, _ = alice.rest()
        self.assertEqual([frame["event"] for frame in frames], ["ok"] * 100 + ["closing"])
        self.assertEqual([frame["id"] for frame in frames[:-1]], list(range(100)))
        self.assertEqual(code, 1001)
        self.assertEqual(self.server.wait(), STOPPED)

    def test_a_thousand_commands_in_flight_are_done_up_to_one_and_not_beyond(self) -> None:
        """No hole in the acknowledgements; nobody has seen what was not acknowledged."""
        alice, bob = self.call("alice"), self.call("bob")
        for caller in (alice, bob):
            caller.ask(op="ping", id="settled")
        # So that all of it lies in the socket when the signal is noticed.
        self.server.send(signal.SIGSTOP)
        alice.websocket.socket.sendall(
            b"".join(
                Frame(
                    Opcode.TEXT,
                    f'{{"id":{number},"to":"bob","msg":"{number}","data":"{"x" * 200}"}}'.encode(),
                ).serialize(mask=True)
                for number in range(1000)
            )
        )
        self.server.terminate()
        self.server.send(signal.SIGCONT)
        frames, code, _ = alice.rest()
        done = [frame["id"] for frame in frames[:-1]]
        self.assertEqual(done, list(range(len(done))))
        self.assertEqual((frames[-1], code), (CLOSING, 1001))
        frames, code, _ = bob.rest()
        seen = [int(frame["msg"]) for frame in frames[:-1]]
        self.assertEqual(seen, done[: len(seen)])
        self.assertEqual((frames[-1], code), (CLOSING, 1001))
        self.assertEqual(self.server.wait(), STOPPED)

    def test_who_does_not_answer_cannot_hold_it_up(self) -> None:
        """Neither half a handshake, nor a client that never reads nor closes."""
        with closing(dial(self.server.url)) as silent, closing(dial(self.server.url)) as half:
            silent.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            self.assertIn(b"101", silent.recv(12))
            half.sendall(b"GET /ws HTTP/1.1\r\n")
            began = time.monotonic()
            self.assertEqual(self.server.stop(), STOPPED)
            self.assertLess(time.monotonic() - began, 5.0)

    def test_nobody_gets_in_any_more(self) -> None:
        """The port is closed before the clients are."""
        with closing(dial(self.server.url)) as silent:
            silent.sendall(
                b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
                b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            self.assertIn(b"101", silent.recv(12))
            self.server.terminate()
            until(lambda: "shutting down" in self.server.log, "the signal is noticed")
            until(lambda: "Closed" in self.server.log, "the port is closed")
            self.assertTrue(self.server.running)
            with self.assertRaises(ConnectionRefusedError):
                dial(self.server.url)
            self.server.wait()

    def test_a_unix_socket_is_removed(self) -> None:
        """The next start finds its place free."""
        with Server("--listen", f"unix:{self.server.directory}/s") as other:
            path = self.server.directory / "s"
            self.assertTrue(path.is_socket())
            other.stop()
            self.assertFalse(path.exists())

    def test_it_can_be_started_again_on_the_same_port(self) -> None:
        """At once, though clients were connected."""
        caller = self.call("alice")
        port = str(self.server.port)
        self.server.stop()
        caller.rest()
        with Server("--port", port) as again:
            self.assertEqual(Caller(again.url, "alice").ask(op="ping", id=1)["event"], "pong")
