"""The pages that are served over HTTP."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import House
from tests.peer import make_factory
from tests.visitor import Answer, Broken, Visitor, get, post


class Pages(SynchronousTestCase):
    """What is there, and what is not."""

    def setUp(self) -> None:
        """Make a house that is not open yet."""
        self.factory = make_factory(House(), serving=False)

    def ask(self, request: bytes) -> Answer:
        """What a new client is answered."""
        return Visitor(self.factory).ask(request)

    def test_healthz_is_ok_for_as_long_as_the_process_runs(self) -> None:
        """Whether clients are served or not."""
        for change in (self.factory.begin, self.factory.drain, str):
            answer = self.ask(get("/healthz"))
            self.assertEqual((answer.status, answer.body), (200, b"ok\n"))
            self.assertEqual(answer.headers["content-type"], "text/plain; charset=utf-8")
            change()

    def test_all_else_is_unavailable_until_clients_are_served(self) -> None:
        """And when they no longer are."""
        paths = ("/readyz", "/ws", "/", "/nothing")
        self.assertEqual([self.ask(get(path)).status for path in paths], [503] * 4)
        self.factory.begin()
        self.assertEqual([self.ask(get(path)).status for path in paths], [200, 426, 404, 404])
        self.factory.drain()
        self.assertEqual([self.ask(get(path)).status for path in paths], [503] * 4)

    def test_before_that_no_connection_is_kept(self) -> None:
        """Nobody looks after them yet."""
        self.assertEqual(self.ask(get()).headers["connection"], "close")

    def test_what_asks_for_no_web_socket_at_its_path_is_told_so(self) -> None:
        """With what RFC 9110, section 15.5.22, demands; and what it wants instead."""
        self.factory.begin()
        answer = self.ask(get("/ws?user=alice"))
        self.assertEqual(answer.status, 426)
        self.assertEqual(answer.headers["upgrade"], "websocket")
        self.assertEqual(answer.headers["connection"], "Upgrade")
        self.assertIn(b"websocat", answer.body)

    def test_what_is_not_there_is_not_found(self) -> None:
        """Nor is what would be below a page."""
        self.factory.begin()
        for path in ("/healthz/", "/healthz/x", "//healthz", "/ws/x", "/%2e%2e/x", "*", "x"):
            self.assertEqual(self.ask(get(path)).status, 404, path)

    def test_a_page_can_only_be_looked_at(self) -> None:
        """HEAD is GET without the body; other methods are not allowed."""
        self.factory.begin()
        head = self.ask(get("/healthz", "HEAD"))
        self.assertEqual((head.status, head.headers["content-length"], head.body), (200, "3", b""))
        for method in ("DELETE", "OPTIONS", "PUT", "TRACE", "BREW"):
            answer = self.ask(get("/healthz", method))
            self.assertEqual((answer.status, answer.headers["allow"]), (405, "GET, HEAD"), method)
        self.assertEqual(self.ask(post("/readyz", b"x" * 100)).status, 405)

    def test_no_answer_tells_what_the_server_is_made_of(self) -> None:
        """Its own name and version are all."""
        self.factory.begin()
        for request in (
            get("/nothing"),
            get("/healthz", "BREW"),
            get("*", "OPTIONS"),
            get("/ws"),
            b"x\r\n\r\n",
        ):
            answer = self.ask(request)
            self.assertTrue(answer.headers["server"].startswith("chatsvc/"))
            told = f"{answer.headers} {answer.body!r}".lower()
            for word in ("twisted", "autobahn", "python", "html", "brew"):
                self.assertNotIn(word, told)

    def test_a_page_that_fails_tells_nothing_of_why(self) -> None:
        """That is in the log."""
        self.factory.begin()
        self.factory.site.resource.putChild(b"broken", Broken())
        answer = self.ask(get("/broken"))
        self.assertEqual((answer.status, answer.body), (500, b"internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_a_page_that_fails_half_way_is_not_taken_for_whole(self) -> None:
        """The connection is dropped."""
        self.factory.begin()
        self.factory.site.resource.putChild(b"broken", Broken())
        visitor = Visitor(self.factory).send(get("/broken?late=1"))
        self.assertTrue(visitor.wire.aborted)
        visitor.lose()
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)
