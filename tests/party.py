"""Twenty clients who talk among themselves while their server comes and goes.

A :class:`Party` has its guests say things to each other, and takes stock whenever everybody is
back: what is in the log, who has heard what, and whether that is what was acknowledged.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import suppress
from typing import Any, NamedTuple
from unittest import TestCase

from tests.crowd import PATIENCE, Gone, Guest

__all__ = ["GUESTS", "Party"]

GUESTS = 20
AT_ONCE = 4
"""Messages of each guest that are under way at any time."""


class Saying(NamedTuple):
    """What is said: the fields of the command, and who of the others hears it."""

    fields: dict[str, Any]
    audience: frozenset[str]


class Party:
    """See the module. Everybody is in one group; a quarter hears a topic durably, another as long
    as it is connected. ``places`` is where in the log each message was found.
    """

    def __init__(self, test: TestCase, rng: random.Random, url: str) -> None:
        self.guests = [
            Guest(f"guest-{n}", *(["news/#"] if n % 4 == 1 else [])) for n in range(GUESTS)
        ]
        self.places: dict[str, int] = {}
        self._test = test
        self._rng = rng
        self._url = url
        self._sayings: dict[str, Saying] = {}
        self._epoch = ""
        self._keys = (f"m{number}" for number in itertools.count(1))
        self._read_to: dict[tuple[str, str, str], int] = {}
        self._acknowledged = asyncio.Semaphore(0)
        self._talking: list[asyncio.Task[None]] = []
        names = [guest.name for guest in self.guests]
        self._everybody = frozenset(names)
        self._readers = frozenset(name for n, name in enumerate(names) if n % 4 in (0, 1))
        self._partners = {
            name: (names[(n + 1) % GUESTS], names[(n + 7) % GUESTS]) for n, name in enumerate(names)
        }

    async def begin(self) -> None:
        """Come for the first time, and settle who hears what."""
        for guest in self.guests:
            await guest.come(self._url)
            await guest.ask(op="join", group="all")
        for guest in self.guests[::4]:
            await guest.ask(op="subscribe", topic="news/#", durable=True)
        self._epoch = self.guests[0].welcome["epoch"]
        await self._pause()

    # --- talking ---

    def talk(self) -> None:
        """Have everybody say one thing after another, several at once."""
        self._acknowledged = asyncio.Semaphore(0)
        for guest in self.guests:
            self._talking += (asyncio.create_task(self._talk(guest)) for _ in range(AT_ONCE))

    async def _talk(self, guest: Guest) -> None:
        with suppress(Gone):
            while True:
                key = next(self._keys)
                saying = self._sayings[key] = self._something(guest.name)
                await guest.say(key, **saying.fields)
                self._acknowledged.release()

    def _something(self, name: str) -> Saying:
        """What ``name`` might say."""
        kind = self._rng.choice(("to", "to", "to", "group", "topic", "retained"))
        if kind == "to":
            receiver = self._rng.choice(self._partners[name])
            return Saying({"to": receiver}, frozenset({receiver}))
        if kind == "group":
            return Saying({"group": "all"}, self._everybody - {name})
        if kind == "topic":
            return Saying({"topic": "news/today"}, self._readers - {name})
        return Saying({"topic": f"state/{name}", "retain": True}, frozenset())

    def lose_some(self) -> None:
        """Let three lose their connections, and come back while the others go on."""
        for guest in self._rng.sample(self.guests, 3):
            self._talking.append(asyncio.create_task(self._lose(guest)))

    async def _lose(self, guest: Guest) -> None:
        with suppress(Gone):
            await asyncio.sleep(self._rng.uniform(0, 0.1))
            await guest.cut()
            await guest.come(self._url, epoch=self._epoch)
            await self._talk(guest)

    async def acknowledged(self, count: int) -> None:
        """Wait for so many acknowledgements since all began to talk."""
        async with asyncio.timeout(PATIENCE):
            for _ in range(count):
                await self._acknowledged.acquire()

    def under_way(self) -> int:
        """How many messages are sent and not acknowledged."""
        return sum(len(guest.waiting) for guest in self.guests)

    async def end(self) -> None:
        """Wait until everybody has noticed that the server is gone."""
        await asyncio.gather(*self._talking)
        self._talking.clear()
        for guest in self.guests:
            await guest.gone()

    # --- taking stock ---

    async def come_back(self, *, all_told: bool = False) -> None:
        """Everybody comes back and retries what was not acknowledged; then all is compared.

        With ``all_told`` nothing is stored that was not acknowledged.
        """
        test = self._test
        for guest in self.guests:
            await guest.come(self._url, epoch=self._epoch)
            test.assertEqual(guest.welcome["epoch"], self._epoch)
            test.assertEqual([each["group"] for each in guest.welcome["groups"]], ["all"])
        for guest in self.guests:
            await guest.caught_up()
        await self._take_stock()
        for guest in self.guests:
            for key, seq in guest.done.items():
                test.assertEqual(self.places.get(key), seq, f"{key} was acknowledged")
            if all_told:
                test.assertFalse(guest.waiting.keys() & self.places.keys())
        await asyncio.gather(*(self._retry(guest) for guest in self.guests))
        await self._pause()
        await self._take_stock()
        self._compare()

    async def _retry(self, guest: Guest) -> None:
        """Say again what was not acknowledged, and a few things that were."""
        acknowledged = self._rng.sample(sorted(guest.done), min(2, len(guest.done)))
        for key in (*guest.waiting, *acknowledged):
            first = self.places.get(key)
            answer = await guest.say(key, **self._sayings[key].fields)
            if first is None:
                self._test.assertNotIn("dup", answer)
            else:
                self._test.assertEqual((answer["seq"], answer.get("dup")), (first, True))

    async def _pause(self) -> None:
        """Wait until everybody has heard all that is acknowledged."""
        for guest in self.guests:
            await guest.ask(op="ping")
            await guest.caught_up()

    async def _take_stock(self) -> None:
        """Read what is new in all conversations, each by one who belongs to it."""
        await self._read(self._rng.choice(self.guests), "group", "all")
        await self._read(self._rng.choice(self.guests), "topic", "news/today")
        for guest in self.guests:
            await self._read(guest, "topic", f"state/{guest.name}")
            for partner in self._partners[guest.name]:
                await self._read(guest, "to", partner)

    async def _read(self, guest: Guest, kind: str, name: str) -> None:
        talk = (kind, name, guest.name if kind == "to" else "")
        for message in await guest.read(self._read_to.get(talk, 0), **{kind: name}):
            self._test.assertNotIn(message["msg"], self.places, "it is in the log twice")
            self.places[message["msg"]] = self._read_to[talk] = message["seq"]

    def _compare(self) -> None:
        """The log has what was acknowledged, where it was; all readers have what is theirs."""
        done = {key: seq for guest in self.guests for key, seq in guest.done.items()}
        self._test.assertEqual(self.places.items() ^ done.items(), set())
        for guest in self.guests:
            heard = {(message["msg"], seq) for seq, message in guest.heard.items()}
            theirs = {
                (key, seq)
                for key, seq in self.places.items()
                if guest.name in self._sayings[key].audience
            }
            # Of what it said itself it is shown what it said over earlier connections.
            self._test.assertEqual(heard - guest.done.items() ^ theirs, set(), guest.name)

    async def check_retained(self) -> None:
        """The retained message of each topic is the last that was said to it."""
        for guest in self.guests:
            topic = f"state/{guest.name}"
            await guest.ask(op="subscribe", topic=topic)
            message = await guest.replay()
            self._test.assertEqual(message["seq"], self._read_to["topic", topic, ""])
