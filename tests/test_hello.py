"""`hello`: how a session begins, where it resumes, and which devices it replaces."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.errors import CloseCode
from tests.fakes import House


class Hello(SynchronousTestCase):
    """Beginning a session."""

    def setUp(self) -> None:
        """Open a house."""
        self.house = House()

    def test_welcome_tells_what_holds_here(self) -> None:
        """All fields of section 5 are there."""
        session = self.house.session("alice", device="phone", id=7, topics=["news/#"])
        session.say({"op": "join", "group": "devs"})
        session.say({"op": "subscribe", "topic": "kept", "durable": True})
        welcome, caught_up = session.take()
        self.assertEqual(
            {name: welcome[name] for name in ("event", "id", "user", "device", "epoch", "seq")},
            {
                "event": "welcome",
                "id": 7,
                "user": "alice",
                "device": "phone",
                "epoch": "epoch-1",
                "seq": 0,
            },
        )
        self.assertEqual((welcome["order"], welcome["protocol"]), ("log", 1))
        self.assertEqual(welcome["topics"], [{"topic": "news/#", "durable": False}])
        self.assertEqual(caught_up, {"event": "caught_up", "seq": 0})
        session.say({"op": "hello"})
        (renewed,) = session.take()
        self.assertEqual(renewed["groups"], [{"group": "devs", "role": "owner"}])
        self.assertEqual(
            renewed["topics"],
            [{"topic": "kept", "durable": True}, {"topic": "news/#", "durable": False}],
        )
        self.assertEqual(renewed["session"], welcome["session"])

    def test_with_the_subprotocol_hello_must_come_first(self) -> None:
        """Any other command is an error with a hint, and the connection stays open."""
        connection = self.house.connect(programmatic=True)
        connection.say({"op": "ping", "id": 1})
        (error,) = connection.take()
        self.assertEqual((error["code"], error["id"]), ("bad_request", 1))
        self.assertIn("hello", error["hint"])
        connection.say({"op": "hello"})
        self.assertEqual(connection.take()[0]["user"], "client-a")

    def test_with_the_subprotocol_nothing_is_sent_before_hello(self) -> None:
        """Neither messages nor a name, however long the silence is."""
        self.house.plain("alice").say({"to": "client-a", "msg": "x"})
        connection = self.house.connect(programmatic=True)
        self.house.clock.advance(9)
        self.assertEqual(connection.take(), [])

    def test_without_hello_for_ten_seconds_the_connection_is_closed(self) -> None:
        """With 3008, and not before."""
        connection = self.house.connect(programmatic=True)
        self.house.clock.advance(9.9)
        self.assertIsNone(connection.closed)
        self.house.clock.advance(0.2)
        assert connection.closed is not None
        self.assertEqual(connection.closed[0], CloseCode.SILENT)

    def test_a_hello_on_a_plain_connection_brings_what_came_plain_again(self) -> None:
        """Without `since` it starts after the position at which the connection settled."""
        plain = self.house.plain("bob")
        self.house.plain("alice").say({"to": "bob", "msg": "x"})
        plain.echo()
        self.assertEqual(plain.take(), [{"from": "alice", "to": "bob", "msg": "x"}])
        plain.say({"op": "hello"})
        welcome, message, caught_up = plain.take()
        self.assertEqual((welcome["event"], message["seq"], caught_up["seq"]), ("welcome", 1, 1))

    def test_a_late_hello_of_a_device_skips_nothing(self) -> None:
        """However long it was silent before, a device starts where it is, not where its user is."""
        alice = self.house.plain("alice")
        phone = self.house.session("bob", device="phone")
        phone.leave()
        laptop = self.house.session("bob", device="laptop")
        alice.say({"to": "bob", "msg": "1"}, {"to": "bob", "msg": "2"})
        self.house.sweep(2, laptop)
        laptop.echo()
        self.house.sweep(2, laptop)
        laptop.echo()
        late = self.house.plain("bob")
        self.assertEqual(late.take(), [])
        late.say({"op": "hello", "device": "phone"})
        self.assertEqual([frame.get("msg") for frame in late.take()], [None, "1", "2", None])

    def test_a_refused_hello_changes_nothing(self) -> None:
        """Neither the name nor what is said under it."""
        for number in range(1000):
            self.house.session("bob", device=f"d{number}").leave()
        zed = self.house.plain("zed")
        plain = self.house.plain()
        plain.say({"op": "hello", "user": "bob", "device": "one.more"})
        self.assertEqual([frame["code"] for frame in plain.take()], ["quota_exceeded"])
        plain.say({"to": "zed", "msg": "x"})
        self.assertEqual(zed.take(), [{"from": "client-a", "to": "zed", "msg": "x"}])

    def test_subscriptions_of_the_connection_outlive_its_hello(self) -> None:
        """It is the same connection."""
        plain = self.house.plain("bob")
        plain.say({"op": "subscribe", "topic": "news/#"})
        plain.say({"op": "hello"})
        welcome = plain.take()[0]
        self.assertEqual(welcome["topics"], [{"topic": "news/#", "durable": False}])
        self.house.plain("alice").say({"topic": "news/x", "msg": "1"})
        self.assertEqual([frame["msg"] for frame in plain.take()], ["1"])

    def test_another_user_in_a_further_hello_is_forbidden(self) -> None:
        """A session renews its token only, with a welcome and no replay."""
        session = self.house.session("alice")
        self.house.plain("bob").say({"to": "alice", "msg": "x"})
        session.take()
        session.say({"op": "hello", "user": "eve"}, {"op": "hello", "user": "alice"})
        self.assertEqual(
            [f.get("code", f["event"]) for f in session.take()], ["forbidden", "welcome"]
        )

    def test_user_and_from_must_not_differ(self) -> None:
        """They are the same thing said twice."""
        connection = self.house.connect(programmatic=True)
        connection.say({"op": "hello", "user": "a", "from": "b"})
        self.assertEqual(connection.take()[0]["code"], "bad_request")

    def test_since_of_another_epoch_is_a_gap_and_the_stored_position_counts(self) -> None:
        """`gap` with reason `epoch` and no bounds, then everything unproven."""
        self.house.plain("alice").say({"to": "bob", "msg": "x"}, {"to": "bob", "msg": "y"})
        for hello in ({"since": 1, "epoch": "another"}, {"since": 99}):
            session = self.house.session("bob", **hello)
            welcome, gap, *rest = session.take()
            self.assertEqual(welcome["event"], "welcome")
            self.assertEqual(gap, {"event": "gap", "reason": "epoch"})
            self.assertEqual([frame.get("msg") for frame in rest], ["x", "y", None])
            session.leave()

    def test_since_resumes_after_it(self) -> None:
        """With the right epoch, what is above `since` comes and nothing else."""
        self.house.plain("alice").say({"to": "bob", "msg": "x"}, {"to": "bob", "msg": "y"})
        session = self.house.session("bob", since=1, epoch="epoch-1")
        self.assertEqual(
            [f.get("msg", f.get("event")) for f in session.take()], ["welcome", "y", "caught_up"]
        )

    def test_a_newer_hello_of_a_device_closes_the_older_session(self) -> None:
        """With 4001; another device is left alone."""
        phone = self.house.session("alice", device="phone")
        laptop = self.house.session("alice", device="laptop")
        self.house.session("alice", device="phone")
        assert phone.closed is not None
        self.assertEqual(phone.closed[0], CloseCode.REPLACED)
        self.assertIsNone(laptop.closed)

    def test_a_device_has_its_own_position(self) -> None:
        """What one device has proven is still to come for another that was known before."""
        alice = self.house.plain("alice")
        laptop = self.house.session("bob", device="laptop")
        laptop.leave()
        phone = self.house.session("bob", device="phone")
        alice.say({"to": "bob", "msg": "x"})
        phone.echo()
        phone.leave()
        again = self.house.session("bob", device="phone")
        self.assertEqual([f["event"] for f in again.take()], ["welcome", "caught_up"])
        laptop = self.house.session("bob", device="laptop")
        self.assertEqual([f.get("msg") for f in laptop.take()], [None, "x", None])
        new = self.house.session("bob", device="watch")
        self.assertEqual([f["event"] for f in new.take()], ["welcome", "caught_up"])

    def test_topics_of_hello_are_part_of_the_same_stream(self) -> None:
        """After `since`, direct and topic messages come in one order; without it, only new ones."""
        alice = self.house.plain("alice")
        alice.say({"topic": "news/a", "msg": "1"}, {"to": "bob", "msg": "2"})
        alice.say({"topic": "news/b", "msg": "3"}, {"topic": "other", "msg": "4"})
        session = self.house.session("bob", since=0, topics=["news/+", "news/#"])
        self.assertEqual([f.get("msg") for f in session.take()], [None, "1", "2", "3", None])
        alice.say({"topic": "news/c", "msg": "5"})
        self.assertEqual([f.get("msg") for f in session.take()], ["5"])
        fresh = self.house.session("bob", topics=["news/#"])
        self.assertEqual([f.get("msg") for f in fresh.take()], [None, "2", None])
