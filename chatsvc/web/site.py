"""The site: which hosts are answered, and how a resource's answer is put.

Resources are twisted.web's. What they raise, and what they have no method for, is answered in plain
text that tells nothing of the inside; ``request.plain`` does the same for them.
"""

from __future__ import annotations

from http import HTTPStatus
from io import BytesIO
from typing import Any
from urllib.parse import unquote_to_bytes

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.http import datetimeToString
from twisted.web.resource import IResource
from twisted.web.server import NOT_DONE_YET, Request, Site

from chatsvc.web.channel import SERVER, Channel

__all__ = ["ChatRequest", "HttpSite"]

log = Logger()


class ChatRequest(Request):
    """A request, and its answer."""

    defaultContentType = b"text/plain; charset=utf-8"
    channel: Any

    def handleContentChunk(self, data: bytes) -> None:
        """Keep a piece of the body, where there is room."""
        if self.channel.room_for(len(data)):
            super().handleContentChunk(data)

    def process(self) -> None:
        """Find the resource, and let it answer."""
        self.site = self.channel.site
        self.setHeader(b"Server", SERVER.encode())
        self.setHeader(b"Date", datetimeToString(self.site.reactor.seconds()))
        self.prepath = []
        self.postpath = [unquote_to_bytes(part) for part in self.path[1:].split(b"/")]
        try:
            if self._asks_for_a_web_socket():
                self._say(self.plain(426, "a WebSocket wants a connection of its own"))
            else:
                self.render(self.channel.site.getResourceFor(self))
        except Exception:
            self.processingFailed(Failure())

    def _asks_for_a_web_socket(self) -> bool:
        offers = b",".join(self.requestHeaders.getRawHeaders(b"Upgrade", []))
        return b"websocket" in [offer.strip(b" \t").lower() for offer in offers.split(b",")]

    def render(self, resrc: IResource) -> None:
        """Let a resource answer."""
        try:
            body = resrc.render(self)
        except UnsupportedMethod as error:
            self.setHeader(b"Allow", b", ".join(sorted(error.allowedMethods)))
            body = self.plain(405, "this cannot be done here")
        if body is not NOT_DONE_YET:
            self._say(body)

    def _say(self, body: bytes) -> None:
        self.setHeader(b"Content-Length", b"%d" % len(body))
        self.write(body)
        self.finish()

    def plain(self, code: int, text: str) -> bytes:
        """The body of an answer in plain text, whose head is set."""
        status = HTTPStatus(code)
        self.setResponseCode(status.value, status.phrase.encode())
        self.setHeader(b"Content-Type", self.defaultContentType)
        self.setHeader(b"X-Content-Type-Options", b"nosniff")
        if status is HTTPStatus.UPGRADE_REQUIRED:  # RFC 9110, section 15.5.22
            self.setHeader(b"Upgrade", b"websocket")
            self.responseHeaders.addRawHeader(b"Connection", b"Upgrade")
        return f"{text}\n".encode()

    def processingFailed(self, reason: Failure) -> Failure:
        """A resource failed: that is ours to know."""
        log.failure("answering a request", reason)
        if self.startedWriting:
            self.channel.abort()  # who has the beginning must not take it for all
        else:
            self._say(self.plain(500, "internal error"))
        return reason


class HttpSite(Site):
    """The pages under ``root``, for clients that name one of ``hosts``, or any if that is None."""

    protocol = Channel  # type: ignore[assignment] # Twisted's own is a function
    noisy = False

    def __init__(self, root: IResource, hosts: frozenset[str] | None, clock: IReactorTime) -> None:
        super().__init__(
            root,
            ChatRequest,
            timeout=None,
            parsePOSTFormSubmission=False,
            reactor=clock,
        )
        self.hosts = hosts
        self.bodies = 0

    def startFactory(self) -> None:
        """Keep no log of who asked for what."""

    def stopFactory(self) -> None:
        """There is none."""

    def getContentFile(self, length: int | None) -> BytesIO:  # noqa: ARG002 - Twisted's
        """Where a body is kept: its size is bounded, and it needs no file."""
        return BytesIO()

    def refusal(self, request: Request, version: bytes) -> tuple[HTTPStatus, str] | None:
        """Why a request is not to be answered, by its host.

        Programs of HTTP/1.0 may name none; it is browsers that must not be deceived.
        """
        names = request.requestHeaders.getRawHeaders(b"Host", [])
        if len(names) > 1 or (not names and version != b"HTTP/1.0"):
            return HTTPStatus.BAD_REQUEST, "there must be one Host"
        if names and self.hosts is not None and _without_port(names[0]) not in self.hosts:
            return HTTPStatus.FORBIDDEN, "this host is not served"
        return None


def _without_port(host: bytes) -> str:
    name = host.decode("latin-1").lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name
