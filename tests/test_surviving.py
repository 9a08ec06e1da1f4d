"""The real server is killed, again and again: nothing that was acknowledged is lost.

Chance decides who says what, and when the server is killed.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest import TestCase

from chatsvc.store.sqlite.file import LogFile
from tests.caller import Caller
from tests.chance import chance
from tests.party import Party
from tests.restarting import Restarting, soundness
from tests.server import Server, until

KILLS = 20
STOPPED = -signal.SIGTERM


class ManyTimes(Restarting):
    """Twenty clients say things to each other, and retry what was not acknowledged."""

    def test_what_was_acknowledged_survives_twenty_kills(self) -> None:
        """It is there once, in its place, for all who hear it; a retry gets the first answer."""
        with chance() as rng:
            asyncio.run(self._kill_again_and_again(rng))

    async def _kill_again_and_again(self, rng: random.Random) -> None:
        party = Party(self, rng, self.server.url)
        await party.begin()
        for _ in range(KILLS):
            party.talk()
            party.lose_some()
            await party.acknowledged(rng.randrange(150))
            await asyncio.sleep(rng.uniform(0, 0.02))
            self.assertGreater(party.under_way(), 0)
            self.kill()
            await party.end()
            self.start()
            await party.come_back()
        await party.check_retained()
        self.kill()
        await party.end()

    def test_what_was_acknowledged_survives_being_asked_to_stop(self) -> None:
        """And what was not acknowledged is not stored."""
        with chance() as rng:
            asyncio.run(self._stop_again_and_again(rng))

    async def _stop_again_and_again(self, rng: random.Random) -> None:
        party = Party(self, rng, self.server.url)
        await party.begin()
        for _ in range(3):
            party.talk()
            await party.acknowledged(rng.randrange(150))
            self.assertGreater(party.under_way(), 0)
            self.server.terminate()
            await party.end()
            self.assertEqual(self.server.wait(), STOPPED)
            self.check_what_is_left()
            self.start()
            await party.come_back(all_told=True)
        self.kill()
        await party.end()


class Once(Restarting):
    """What stands beside the log is as durable as the log."""

    def test_memberships_and_roles(self) -> None:
        """Who came is there, as what it came; who left is not."""
        owner, member, former = (self.session(user) for user in ("ann", "ben", "cid"))
        for caller in (owner, member, former):
            caller.say(op="join", id="j", group="devs")
            caller.take_until(event="ok", id="j")
        former.say(op="leave", id="l", group="devs")
        former.take_until(event="ok", id="l")
        self.restart()
        caller = self.session("ben")
        caller.say(op="members", id=1, group="devs")
        members = caller.take_until(event="members")[-1]["members"]
        self.assertEqual(
            [(each["user"], each["role"]) for each in members],
            [("ann", "owner"), ("ben", "member")],
        )

    def test_a_durable_subscription(self) -> None:
        """It is heard before the kill and after it, while its user is away; one ended is not."""
        reader, writer = self.session("ann"), self.session("ben")
        for topic in ("news/#", "jobs/#"):
            reader.say(op="subscribe", id=topic, topic=topic, durable=True)
            reader.take_until(event="ok", id=topic)
        reader.say(op="unsubscribe", id=1, topic="jobs/#")
        reader.take_until(event="ok", id=1)
        reader.close()
        writer.say(id=1, topic="news/a", msg="one").take_until(event="ok", id=1)
        self.restart()
        writer = self.session("ben")
        writer.say(topic="jobs/a", msg="no")
        writer.say(id=1, topic="news/a", msg="two").take_until(event="ok", id=1)
        reader = self.enterContext(Caller(self.server.url, program=True))
        welcome = reader.hello("ann")
        self.assertEqual(welcome["topics"], [{"topic": "news/#", "durable": True}])
        heard = [frame.get("msg") for frame in reader.take_until(event="caught_up")]
        self.assertEqual(heard, ["one", "two", None])

    def test_a_retained_message_and_that_one_was_cleared(self) -> None:
        """Whoever subscribes is given the last."""
        writer = self.session("ann")
        for number, (topic, msg) in enumerate(
            (("a", "old"), ("a", "new"), ("b", "old"), ("b", ""), ("c", "last"))
        ):
            writer.say(id=number, topic=topic, msg=msg, retain=True)
            writer.take_until(event="ok", id=number)
        self.restart()
        reader = self.session("ben")
        reader.say(op="subscribe", id="s", topic="#")
        frames = reader.take_until(topic="c")
        heard = [(frame["topic"], frame["msg"]) for frame in frames if "msg" in frame]
        self.assertEqual(heard, [("a", "new"), ("c", "last")])

    def test_a_read_mark(self) -> None:
        """What was read is not news again."""
        reader, writer = self.session("ann"), self.session("ben")
        for number in range(3):
            writer.say(id=number, to="ann", msg="hi").take_until(event="ok", id=number)
        reader.say(op="read", id="r", to="ben", seq=2).take_until(event="ok", id="r")
        self.restart()
        reader, writer = self.session("ann"), self.session("ben")
        for number in (1, 2, 3):
            reader.say(op="read", id=number, to="ben", seq=number)
            reader.take_until(event="ok", id=number)
        frames = writer.take_until(event="read")
        self.assertEqual(frames[-1]["upto"], 3)

    def test_a_key(self) -> None:
        """The same again is not said twice, whoever asks; another thing under it is refused."""
        first = self.session("ann")
        first.say(id=1, to="ben", msg="hi", key="k")
        seq = first.take_until(event="ok", id=1)[-1]["seq"]
        self.restart()
        again = self.session("ann", device="phone")
        reply = again.say(id=2, to="ben", msg="hi", key="k").take_until(id=2)[-1]
        self.assertEqual((reply["event"], reply["seq"], reply["dup"]), ("ok", seq, True))
        reply = again.say(id=3, to="ben", msg="bye", key="k").take_until(id=3)[-1]
        self.assertEqual(reply["code"], "key_conflict")

    def test_the_position_of_a_device(self) -> None:
        """Each device goes on where it was, without a word of where that is."""
        phone, tablet = self.session("ann", device="phone"), self.session("ann", device="tablet")
        writer = self.session("ben")
        for number in range(1, 6):
            writer.say(id=number, to="ann", msg=str(number)).take_until(event="ok", id=number)
        for device, seq in ((phone, 3), (tablet, 4)):
            device.take_until(msg="5")
            device.say(op="ack", id="a", seq=seq).take_until(event="ok", id="a")
            device.close()
        writer.say(id=6, to="ann", msg="6").take_until(event="ok", id=6)
        self.restart()
        for name, heard in (("phone", ["4", "5", "6"]), ("tablet", ["5", "6"])):
            caller = self.enterContext(Caller(self.server.url, program=True))
            caller.hello("ann", device=name)
            frames = caller.take_until(event="caught_up")[:-1]
            self.assertEqual([frame["msg"] for frame in frames], heard)

    def test_a_device_without_since_misses_nothing(self) -> None:
        """All that it had not acknowledged comes again, and perhaps more; it was connected."""
        phone, writer = self.session("ann", device="phone"), self.session("ben")
        for number in range(1, 51):
            writer.say(id=number, to="ann", msg=str(number))
        phone.take_until(msg="50")
        phone.say(op="ack", id="a", seq=10).take_until(event="ok", id="a")
        self.restart()
        phone = self.enterContext(Caller(self.server.url, program=True))
        phone.hello("ann", device="phone")
        heard = [frame["msg"] for frame in phone.take_until(event="caught_up")[:-1]]
        self.assertGreaterEqual(len(heard), 40)
        self.assertEqual(heard, [str(number) for number in range(1, 51)][-len(heard) :])


class WhileStarting(TestCase):
    """A kill is as harmless while the server starts."""

    TIMES = 10

    def setUp(self) -> None:
        """A place for the file."""
        self.directory = Path(self.enterContext(TemporaryDirectory(prefix="chatsvc-")))

    def start_and_kill(self, rng: random.Random, sign: str) -> None:
        """Kill the server shortly after the file ``sign`` is there, which tells how far it is."""
        server = Server(directory=self.directory)
        try:
            server.begin()
            until((self.directory / sign).exists, f"{sign} is there", 15.0)
            time.sleep(rng.uniform(0, 0.02))
            server.kill()
            self.assertNotIn("Traceback", server.log)
        finally:
            server.close()
        (self.directory / "twistd.pid").unlink(missing_ok=True)
        self.assertEqual(soundness(self.directory), "ok")

    def test_a_file_with_messages_is_as_it_was(self) -> None:
        """Ten times in a row, when the server has just begun to open it."""
        with Server(directory=self.directory) as server:
            with Caller(server.url, "ann") as caller:
                for number in range(100):
                    caller.say(id=number, to="ben", msg=str(number))
                caller.take_until(id=99)
            server.kill()
        (self.directory / "twistd.pid").unlink()
        with chance() as rng:
            for _ in range(self.TIMES):
                self.start_and_kill(rng, "twistd.pid")
        with Server(directory=self.directory) as server, Caller(server.url, "ben") as caller:
            heard = [caller.take()["msg"] for _ in range(100)]
        self.assertEqual(heard, [str(number) for number in range(100)])

    def test_a_new_file_can_be_begun_again(self) -> None:
        """Ten times in a row, whatever there is of it yet."""
        with chance() as rng:
            for _ in range(self.TIMES):
                self.start_and_kill(rng, "chat.sqlite")
                file = LogFile(self.directory / "chat.sqlite", new_epoch=lambda: "again")
                file.open()
                file.close()
                for path in self.directory.glob("chat.sqlite*"):
                    path.unlink()
