"""A client over a real socket: the ``websockets`` library's, which knows nothing of ours."""

from __future__ import annotations

import contextlib
import json
import socket
from pathlib import Path
from typing import Any, Self
from unittest import TestCase
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin, Subprotocol

from tests.server import Server

__all__ = ["TIMEOUT", "Caller", "ServerCase", "dial"]

TIMEOUT = 5.0
"""Seconds that an answer may take on a busy machine."""


def dial(url: str, unix: Path | None = None) -> socket.socket:
    """A socket to where ``url`` points, or to ``unix``; no proxy that the environment names."""
    if unix is not None:
        stream = socket.socket(socket.AF_UNIX)
        stream.settimeout(TIMEOUT)
        stream.connect(str(unix))
        return stream
    parts = urlsplit(url)
    stream = socket.create_connection((parts.hostname, parts.port), TIMEOUT)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return stream


class Caller:
    """One connection to the server at ``url``.

    ``user`` goes into the URL; with ``program`` the subprotocol is offered, with "deflate" as
    ``compression`` that.
    """

    def __init__(
        self,
        url: str,
        user: str | None = None,
        *,
        program: bool = False,
        origin: str | None = None,
        host: str | None = None,
        unix: Path | None = None,
        compression: str | None = None,
    ) -> None:
        self._socket = dial(url, unix)
        uri = url if user is None else f"{url}?user={user}"
        try:
            self.websocket: ClientConnection = connect(
                uri if host is None else uri.replace(urlsplit(url).netloc, host),
                sock=self._socket,
                subprotocols=[Subprotocol("chat.v1")] if program else None,
                origin=None if origin is None else Origin(origin),
                compression=compression,
                open_timeout=TIMEOUT,
                close_timeout=TIMEOUT,
            )
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- what it says ---

    def say(self, text: str | bytes | None = None, **fields: Any) -> Self:
        """Send ``text`` as it is (bytes go as a binary frame), or ``fields`` as a JSON object."""
        if text is None:
            if "sender" in fields:
                fields["from"] = fields.pop("sender")
            text = json.dumps(fields)
        self.websocket.send(text)
        return self

    def say_text(self, payload: bytes) -> Self:
        """Send a text frame that need not be UTF-8."""
        self.websocket.send(payload, text=True)
        return self

    def hello(self, user: str, **fields: Any) -> dict[str, Any]:
        """Say ``hello``; the ``welcome``. What was missed and ``caught_up`` are still to take."""
        self.say(op="hello", user=user, id="hello", **fields)
        welcome = self.take()
        assert welcome["event"] == "welcome", welcome
        return welcome

    # --- what it hears ---

    def text(self, timeout: float = TIMEOUT) -> str:
        """The next frame, as it came."""
        frame = self.websocket.recv(timeout)
        assert isinstance(frame, str), frame
        return frame

    def take(self, timeout: float = TIMEOUT) -> dict[str, Any]:
        """The next frame, decoded."""
        frame = json.loads(self.text(timeout))
        assert isinstance(frame, dict), frame
        return frame

    def take_until(self, **wanted: Any) -> list[dict[str, Any]]:
        """The frames up to the first that has all of ``wanted``, which is the last of them."""
        frames = [self.take()]
        while any(frames[-1].get(name) != value for name, value in wanted.items()):
            frames.append(self.take())
        return frames

    def ask(self, **fields: Any) -> dict[str, Any]:
        """Send a command and take the next frame, which is its reply."""
        self.say(**fields)
        answer = self.take()
        assert answer.get("id") == fields.get("id"), answer
        return answer

    def heard_within(self, seconds: float) -> list[str]:
        """The frames that come in the next ``seconds``; for asserting silence."""
        frames = []
        with contextlib.suppress(TimeoutError):
            while True:
                frames.append(self.text(seconds))
        return frames

    def rest(self) -> tuple[list[dict[str, Any]], int | None, str | None]:
        """What comes until the server closes; then the close code and its reason."""
        frames = []
        try:
            while True:
                frames.append(self.take())
        except ConnectionClosed as closed:
            received = closed.rcvd
            if received is None:
                return frames, None, None
            return frames, received.code, received.reason

    # --- how it goes ---

    def close(self) -> None:
        """Close as one should."""
        self.websocket.close()

    def cut(self) -> None:
        """Be gone without a word, as when a cable is pulled."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.websocket.close()


class ServerCase(TestCase):
    """A test of the real server."""

    def setUp(self) -> None:
        """Start a server."""
        self.server = self.enterContext(Server())

    def tearDown(self) -> None:
        """Whatever happened, the server has nothing to be ashamed of."""
        self.assertNotIn("Traceback", self.server.log)
        self.assertNotIn("Unhandled", self.server.log)

    def call(self, user: str | None = None, *, program: bool = False) -> Caller:
        """A connection that is closed at the end."""
        return self.enterContext(Caller(self.server.url, user, program=program))
