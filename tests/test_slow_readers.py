"""Clients that do not read, over real sockets: what is kept for them, and that nothing is lost."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads, IReactorTCP, IReactorTime
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from chatsvc.state import ChatState
from chatsvc.store.memory import MemoryStore
from chatsvc.web.pages import Root
from chatsvc.web.site import HttpSite
from chatsvc.websocket import UNREAD_REPLIES, ChatFactory, ChatProtocol
from tests.caller import Caller
from tests.fakes import DAY, MIB, counter
from tests.peer import OPTIONS

MANY = 120
"""Messages, which are much more than anybody keeps for a reader."""
TEXT = "x" * 60_000
"""Nearly the largest message."""


def unsent(connection: ChatProtocol) -> int:
    """Bytes that this process keeps for a client."""
    transport = connection.transport
    waiting = len(transport.dataBuffer) - transport.offset + transport._tempDataLen
    return int(waiting) + connection._unsent


class SlowReaders(TestCase):
    """The server runs in the reactor of the tests, its clients in threads."""

    timeout = 60

    def setUp(self) -> None:
        """Listen on loopback."""
        clock = IReactorTime(reactor)
        store = MemoryStore(clock, "e", retention=DAY, quota=10_000, max_bytes=256 * MIB)
        state = ChatState(store, clock, counter("s"))
        state.start()
        self.addCleanup(state.stop)
        site = HttpSite(Root(ready=lambda: True), OPTIONS.hosts, clock)
        self.factory = ChatFactory(state, OPTIONS, {}, clock, site)
        self.factory.begin()
        self.addCleanup(self.factory.drain)
        port: Any = IReactorTCP(reactor).listenTCP(0, self.factory, 5, "127.0.0.1")
        self.addCleanup(port.stopListening)
        self.url = f"ws://127.0.0.1:{port.getHost().port}/ws"
        self.most = 0

    def watch(self) -> None:
        """Note the most that is kept for any one client."""
        for connection in self.factory.connections:
            if isinstance(connection, ChatProtocol):
                self.most = max(self.most, unsent(connection))

    def look(self) -> None:
        """Watch, from a client's thread."""
        blockingCallFromThread(IReactorFromThreads(reactor), self.watch)

    def send_all(self, caller: Caller, **address: str) -> None:
        """Send all messages, each when the last is stored."""
        for number in range(MANY):
            caller.ask(msg=f"{number:03}{TEXT}", id=number, **address)
            self.look()

    def test_for_a_reader_that_stands_still_a_bounded_amount_is_kept(self) -> Deferred[None]:
        """Then it lags, and when it reads again it is fed from the log and misses nothing."""

        def story() -> list[dict[str, Any]]:
            with (
                Caller(self.url, program=True) as alice,
                Caller(self.url, program=True) as bob,
                Caller(self.url, program=True) as carol,
            ):
                for caller, user in ((alice, "alice"), (bob, "bob"), (carol, "carol")):
                    caller.hello(user)
                    caller.take_until(event="caught_up")
                self.send_all(alice, to="bob")
                alice.ask(to="carol", msg="hi", id="last")
                self.assertEqual(carol.take()["msg"], "hi")
                return bob.take_until(event="caught_up")

        def check(frames: list[dict[str, Any]]) -> None:
            texts = [frame["msg"][:3] for frame in frames if "msg" in frame]
            self.assertEqual(texts, [f"{number:03}" for number in range(MANY)])
            events = [frame["event"] for frame in frames if "event" in frame]
            self.assertEqual(events, ["lagging", "caught_up"])
            self.assertLessEqual(self.most, OPTIONS.max_outbox)
            self.assertGreater(self.most, OPTIONS.max_outbox // 4)

        return deferToThread(story).addCallback(check)

    def test_of_replies_that_are_not_read_a_bounded_amount_is_kept(self) -> Deferred[None]:
        """However large, and whatever comes besides."""

        def story() -> list[Any]:
            with (
                Caller(self.url, program=True) as alice,
                Caller(self.url, program=True) as bob,
            ):
                for caller, user in ((alice, "alice"), (bob, "bob")):
                    caller.hello(user)
                    caller.take_until(event="caught_up")
                self.send_all(alice, to="zed")
                for mark in range(40):
                    alice.say(op="history", to="zed", id=mark)
                for number in range(20):
                    bob.ask(to="alice", msg=TEXT, id=number)
                    self.look()
                frames = alice.take_until(event="history", id=39)
                return [frame["id"] for frame in frames if frame.get("event") == "history"]

        def check(marks: list[Any]) -> None:
            self.assertEqual(marks, list(range(40)))
            self.assertLessEqual(self.most, OPTIONS.max_outbox)
            self.assertGreater(self.most, UNREAD_REPLIES)

        return deferToThread(story).addCallback(check)
