"""HTTP connections: one request after the other, within bounds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import IPushProducer
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from chatsvc.web.channel import MAX_BODIES, MAX_BODY
from tests.fakes import House
from tests.peer import HIGH_WATER, make_factory
from tests.visitor import Answer, Echo, Late, Visitor, get, post

CHUNKED = get("/echo", "POST", Transfer_Encoding="chunked")


@implementer(IPushProducer)
class Flood(Resource):
    """Answers without end, as fast as the client reads."""

    def __init__(self) -> None:
        super().__init__()
        self.flowing = False
        self.request: Any = None

    def render_GET(self, request: Request) -> int:
        """Begin."""
        self.request = request
        request.registerProducer(self, streaming=True)
        self.resumeProducing()
        return NOT_DONE_YET

    def resumeProducing(self) -> None:
        """Go on until told to stop."""
        self.flowing = True
        for _ in range(1000):
            if self.flowing:
                self.request.write(b"x" * 10_000)

    def pauseProducing(self) -> None:
        """Wait."""
        self.flowing = False

    def stopProducing(self) -> None:
        """The client is gone."""
        self.flowing = False


class Noted(Resource):
    """Notes what was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[bytes] = []

    def render_GET(self, request: Request) -> bytes:
        """Answer at once."""
        self.asked.append(request.uri)
        return b""


class _WithFactory(SynchronousTestCase):
    def setUp(self) -> None:
        """Open a house with an echo, and with a page that takes its time."""
        self.house = House()
        self.factory = make_factory(self.house)
        self.late, self.flood = Late(), Flood()
        root = self.factory.site.resource
        for name, child in (("echo", Echo()), ("late", self.late), ("flood", self.flood)):
            root.putChild(name.encode(), child)

    def visit(self, *pieces: bytes) -> Visitor:
        """A client that has sent something."""
        return Visitor(self.factory).send(*pieces)

    def wait(self, seconds: int) -> None:
        """Let time pass, second by second."""
        self.house.clock.pump([1] * seconds)


class OneAfterTheOther(_WithFactory):
    """Connections that are kept."""

    def test_a_connection_is_kept(self) -> None:
        """For as many requests as are asked."""
        visitor = self.visit()
        for path, status in (("/healthz", 200), ("/nothing", 404), ("/ws", 426), ("/healthz", 200)):
            self.assertEqual(visitor.ask(get(path)).status, status)
        self.assertEqual(visitor.ask(post("/echo", b"one")).body, b"one")
        self.assertFalse(visitor.wire.lost)

    def test_who_asks_for_an_end_gets_it(self) -> None:
        """And HTTP/1.0 always does; it need not name a host."""
        closing = self.visit()
        self.assertEqual(closing.ask(get(Connection="close")).headers["connection"], "close")
        self.assertTrue(closing.wire.lost)
        old = self.visit()
        self.assertEqual(old.ask(b"GET /healthz HTTP/1.0\r\n\r\n").body, b"ok\n")
        self.assertTrue(old.wire.lost)

    def test_requests_that_come_together_are_answered_in_their_order(self) -> None:
        """Cheap ones too, and then the connection is read again."""
        bodies = [b"%d" % number for number in range(5)]
        visitor = self.visit(b"".join(post("/echo", body) for body in bodies)).turn()
        self.assertEqual([answer.body for answer in visitor.take()], bodies)
        self.assertTrue(visitor.wire.reading)

    def test_they_hold_up_nobody(self) -> None:
        """One of each client is answered in a turn."""
        noted = Noted()
        self.factory.site.resource.putChild(b"noted", noted)
        for who in ("a", "b"):
            self.visit(get(f"/noted?{who}") * 3)
        self.house.clock.advance(0)
        self.assertEqual(noted.asked, [b"/noted?a", b"/noted?b"] * 3)

    def test_cut_anywhere_they_are_the_same(self) -> None:
        """Pipelined, with bodies, one of them late."""
        data = post("/echo", b"one") + get("/late") + CHUNKED + b"3\r\ntwo\r\n0\r\n\r\n" + get()
        for at in range(len(data)):
            visitor = self.visit(data[:at], data[at:]).turn(2)
            self.late.answer(b"late")
            answers = visitor.turn(4).take()
            self.assertEqual([a.body for a in answers], [b"one", b"late", b"two", b"ok\n"], at)
            visitor.lose()

    def test_none_is_begun_while_one_takes_its_time(self) -> None:
        """What comes meanwhile waits, and not much of it."""
        visitor = self.visit(get("/late"), get("/late"))
        self.assertEqual(len(self.late.requests), 1)
        visitor.send(*[get(Cookie="x" * 1000)] * 20).turn()
        self.assertFalse(visitor.wire.reading)
        for _ in range(2):
            self.late.answer(b"late")
            visitor.turn()
        self.assertEqual(len(visitor.turn(20).take()), 22)
        self.assertTrue(visitor.wire.reading)

    def test_a_web_socket_wants_a_connection_of_its_own(self) -> None:
        """That is said, and the connection goes on as it was."""
        visitor = self.visit(get())
        visitor.take()
        answer = visitor.ask(get("/ws", Connection="Upgrade", Upgrade="WebSocket"))
        self.assertEqual((answer.status, answer.headers["upgrade"]), (426, "websocket"))
        self.assertEqual(visitor.ask(get("/readyz")).status, 200)


class Bounds(_WithFactory):
    """What a client can make the server keep."""

    def refused(self, *pieces: bytes) -> int:
        """The status with which a request is refused, at the end of its connection."""
        visitor = self.visit(*pieces)
        self.assertTrue(visitor.wire.lost, pieces[0][:200])
        (answer,) = visitor.take()
        self.assertEqual(answer.headers["connection"], "close")
        self.assertTrue(answer.body.endswith(b"\n"))
        return answer.status

    def test_a_body_of_a_mebibyte_is_taken(self) -> None:
        """One byte more is not, and nothing of it is asked for."""
        visitor = self.visit()
        body = b"x" * MAX_BODY
        self.assertEqual(len(visitor.ask(post("/echo", body)).body), MAX_BODY)
        head = get("/echo", "POST", Content_Length=str(MAX_BODY + 1), Expect="100-continue")
        self.assertEqual(self.refused(head), 413)

    def test_so_is_one_that_does_not_tell_its_size(self) -> None:
        """It is cut off where it becomes too much."""
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        visitor = self.visit()
        answer = visitor.ask(CHUNKED, *[chunk] * 16, b"0\r\n\r\n")
        self.assertEqual(len(answer.body), MAX_BODY)
        self.assertEqual(self.refused(CHUNKED, *[chunk] * 16, b"1\r\nx\r\n0\r\n\r\n"), 413)
        self.assertEqual(self.factory.site.bodies, 0)

    def test_a_size_that_is_no_size_is_refused(self) -> None:
        """Also one that Python would not read."""
        for size, status in (("9" * 5000, 413), ("-1", 400), ("1e3", 400), ("0x10", 400)):
            self.assertEqual(self.refused(get("/echo", "POST", Content_Length=size)), status)

    def test_all_bodies_together_are_bounded(self) -> None:
        """Who comes when there is no room is told to come later; when others are gone, there is."""
        half = get("/echo", "POST", Content_Length=str(MAX_BODY)) + b"x" * (MAX_BODY - 1)
        visitors = [self.visit(half) for _ in range(MAX_BODIES // MAX_BODY)]
        self.assertEqual(self.refused(post("/echo", b"x" * 100)), 503)
        for visitor in visitors[1:]:
            visitor.lose()
        self.assertEqual(self.visit().ask(post("/echo", b"x" * 100)).status, 200)
        self.assertEqual(len(visitors[0].ask(b"x").body), MAX_BODY)
        self.assertEqual(self.factory.site.bodies, 0)

    def test_every_head_is_bounded(self) -> None:
        """The second of a connection as the first, and one without an end."""
        for second in (
            get(Cookie="x" * 17_000),
            get(Cookie="x" * 17_000)[:-4],
            get(**{f"X_{number}": "x" * 1000 for number in range(17)}),
            get(**{f"X_{number}": "x" for number in range(501)}),
        ):
            visitor = self.visit(get())
            visitor.take()
            visitor.send(*(second[at : at + 1000] for at in range(0, len(second), 1000)))
            (answer,) = visitor.take()
            self.assertEqual((answer.status, visitor.wire.lost), (431, True))
        visitor = self.visit()
        for _ in range(3):
            self.assertEqual(visitor.ask(get(Cookie="x" * 15_000)).status, 200)

    def test_what_is_no_http_is_refused(self) -> None:
        """Clearly, once, and whatever follows."""
        host = b"Host: localhost\r\n"
        for request in (
            b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"GET / HTTP/1.1 \r\n\r\n",
            b"GET /\x1b[2J HTTP/1.1\r\n\r\n",
            b"G\x00T / HTTP/1.1\r\n\r\n",
            b"\x16\x03\x01\r\n\r\n",
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n",
            b"GET / HTTP/1.1\r\nna me: x\r\n\r\n",
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n",
            b"GET / HTTP/1.1\r\nX: a\nUpgrade: websocket\r\nX: \0\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + host + b"Transfer-Encoding: gzip\r\n\r\n",
            b"POST / HTTP/1.1\r\n" + host + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
            CHUNKED + b"x\r\n",
            CHUNKED + b"1\r\nxx",
            CHUNKED + b"1" * 2000,
        ):
            self.assertEqual(self.refused(request + get()), 400, request)

    def test_a_foreign_host_is_not_answered(self) -> None:
        """Somebody may have made a browser believe that it is this machine."""
        for host in ("example.org", "localhost.example.org", "127.0.0.1.example.org:80", "[::2]"):
            self.assertEqual(self.refused(get(Host=host)), 403, host)
        for host in ("localhost", "LOCALHOST:3030", "127.0.0.1:1", "[::1]", "[::1]:3030"):
            self.assertEqual(self.visit().ask(get(Host=host)).status, 200, host)

    def test_whatever_comes_is_answered_or_waited_for(self) -> None:
        """However it is cut: nothing is raised, and what is said is HTTP."""
        words = st.sampled_from(
            [
                *(b"GET ", b"/healthz", b" HTTP/1.1", b"\r\n", b"\r\n\r\n", b"Host: localhost\r\n"),
                *(get(), post("/echo", b"x"), CHUNKED, b"3\r\nabc\r\n", b"0\r\n\r\n", b" ", b":"),
                *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"\n", b"\t"),
                *(b"Expect: 100-continue\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n"),
            ]
        )
        pieces = st.lists(st.lists(words | st.binary(max_size=8), max_size=8).map(b"".join))

        @settings(deadline=None, database=None, max_examples=300)
        @given(pieces)
        def hold(pieces: Sequence[bytes]) -> None:
            visitor = self.visit(get()).turn().send(*pieces).turn(10)
            data = visitor.wire.take()
            self.assertEqual(data[:15], b"HTTP/1.1 200 OK")
            visitor.lose()
            self.assertEqual(self.flushLoggedErrors(), [])
            self.assertEqual(self.factory.site.bodies, 0)

        hold()


class Time(_WithFactory):
    """How long a client may take."""

    def test_a_connection_idles_for_30_seconds(self) -> None:
        """From its last answer; then it is closed without a word."""
        visitor = self.visit(get())
        self.wait(20)
        visitor.send(get())
        self.wait(29)
        self.assertEqual((len(visitor.take()), visitor.wire.lost), (2, False))
        self.wait(1)
        self.assertEqual((visitor.take(), visitor.wire.lost), ([], True))

    def test_a_request_takes_a_minute_at_most(self) -> None:
        """However often a byte of it comes."""
        for request in (post("/echo", b"x" * 100), get(Cookie="x" * 100)):
            visitor = self.visit(get())
            visitor.take()
            for byte in request[:59]:
                visitor.send(bytes([byte]))
                self.wait(1)
            self.assertFalse(visitor.wire.lost)
            self.wait(1)
            (answer,) = visitor.take()
            self.assertEqual((answer.status, visitor.wire.lost), (408, True))

    def test_an_answer_may_take_its_time(self) -> None:
        """It is the server's."""
        visitor = self.visit(get("/late"))
        self.wait(300)
        self.late.answer(b"late")
        (answer,) = visitor.take()
        self.assertEqual((answer.body, visitor.wire.lost), (b"late", False))

    def test_who_is_refused_and_does_not_go_is_dropped(self) -> None:
        """After five seconds, whatever is sent meanwhile."""
        visitor = self.visit(b"nonsense\r\n\r\n")
        self.wait(4)
        visitor.protocol.dataReceived(get() * 1000)
        self.assertFalse(visitor.wire.aborted)
        self.wait(1)
        self.assertTrue(visitor.wire.aborted)
        self.assertEqual([answer.status for answer in visitor.take()], [400])


class Flow(_WithFactory):
    """Clients that do not read."""

    def test_a_producer_is_stopped_while_the_client_does_not_read(self) -> None:
        """What is unsent is bounded, and it goes on when that is gone."""
        visitor = self.visit()
        visitor.wire.stalled = True
        visitor.send(get("/flood"))
        unsent = len(visitor.wire.value())
        self.assertLess(unsent, 2 * HIGH_WATER)
        visitor.wire.stalled = False
        for _ in range(3):
            self.assertGreater(len(visitor.wire.take()), HIGH_WATER)
        visitor.lose()
        self.assertFalse(self.flood.flowing)

    def test_who_reads_no_answers_is_not_read_from(self) -> None:
        """Nor is what was read already answered, until it is."""
        visitor = self.visit()
        visitor.wire.stalled = True
        sent = 0
        while visitor.wire.reading and sent < 100:
            visitor.send(post("/echo", b"x" * 60_000) * 3).turn(20)
            sent += 3
        self.assertFalse(visitor.wire.reading)
        self.assertLess(len(visitor.wire.value()), 2 * HIGH_WATER)
        visitor.wire.stalled = False
        answers: list[Answer] = []
        while len(answers) < sent:
            answers += visitor.turn().take()
        self.assertEqual({len(answer.body) for answer in answers}, {60_000})
        self.assertTrue(visitor.wire.reading)

    def test_who_has_read_a_large_answer_is_read_from_again(self) -> None:
        """As often as that happens."""
        visitor = self.visit()
        for _ in range(3):
            visitor.wire.stalled = True
            visitor.send(post("/echo", b"x" * 100_000)).turn()
            self.assertFalse(visitor.wire.reading)
            visitor.wire.stalled = False
            self.assertEqual([len(answer.body) for answer in visitor.take()], [100_000])
            self.assertTrue(visitor.wire.reading)

    def test_who_reads_now_and_then_is_not_dropped(self) -> None:
        """A minute counts from where the client last read all that was there."""
        visitor = self.visit(get("/flood"))
        visitor.wire.stalled = True
        for _ in range(4):
            self.wait(50)
            visitor.wire.stalled = False
            visitor.wire.take()
            visitor.wire.stalled = True
        self.assertFalse(visitor.wire.aborted)
        visitor.lose()

    def test_who_reads_nothing_for_a_minute_is_dropped(self) -> None:
        """Also when the connection was to end with the answer."""
        for request in (post("/echo", b"x" * 100_000, Connection="close"), get("/flood")):
            visitor = self.visit()
            visitor.wire.stalled = True
            visitor.send(request)
            self.wait(59)
            self.assertFalse(visitor.wire.aborted)
            self.wait(1)
            self.assertTrue(visitor.wire.aborted)
            visitor.lose()


class Stopping(_WithFactory):
    """The end of all connections."""

    def test_idle_and_half_received_are_closed_at_once(self) -> None:
        """There is nothing to wait for."""
        visitors = [self.visit(get()), self.visit(get(), post("/echo", b"x")[:-1])]
        gone = self.factory.drain()
        for visitor in visitors:
            self.assertEqual((len(visitor.take()), visitor.wire.lost), (1, True))
        self.assertIsNone(self.successResultOf(gone))

    def test_an_answer_under_way_is_waited_for(self) -> None:
        """And is the last of its connection, though there are other requests."""
        visitor = self.visit(get("/late"), get())
        gone = self.factory.drain()
        self.assertFalse(visitor.wire.lost)
        self.late.answer(b"late")
        (answer,) = visitor.turn().take()
        self.assertEqual((answer.body, answer.headers["connection"]), (b"late", "close"))
        self.assertIsNone(self.successResultOf(gone))

    def test_but_not_for_ever(self) -> None:
        """Five seconds; others are told after two."""
        visitor = self.visit(get("/late"))
        gone = self.factory.drain()
        self.wait(4)
        self.assertFalse(visitor.wire.lost)
        self.wait(1)
        self.assertTrue(visitor.wire.aborted)
        visitor.lose()
        self.assertIsNone(self.successResultOf(gone))
