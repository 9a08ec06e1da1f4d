"""What is served over HTTP: the tree of pages.

``/healthz`` tells that the process runs, ``/readyz`` that clients are served. Until they are, every
other page is 503. ``/ws`` is for WebSockets, which never get here.
"""

from __future__ import annotations

from collections.abc import Callable

from twisted.web.resource import Resource

from chatsvc.web.site import ChatRequest

__all__ = ["Root"]


class Always(Resource):
    """The same answer to whatever is asked."""

    isLeaf = True

    def __init__(self, code: int, text: str) -> None:
        super().__init__()
        self._code = code
        self._text = text

    def render(self, request: ChatRequest) -> bytes:
        """Answer."""
        return request.plain(self._code, self._text)


class Branch(Resource):
    """A page with nothing below it but its children."""

    def getChild(self, path: bytes, request: ChatRequest) -> Resource:  # noqa: ARG002 - Twisted's
        """What is not a child is not there."""
        return Always(404, "there is nothing here")


class Page(Branch):
    """A page that can only be looked at."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__()
        self._code = code
        self._text = text

    def render_GET(self, request: ChatRequest) -> bytes:
        """Show it."""
        return request.plain(self._code, self._text)


class Root(Branch):
    """All pages; ``ready`` tells whether clients are served."""

    def __init__(self, ready: Callable[[], bool]) -> None:
        super().__init__()
        self._ready = ready
        self.putChild(b"healthz", Page(200, "ok"))
        self.putChild(b"readyz", Page(200, "ready"))
        self.putChild(b"ws", Page(426, "connect with a WebSocket client, such as websocat"))

    def getChildWithDefault(self, path: bytes, request: ChatRequest) -> Resource:
        """The page of this name."""
        if path != b"healthz" and not self._ready():
            return Always(503, "not serving now")
        child: Resource = super().getChildWithDefault(path, request)
        return child

    def render_GET(self, request: ChatRequest) -> bytes:
        """There is no page at the root."""
        return request.plain(404, "there is nothing here")
