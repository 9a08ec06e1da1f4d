"""Ten thousand missed messages, over real sockets: they come in order, whatever else goes on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Coroutine
from pathlib import Path
from unittest import TestCase

from tests.caller import Caller
from tests.chance import chance
from tests.crowd import Guest
from tests.server import Server

MISSED = 10_000
MIB = 1024 * 1024


class Away(TestCase):
    """Ann is away, while Ben writes to her, to a group of both and to a topic that she hears."""

    def setUp(self) -> None:
        """Start a server where so much may wait for one user."""
        self.server = self.enterContext(Server("--quota", str(2 * MISSED)))
        self.ann, self.ben = Guest("ann"), Guest("ben")
        self.said: list[str] = []
        self.talking = False

    def tearDown(self) -> None:
        """Nothing that happened is a defect of the server."""
        self.assertNotIn("Traceback", self.server.log)
        self.assertNotIn("Unhandled", self.server.log)

    async def leave(self, data: str = "") -> None:
        """Ann comes and goes, and misses ten thousand messages."""
        await self.ann.come(self.server.url, device="phone")
        await self.ben.come(self.server.url)
        await self.ann.ask(op="subscribe", topic="news/#", durable=True)
        for guest in (self.ann, self.ben):
            await guest.ask(op="join", group="devs")
        await self.ann.leave()
        for _ in range(MISSED):
            await self.say(data)
        await self.stored()

    async def say(self, data: str = "") -> None:
        """Ben says something, to one or another, and waits for nothing."""
        number = len(self.said)
        address = ({"to": "ann"}, {"group": "devs"}, {"topic": f"news/{number % 7}"})[number % 3]
        self.said.append(f"m{number}")
        await self.ben.tell(msg=self.said[-1], data=data, **address)

    async def stored(self) -> None:
        """Wait until all that Ben has said is stored."""
        self.assertEqual((await self.ben.ask(op="ping"))["event"], "pong")

    async def meanwhile(self, what: Coroutine[None, None, None]) -> None:
        """Do something, while Ben says one thing after another."""

        async def talk() -> None:
            while self.talking:
                await self.say()
                await self.stored()

        self.talking = True
        talking = asyncio.create_task(talk())
        try:
            await what
        finally:
            self.talking = False
            await talking

    async def heard_all(self) -> None:
        """Ann has heard everything once, in the order in which it was said, and of no gap."""
        await self.ann.until(lambda: self.ann.last == self.said[-1])
        self.assertEqual([m["msg"] for m in self.ann.heard.values()], self.said)
        self.assertNotIn("gap", [event["event"] for event in self.ann.events])
        for guest in (self.ann, self.ben):
            await guest.leave()


class Returning(Away):
    """She comes back, while he goes on."""

    def test_all_of_it_comes_once_and_in_order_and_then_what_is_live(self) -> None:
        """A device is told when it has caught up, and hears the rest as it comes."""
        asyncio.run(self._come_back())

    async def _come_back(self) -> None:
        await self.leave()
        await self.meanwhile(self._catch_up())
        await self.heard_all()

    async def _catch_up(self) -> None:
        await self.ann.come(self.server.url, device="phone", since=None)
        await self.ann.caught_up()
        heard = len(self.ann.heard)
        self.assertGreaterEqual(heard, MISSED)
        await self.ann.hears(heard + 10)

    def test_it_can_be_cut_anywhere_and_goes_on_there(self) -> None:
        """The parts together are the whole, without a hole and without a repetition."""
        with chance() as rng:
            asyncio.run(self._come_back_often([rng.randrange(MISSED) for _ in range(8)]))

    async def _come_back_often(self, cuts: list[int]) -> None:
        await self.leave()
        await self.meanwhile(self._be_cut(sorted(cuts)))
        await self.heard_all()

    async def _be_cut(self, cuts: list[int]) -> None:
        for count in cuts:
            await self.ann.come(self.server.url)
            await self.ann.hears(count)
            await self.ann.cut()
        await self.ann.come(self.server.url)
        await self.ann.caught_up()


class NotReading(Away):
    """She comes back and does not read; that is her own affair."""

    def test_others_are_served_and_the_memory_does_not_grow(self) -> None:
        """Five connections that have 20 MiB each to come cost far less than that."""
        asyncio.run(self._leave_and_go_on())

    async def _leave_and_go_on(self) -> None:
        await self.leave(data="x" * 2000)
        before = self.memory()
        stuck = [Caller(self.server.url, program=True) for _ in range(5)]
        for caller in stuck:
            self.enterContext(caller)
            caller.hello("ann", since=0)
        with Caller(self.server.url, "eve") as eve:
            for number in range(50):
                for _ in range(20):
                    await self.say()
                await self.stored()
                self.assertEqual(eve.ask(op="ping", id=number)["event"], "pong")
        self.assertLess(self.memory() - before, 60 * MIB)
        frames = stuck[0].take_until(msg=self.said[-1])
        self.assertEqual([frame["msg"] for frame in frames if "msg" in frame], self.said)
        for caller in stuck:
            caller.cut()
        await self.ben.leave()

    def memory(self) -> int:
        """Bytes of the server that are in memory."""
        status = Path(f"/proc/{self.server.pid}/status").read_text(encoding="ascii")
        size = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert size is not None
        return int(size[1]) * 1024
