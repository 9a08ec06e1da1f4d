"""The real server, real sockets, an independent client: what people do with it."""

from __future__ import annotations

from typing import Any

from tests.caller import Caller, ServerCase

LINE = '{"from":"client-a","to":"client-b","msg":"Hello from A!"}'


class _WithServer(ServerCase):
    def session(self, user: str, **hello: Any) -> Caller:
        """A session that has caught up without having missed anything."""
        caller = self.call(program=True)
        caller.hello(user, **hello)
        self.assertEqual(caller.take()["event"], "caught_up")
        return caller


class TwoTerminals(_WithServer):
    """The tour of somebody who has just installed it."""

    def test_a_line_reaches_the_other_terminal_as_it_was_typed(self) -> None:
        """To the letter, and nothing else comes within a second."""
        a, b = self.call(), self.call()
        a.say(LINE)
        self.assertEqual(b.heard_within(1.0), [LINE])
        self.assertEqual(a.heard_within(0.1), [])

    def test_a_line_to_a_terminal_not_yet_open_waits_for_it(self) -> None:
        """It appears when client-b connects, and only then."""
        a = self.call()
        a.say(LINE)
        a.say(id=1, op="ping")
        self.assertEqual(a.take()["event"], "pong")
        b = self.call()
        self.assertEqual(b.heard_within(1.0), [LINE])

    def test_a_message_waits_for_a_client_that_went_away(self) -> None:
        """What came while it was there does not come again."""
        b = self.call("bob")
        a = self.call("alice")
        a.ask(id=1, to="bob", msg="here")
        self.assertEqual(b.text(), '{"from":"alice","to":"bob","msg":"here"}')
        b.close()
        a.ask(id=2, to="bob", msg="gone")
        b = self.call("bob")
        self.assertEqual(b.heard_within(1.0), ['{"from":"alice","to":"bob","msg":"gone"}'])

    def test_a_group_hears_what_its_members_say(self) -> None:
        """All others, never who is not in it, nor who said it."""
        a, b, c, d = (self.call(user) for user in ("alice", "bob", "carol", "dave"))
        for caller in (a, b, c):
            self.assertEqual(caller.ask(op="join", group="devs", id="j")["event"], "ok")
        a.say(group="devs", msg="hi all")
        for caller in (b, c):
            self.assertEqual(caller.text(), '{"from":"alice","group":"devs","msg":"hi all"}')
        refused = d.ask(group="devs", msg="me too", id=7)
        self.assertEqual((refused["event"], refused["code"]), ("error", "not_member"))
        for caller in (a, b, c, d):
            self.assertEqual(caller.heard_within(0.2), [])

    def test_a_topic_reaches_those_who_subscribed(self) -> None:
        """By its name or by a filter that matches it, once each."""
        a, b, c = (self.call(user) for user in ("alice", "bob", "carol"))
        b.ask(op="subscribe", topic="news/sport", id=1)
        b.ask(op="subscribe", topic="news/#", id=2)
        c.ask(op="subscribe", topic="news/+/local", id=1)
        a.say(topic="news/sport", msg="goal")
        self.assertEqual(
            b.heard_within(0.3), ['{"from":"alice","topic":"news/sport","msg":"goal"}']
        )
        self.assertEqual(c.heard_within(0.1), [])

    def test_who_names_itself_is_called_so(self) -> None:
        """And gets what waited for that name; the name it had is free for the next."""
        a, b = self.call(), self.call()
        a.say(to="zoe", msg="are you there?")
        b.say(sender="zoe", to="client-a", msg="yes")
        self.assertEqual(b.text(), '{"from":"client-a","to":"zoe","msg":"are you there?"}')
        self.assertEqual(a.text(), '{"from":"zoe","to":"client-a","msg":"yes"}')
        c = self.call()
        a.say(to="client-b", msg="and you?")
        self.assertEqual(c.text(), '{"from":"client-a","to":"client-b","msg":"and you?"}')

    def test_a_typing_error_is_explained(self) -> None:
        """With a frame that would have worked."""
        a, b = self.call(), self.call()
        a.say("hello?")
        error = a.take()
        self.assertEqual((error["event"], error["code"]), ("error", "bad_request"))
        a.say(error["hint"].replace('"bob"', '"client-b"'))
        self.assertEqual(b.take()["from"], "client-a")


class SeveralDevicesOfOneUser(_WithServer):
    """Each session hears what concerns its user, each from its own position."""

    def test_all_of_them_hear_a_message(self) -> None:
        """The same entry on each."""
        phone, laptop = self.session("bob", device="phone"), self.session("bob", device="laptop")
        ok = self.call("alice").ask(id=1, to="bob", msg="hi")
        for device in (phone, laptop):
            message = device.take()
            self.assertEqual((message["msg"], message["seq"]), ("hi", ok["seq"]))

    def test_what_one_says_the_others_see(self) -> None:
        """With its key; the one that said it has its `ok` only."""
        phone, laptop = self.session("bob", device="phone"), self.session("bob", device="laptop")
        ok = phone.ask(id=1, to="alice", msg="from the train", key="k-1")
        seen = laptop.take()
        self.assertEqual(
            seen,
            {
                "from": "bob",
                "to": "alice",
                "msg": "from the train",
                "seq": ok["seq"],
                "ts": ok["ts"],
                "key": "k-1",
            },
        )
        self.assertEqual(phone.heard_within(0.2), [])

    def test_a_device_that_was_off_catches_up(self) -> None:
        """Though the other had everything."""
        phone, laptop = self.session("bob", device="phone"), self.session("bob", device="laptop")
        alice = self.call("alice")
        laptop.close()
        sent = [alice.ask(id=n, to="bob", msg=f"m{n}")["seq"] for n in range(3)]
        self.assertEqual([phone.take()["seq"] for _ in sent], sent)
        laptop = self.call(program=True)
        laptop.hello("bob", device="laptop")
        frames = laptop.take_until(event="caught_up")
        self.assertEqual([frame["msg"] for frame in frames[:-1]], ["m0", "m1", "m2"])

    def test_a_device_is_in_one_place(self) -> None:
        """Its newer session closes the older with 4001, after saying why."""
        old = self.session("bob", device="phone")
        self.session("bob", device="phone")
        frames, code, _ = old.rest()
        self.assertEqual([frame["event"] for frame in frames], ["closing"])
        self.assertEqual(code, 4001)


class ComingBack(_WithServer):
    """A client whose connection was cut."""

    def test_since_gives_what_came_after_and_nothing_twice(self) -> None:
        """In the order of the log, then `caught_up`, then live."""
        bob = self.call(program=True)
        epoch = bob.hello("bob")["epoch"]
        bob.take()
        alice = self.call("alice")
        alice.ask(id=0, to="bob", msg="m0")
        since = bob.take()["seq"]
        bob.cut()
        sent = [alice.ask(id=n, to="bob", msg=f"m{n}")["seq"] for n in range(1, 100)]
        bob = self.call(program=True)
        welcome = bob.hello("bob", since=since, epoch=epoch)
        self.assertEqual(welcome["epoch"], epoch)
        *missed, end = bob.take_until(event="caught_up")
        self.assertEqual([frame["seq"] for frame in missed], sent)
        self.assertEqual([frame["msg"] for frame in missed], [f"m{n}" for n in range(1, 100)])
        self.assertEqual(end["seq"], sent[-1])
        alice.ask(id=100, to="bob", msg="live")
        self.assertEqual(bob.take()["msg"], "live")

    def test_nothing_is_lost_or_doubled_while_the_sender_goes_on(self) -> None:
        """The seam between what was missed and what is live cannot be seen."""
        alice = self.call("alice")
        heard: list[int] = []
        since = 0
        for round_ in range(5):
            bob = self.call(program=True)
            for n in range(40):
                alice.say(id=round_ * 40 + n, to="bob", msg="x" * 100)
            bob.hello("bob", since=since)
            while len(heard) < round_ * 40 + 25:
                frame = bob.take()
                if "event" not in frame:
                    heard.append(frame["seq"])
                since = max(since, frame.get("seq", 0))
            bob.cut()
        sent = [alice.take()["seq"] for _ in range(200)]
        self.assertEqual(heard, sent[: len(heard)])

    def test_the_epoch_of_another_log_is_noticed(self) -> None:
        """A `gap` says so, and what waits comes from the stored position."""
        self.call("alice").ask(id=1, to="bob", msg="waiting")
        bob = self.call(program=True)
        bob.hello("bob", since=1000, epoch="another")
        self.assertEqual(bob.take(), {"event": "gap", "reason": "epoch"})
        self.assertEqual(bob.take()["msg"], "waiting")
        self.assertEqual(bob.take()["event"], "caught_up")

    def test_a_retry_after_a_cut_is_stored_once(self) -> None:
        """The second `ok` is the first again, marked."""
        alice = self.call("alice")
        first = alice.ask(id=1, to="bob", msg="once", key="k")
        alice.cut()
        again = self.call("alice").ask(id=1, to="bob", msg="once", key="k")
        self.assertEqual(again, {**first, "dup": True})
        self.assertEqual(len(self.call("bob").heard_within(0.6)), 1)
