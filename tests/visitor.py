"""A client of HTTP in memory; what it is answered is read by the standard library's own reader."""

from __future__ import annotations

from http.client import HTTPResponse
from io import BytesIO
from typing import Any, NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from chatsvc.websocket import ChatFactory
from tests.peer import Wire

__all__ = ["Answer", "Broken", "Echo", "Late", "Visitor", "get", "post", "read_answers"]


class Answer(NamedTuple):
    """An answer; the names of its headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class _Kept(BytesIO):
    """Bytes that stay open when one answer has been read."""

    def makefile(self, *_: object) -> _Kept:
        """As a socket would."""
        return self

    def close(self) -> None:
        """Stay."""


def read_answers(data: bytes, *methods: str) -> list[Answer]:
    """All answers in ``data``; to GET, or to what ``methods`` say of the first ones."""
    stream: Any = _Kept(data)
    answers: list[Answer] = []
    while stream.tell() < len(data):
        method = methods[len(answers)] if len(answers) < len(methods) else "GET"
        response = HTTPResponse(stream, method=method)
        response.begin()
        body = response.read()
        headers = {name.lower(): value for name, value in response.getheaders()}
        answers.append(Answer(response.status, headers, body))
    return answers


def get(path: str = "/healthz", method: str = "GET", version: str = "1.1", **headers: str) -> bytes:
    """A request without a body; underscores in names of headers stand for hyphens."""
    named = {"Host": "localhost", **headers}
    fields = [f"{name.replace('_', '-')}: {value}\r\n" for name, value in named.items()]
    return f"{method} {path} HTTP/{version}\r\n{''.join(fields)}\r\n".encode()


def post(path: str, body: bytes, **headers: str) -> bytes:
    """A request with a body."""
    return get(path, "POST", **{"Content_Length": str(len(body)), **headers}) + body


class Visitor:
    """One connection to ``factory``."""

    def __init__(self, factory: ChatFactory) -> None:
        self.factory = factory
        self.wire = Wire()
        protocol: Any = factory.buildProtocol(None)
        self.protocol = protocol
        self.protocol.makeConnection(self.wire)
        self._gone = False

    def send(self, *pieces: bytes) -> Visitor:
        """Send bytes, piece by piece, while the server takes any; no turn of the reactor ends."""
        for piece in pieces:
            if not self.wire.lost:
                self.protocol.dataReceived(piece)
        return self

    def turn(self, turns: int = 1) -> Visitor:
        """Let turns of the reactor end."""
        for _ in range(turns):
            self.factory.clock.advance(0)  # type: ignore[attr-defined] # a test's clock
        return self

    def take(self, *methods: str) -> list[Answer]:
        """The answers that have come; the connection is lost if the server has closed it."""
        answers = read_answers(self.wire.take(), *methods)
        if self.wire.lost:
            self.lose()
        return answers

    def ask(self, *pieces: bytes) -> Answer:
        """Send a request, and take its answer."""
        (answer,) = self.send(*pieces).turn().take(pieces[0].partition(b" ")[0].decode("latin-1"))
        return answer

    def lose(self) -> None:
        """The connection is lost."""
        if not self._gone:
            self._gone = True
            self.protocol.connectionLost(Failure(ConnectionDone()))


# --- resources ---


class Echo(Resource):
    """Says the body again."""

    def render_POST(self, request: Request) -> bytes:
        """Answer at once."""
        assert request.content is not None
        body: bytes = request.content.read()
        return body


class Late(Resource):
    """Answers when the test does; ``requests`` are those that wait."""

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[Request] = []

    def render_GET(self, request: Request) -> int:
        """Keep the request."""
        self.requests.append(request)
        return NOT_DONE_YET

    def answer(self, body: bytes) -> None:
        """Answer the first that waits."""
        request = self.requests.pop(0)
        request.write(body)
        request.finish()


class Broken(Resource):
    """Fails; after the beginning of an answer, where that is asked for."""

    def render_GET(self, request: Request) -> bytes:
        """Fail."""
        if b"late" in (request.args or {}):
            request.write(b"some")
        raise KeyError("/etc/secret")
