"""Clients by the dozen, in one event loop: they are cut off, come back, and keep account.

A :class:`Guest` is one user's session, over the ``websockets`` library. It resumes after what it
has heard, and takes note of what it has said and which of that was acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from tests.caller import TIMEOUT, dial

__all__ = ["PATIENCE", "Gone", "Guest"]


PATIENCE = 60.0
"""Seconds after which what a guest waits for will not come."""


class Gone(Exception):
    """The connection ended before the answer came."""


class Guest:
    """See the module.

    ``heard`` are the messages by ``seq``, ``last`` is the text of the last of them. ``done`` are
    the places of what was said and acknowledged, by key; ``waiting`` is what was said and not.
    ``topics`` are heard while it is here.
    """

    def __init__(self, name: str, *topics: str) -> None:
        self.name = name
        self.welcome: dict[str, Any] = {}
        self.since = 0
        self.heard: dict[int, dict[str, Any]] = {}
        self.last = ""
        self.replayed: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.waiting: dict[str, dict[str, Any]] = {}
        self.done: dict[str, int] = {}
        self._topics = topics
        self._websocket: ClientConnection | None = None
        self._listening: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._replies: dict[int, asyncio.Future[dict[str, Any] | None]] = {}
        self._changed = asyncio.Event()
        self._up = False

    # --- coming and going ---

    async def come(self, url: str, **hello: Any) -> None:
        """Begin a session, after what was heard last unless ``hello`` says otherwise; a field that
        is None there is not given. Without ``since`` it begins where the server has it.

        :raises Gone: the server is not there, or goes away.
        """
        stream = None
        try:
            stream = dial(url)
            stream.settimeout(0)
            self._websocket = await connect(
                url,
                sock=stream,
                subprotocols=[Subprotocol("chat.v1")],
                compression=None,
                ping_interval=None,
                open_timeout=4 * TIMEOUT,
                close_timeout=TIMEOUT,
            )
        except (ConnectionError, EOFError, InvalidHandshake, ConnectionClosed):
            if stream is not None:
                stream.close()
            raise Gone from None
        self._up = False
        self._listening = asyncio.create_task(self._listen(self._websocket))
        fields = {"since": self.since, "topics": self._topics, **hello}
        given = {name: value for name, value in fields.items() if value is not None}
        self.since = given.get("since", 0)
        self.welcome = await self.ask(op="hello", user=self.name, **given)
        assert self.welcome["event"] == "welcome", self.welcome

    async def hears(self, count: int) -> None:
        """Wait until so many messages have been heard, in all.

        :raises Gone: the connection ends before.
        """
        await self.until(lambda: len(self.heard) >= count)

    async def caught_up(self) -> None:
        """Wait until nothing is missed any more.

        :raises Gone: the connection ends before.
        """
        await self.until(lambda: self._up)

    async def replay(self) -> dict[str, Any]:
        """Wait for a message that a subscription brings; the first one.

        :raises Gone: the connection ends before.
        """
        await self.until(lambda: bool(self.replayed))
        return self.replayed[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds that changes by what is heard.

        :raises Gone: the connection ends before.
        """
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._here()
                self._changed.clear()
                await self._changed.wait()

    async def cut(self) -> None:
        """Be gone without a word, as when a cable is pulled."""
        if self._websocket is not None:
            self._websocket.transport.abort()
        await self.gone()

    async def leave(self) -> None:
        """Close as one should."""
        if self._websocket is not None:
            await self._websocket.close()
        await self.gone()

    async def gone(self) -> None:
        """Wait for the end of the connection; raises what was wrong with what came."""
        if self._listening is not None:
            await self._listening

    # --- what it says ---

    async def ask(self, **fields: Any) -> dict[str, Any]:
        """Send a command; its reply.

        :raises Gone: none comes.
        """
        websocket = self._here()
        number = next(self._numbers)
        reply = self._replies[number] = asyncio.get_running_loop().create_future()
        try:
            await websocket.send(json.dumps({"id": number, **fields}))
        except ConnectionClosed:
            raise Gone from None
        answer: dict[str, Any] | None = await asyncio.wait_for(reply, PATIENCE)
        if answer is None:
            raise Gone
        return answer

    async def tell(self, **fields: Any) -> None:
        """Send a command, and ask for no reply."""
        await self._here().send(json.dumps(fields))

    async def say(self, key: str, **fields: Any) -> dict[str, Any]:
        """Send a message, which is its own key; it waits until it is acknowledged.

        :raises Gone: it is not.
        """
        self.waiting[key] = fields
        answer = await self.ask(key=key, msg=key, **fields)
        assert answer["event"] == "ok", answer
        del self.waiting[key]
        self.done[key] = answer["seq"]
        return answer

    async def read(self, after: int, **address: str) -> list[dict[str, Any]]:
        """All messages of a conversation above ``after``."""
        entries: list[dict[str, Any]] = []
        while True:
            page = await self.ask(op="history", after=after, limit=200, **address)
            assert page["event"] == "history", page
            entries += page["messages"]
            if page["complete"]:
                return [entry for entry in entries if "msg" in entry]
            after = entries[-1]["seq"]

    # --- what it hears ---

    def _here(self) -> ClientConnection:
        if self._websocket is None or self._listening is None:
            raise Gone
        if self._listening.done():
            self._listening.result()  # raises what was wrong with what came
            raise Gone
        return self._websocket

    async def _listen(self, websocket: ClientConnection) -> None:
        try:
            while True:
                self._take(json.loads(await websocket.recv()))
        except ConnectionClosed:
            pass
        finally:
            replies, self._replies = self._replies, {}
            for reply in replies.values():
                _answer(reply, None)
            asyncio.get_running_loop().call_soon(self._changed.set)

    def _take(self, frame: dict[str, Any]) -> None:
        event = frame.get("event")
        if "id" in frame:
            _answer(self._replies.pop(frame["id"]), frame)
            return
        if event == "caught_up":
            self._up = True
            self.since = max(self.since, frame["seq"])
        elif event == "lagging":
            self._up = False
        elif frame.get("replay"):
            self.replayed.append(frame)
        elif "seq" in frame:
            assert frame["seq"] > self.since, f"{self.name} at {self.since}: {frame}"
            self.since = frame["seq"]
            if event is None:
                self.heard[self.since] = frame
                self.last = frame["msg"]
        if event is not None:
            self.events.append(frame)
        self._changed.set()


def _answer(reply: asyncio.Future[dict[str, Any] | None], frame: dict[str, Any] | None) -> None:
    if not reply.done():  # nobody waits for it any more
        reply.set_result(frame)
