"""The door of the real server: HTTP as strangers speak it, over real sockets."""

from __future__ import annotations

import re
import select
import socket
import time
from contextlib import closing
from unittest import TestCase

from websockets.exceptions import InvalidStatus

from tests.caller import Caller, dial
from tests.server import Server, until

HEADERS = {
    "Host": "localhost",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""RFC 6455's own example of an answer to that key."""


def head(line: str = "GET /ws HTTP/1.1", **headers: str | None) -> bytes:
    """A request head; underscores in names stand for hyphens, None leaves a header out."""
    given = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    fields = [f"{name}: {value}\r\n" for name, value in given.items() if value is not None]
    return f"{line}\r\n{''.join(fields)}\r\n".encode()


def answer_of(stream: socket.socket) -> str:
    """The head of what the server answers; empty if it only closes."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = stream.recv(4096)
        if not data:
            break
        received += data
    return received.partition(b"\r\n\r\n")[0].decode()


def status_of(answer: str) -> int:
    """The status in the head of an answer."""
    match = re.match(r"HTTP/1\.1 (\d{3}) \S", answer)
    assert match is not None, answer
    return int(match[1])


class _WithServer(TestCase):
    def setUp(self) -> None:
        """Start a server."""
        self.server = self.enterContext(Server())

    def tearDown(self) -> None:
        """Nothing that strangers sent was a surprise."""
        with Caller(self.server.url) as caller:
            self.assertEqual(caller.ask(op="ping", id=1)["event"], "pong")
        self.server.stop()
        self.assertNotIn("Traceback", self.server.log)
        self.assertNotIn("Unhandled", self.server.log)

    def answer(self, *parts: bytes) -> str:
        """The head of the answer to a request that is sent in ``parts``."""
        with closing(dial(self.server.url)) as stream:
            for part in parts:
                stream.sendall(part)
            return answer_of(stream)

    def status(self, line: str = "GET /ws HTTP/1.1", **headers: str | None) -> int:
        """The status of the answer to a request."""
        return status_of(self.answer(head(line, **headers)))


class WhoGetsIn(_WithServer):
    """Programs and pages of this machine, at one path."""

    def test_a_handshake_is_answered_by_the_rules(self) -> None:
        """With RFC 6455's example of an accepted key, and no subprotocol that was not offered."""
        answer = self.answer(head()).lower()
        self.assertEqual(status_of(answer.upper()), 101)
        self.assertIn(f"sec-websocket-accept: {ACCEPT}".lower(), answer)
        self.assertNotIn("sec-websocket-protocol", answer)

    def test_only_names_of_this_machine_are_answered(self) -> None:
        """Another Host means that a foreign name was made to point here."""
        port = self.server.port
        for host in ("localhost", f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            self.assertEqual(self.status(Host=host), 101, host)
        for host in ("example.org", f"evil.localhost:{port}", "127.0.0.2", "0.0.0.0", "[::2]"):
            self.assertEqual(self.status(Host=host), 403, host)
        for none in (None, ""):
            self.assertIn(self.status(Host=none), (400, 403), none)

    def test_only_pages_of_this_machine_may_connect(self) -> None:
        """Programs send no Origin; a page without one of its own sends `null`."""
        for origin in ("http://localhost:8080", "http://127.0.0.1:3030", "https://localhost"):
            self.assertEqual(self.status(Origin=origin), 101, origin)
        foreign = ("https://example.org", "http://localhost.example.org", "null", "file://", "x")
        for origin in foreign:
            self.assertIn(self.status(Origin=origin), (400, 403), origin)

    def test_a_browser_like_client_is_refused_by_its_origin(self) -> None:
        """It sees an HTTP status, not a connection that opens and closes."""
        with self.assertRaises(InvalidStatus) as caught:
            Caller(self.server.url, origin="https://example.org")
        self.assertIn(caught.exception.response.status_code, (400, 403))
        Caller(self.server.url, origin="http://localhost:8080").close()

    def test_there_are_web_sockets_at_one_path_only(self) -> None:
        """Any other is not found."""
        for path in ("/", "/ws/", "/WS", "/wsx", "/ws/../x", "/favicon.ico"):
            self.assertEqual(self.status(f"GET {path} HTTP/1.1"), 404, path)

    def test_the_user_in_the_url_must_be_one_name(self) -> None:
        """Whatever else is a bad request."""
        for query in ("user=alice", "user=a%40example.org", "other=1", ""):
            self.assertEqual(self.status(f"GET /ws?{query} HTTP/1.1"), 101, query)
        bad = ("a b", "a%20b", "a+b", "%00", "%ff", "-a", "a%2Fb", "a" * 65, "a&user=b")
        for user in bad:
            self.assertEqual(self.status(f"GET /ws?user={user} HTTP/1.1"), 400, user)

    def test_what_is_no_upgrade_is_told_what_is_wanted(self) -> None:
        """With the Upgrade header that RFC 9110, section 15.5.22, demands of a 426."""
        answer = self.answer(b"GET /ws HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self.assertEqual(status_of(answer), 426)
        self.assertIn("\r\nupgrade: websocket", answer.lower())

    def test_what_breaks_the_rules_is_refused(self) -> None:
        """Each with a status of its kind, and never a traceback."""
        for refused in (
            head("POST /ws HTTP/1.1"),
            head("GET /ws HTTP/1.0"),
            head("GET /ws"),
            head("\x00\x01\x02"),
            head(Sec_WebSocket_Version="7"),
            head(Sec_WebSocket_Version="x"),
            head(Sec_WebSocket_Key=None),
            head(Sec_WebSocket_Key="short"),
            head(Upgrade="h2c"),
            b"\xff\xfe\r\n\r\n",
            b"\r\n\r\n",
            b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        ):
            answer = self.answer(refused)
            self.assertIn(status_of(answer) // 100, (4, 5), refused)
            self.assertNotIn(status_of(answer), (500, 502, 503), refused)

    def test_an_answer_tells_nothing_of_what_the_server_is_made_of(self) -> None:
        """Its own name and version are all."""
        answer = self.answer(head("GET /nowhere HTTP/1.1"))
        for word in ("autobahn", "twisted", "python"):
            self.assertNotIn(word, answer.lower())

    def test_strangers_write_no_control_characters_into_the_log(self) -> None:
        """Whoever reads it in a terminal would be at their mercy."""
        for line in ("GET /ws\x1b[2J", "\x1b]0;mine\x07", "GET /ws\x00?\x08 HTTP/1.1 \x9b"):
            answer = self.answer(head(line))
            self.assertIn(status_of(answer), (400, 405, 505), line)
            self.assertNotRegex(answer, r"[\x00-\x09\x0b\x0c\x0e-\x1f\x7f-\x9f]")
        self.assertNotRegex(self.server.log, r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class HowAHeadComes(_WithServer):
    """Slowly, in pieces, too long, or not at all."""

    def test_a_head_in_single_bytes_is_a_head(self) -> None:
        """However the network cuts it."""
        self.assertEqual(status_of(self.answer(*(bytes([byte]) for byte in head()))), 101)

    def test_a_first_command_may_come_with_the_head(self) -> None:
        """It is done as if it had come later."""
        frame = b'\x81\x94\0\0\0\0{"id":1,"op":"ping"}'
        with closing(dial(self.server.url)) as stream:
            stream.sendall(head() + frame)
            received = b""
            while b"pong" not in received:
                data = stream.recv(4096)
                self.assertTrue(data, received)
                received += data

    def test_a_long_head_is_read(self) -> None:
        """Browsers send cookies: 15 KB are no reason to refuse."""
        self.assertEqual(self.status(Cookie="x" * 15_000), 101)

    def test_a_head_of_17_kb_without_an_end_is_refused(self) -> None:
        """With the status that says so, and without waiting for more."""
        with closing(dial(self.server.url)) as stream:
            began = time.monotonic()
            stream.sendall(head(Cookie="x" * 17_000)[:-4])
            self.assertEqual(status_of(answer_of(stream)), 431)
            self.assertLess(time.monotonic() - began, 2.0)

    def test_a_head_of_17_kb_with_an_end_is_refused_too(self) -> None:
        """The limit is on the head, not on how it is cut."""
        self.assertEqual(self.status(Cookie="x" * 17_000), 431)

    def test_half_open_handshakes_are_dropped_after_5_seconds(self) -> None:
        """Whether nothing came, half a head, or a byte now and then."""
        with (
            closing(dial(self.server.url)) as silent,
            closing(dial(self.server.url)) as half,
            closing(dial(self.server.url)) as slow,
        ):
            began = time.monotonic()
            half.sendall(head()[:40])
            left: dict[socket.socket, float] = {}
            rest = iter(head())
            while len(left) < 3 and time.monotonic() - began < 10:
                waiting = [stream for stream in (silent, half, slow) if stream not in left]
                for stream in select.select(waiting, [], [], 0.2)[0]:
                    left[stream] = time.monotonic() - began
                if slow not in left:
                    slow.sendall(bytes([next(rest)]))
            self.assertEqual(len(left), 3)
            for after in left.values():
                self.assertGreater(after, 4.5)
                self.assertLess(after, 7.5)


class HowManyGetIn(TestCase):
    """The limit of --max-connections."""

    def test_one_more_than_allowed_is_told_to_come_later(self) -> None:
        """And gets in when another has left."""
        with Server("--max-connections", "2") as server:
            first = self.enterContext(Caller(server.url))
            self.enterContext(Caller(server.url))
            with self.assertRaises(InvalidStatus) as caught:
                Caller(server.url)
            self.assertEqual(caught.exception.response.status_code, 503)
            first.close()
            until(lambda: _gets_in(server), "a place is free")


def _gets_in(server: Server) -> bool:
    try:
        Caller(server.url).close()
    except InvalidStatus:
        return False
    return True
