"""Who a connection is, what it may say when, and the order of its replies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.errors import CloseCode
from chatsvc.session import Stage
from tests.fakes import FakeConnection, House, LateStore, make_clock, make_store


class Settling(SynchronousTestCase):
    """What a connection without subprotocol becomes, and how it is called."""

    def setUp(self) -> None:
        """Open a house."""
        self.house = House()

    def test_connections_get_the_first_free_names_in_the_order_they_come(self) -> None:
        """The first is client-a, the second client-b; a freed name is given again."""
        first, second = self.house.plain(), self.house.plain()
        second.say({"to": "client-a", "msg": "1"})
        self.assertEqual(first.take(), [{"from": "client-b", "to": "client-a", "msg": "1"}])
        first.echo()
        first.leave()
        third = self.house.plain()
        second.say({"to": "client-a", "msg": "2"})
        self.assertEqual(third.take(), [{"from": "client-b", "to": "client-a", "msg": "2"}])

    def test_nothing_is_shown_before_the_connection_is_settled(self) -> None:
        """A waiting message comes after 250 ms of silence, not before."""
        sender = self.house.plain("alice")
        sender.say({"to": "client-a", "msg": "early"})
        late = self.house.connect()
        self.house.clock.advance(0.24)
        self.assertEqual(late.take(), [])
        self.house.clock.advance(0.01)
        self.assertEqual(late.take(), [{"from": "alice", "to": "client-a", "msg": "early"}])

    def test_the_first_command_settles_at_once(self) -> None:
        """A command makes the connection plain without waiting, and what it missed follows."""
        self.house.plain("alice").say({"to": "client-a", "msg": "early"})
        connection = self.house.connect()
        connection.say({"to": "alice", "msg": "x", "id": 1})
        frames = connection.take()
        self.assertEqual(frames[0], {"from": "alice", "to": "client-a", "msg": "early"})
        self.assertEqual((frames[1]["event"], frames[1]["id"]), ("ok", 1))

    def test_a_first_from_renames_and_brings_what_the_new_name_missed(self) -> None:
        """The old name is free again, and the new name's messages come."""
        self.house.plain("alice").say({"to": "bob", "msg": "waiting"})
        connection = self.house.plain()
        connection.say({"from": "bob", "to": "alice", "msg": "here"})
        self.assertEqual(connection.take(), [{"from": "alice", "to": "bob", "msg": "waiting"}])
        self.assertEqual(self.house.state.clients.give_name(), "client-a")

    def test_renaming_proves_nothing_for_the_new_name(self) -> None:
        """A pong to a ping sent under the old name does not move the new one's position."""
        alice = self.house.plain("alice")
        connection = self.house.plain()
        alice.say({"to": "client-a", "msg": "old"}, {"to": "bob", "msg": "new"})
        old_ping = connection.pings[-1]
        connection.say({"from": "bob", "to": "alice", "msg": "hi"})
        assert connection.session is not None
        connection.session.pong(old_ping)
        connection.leave()
        again = self.house.plain("bob")
        self.assertEqual(again.take(), [{"from": "alice", "to": "bob", "msg": "new"}])

    def test_a_later_from_must_be_the_name(self) -> None:
        """Once a valid command was said, another name is forbidden and the old one stays."""
        connection = self.house.plain()
        connection.say({"to": "alice", "msg": "x"}, {"from": "eve", "to": "a", "msg": "y", "id": 2})
        (error,) = connection.take()
        self.assertEqual((error["code"], error["id"]), ("forbidden", 2))

    def test_an_invalid_first_command_does_not_settle_the_name(self) -> None:
        """After an error the first valid command may still say who this is."""
        connection = self.house.connect()
        connection.say(b"nonsense", {"from": "alice", "to": "bob", "msg": "x", "id": 1})
        error, ok = connection.take()
        self.assertEqual((error["code"], ok["event"]), ("bad_request", "ok"))
        bob = self.house.plain("bob")
        self.assertEqual(bob.take(), [{"from": "alice", "to": "bob", "msg": "x"}])

    def test_what_was_shown_under_a_given_name_is_not_proven_by_a_rename(self) -> None:
        """The next bearer of the name gets it; without a rename it counts, at the end at least."""
        alice = self.house.plain("alice")
        alice.say({"to": "client-a", "msg": "x"})
        person = self.house.plain()
        self.assertEqual(len(person.take()), 1)
        person.echo()
        person.say({"from": "dave", "to": "alice", "msg": "hi"})
        listener = self.house.plain()
        self.assertEqual([frame["msg"] for frame in listener.take()], ["x"])
        listener.echo()
        listener.leave()
        self.assertEqual(self.house.plain().take(), [])

    def test_a_command_without_address_settles_nothing(self) -> None:
        """It is not valid, so the next one may still say who this is."""
        connection = self.house.plain()
        connection.say(
            {"from": "ann", "msg": "x"}, {"from": "ana", "to": "bob", "msg": "x", "id": 1}
        )
        self.assertEqual(
            [f.get("code", f["event"]) for f in connection.take()], ["bad_request", "ok"]
        )

    def test_a_name_from_the_url_is_fixed(self) -> None:
        """With `?user=`, another `from` is forbidden from the first command on."""
        connection = self.house.connect("alice")
        connection.say({"from": "bob", "to": "carol", "msg": "x"})
        self.assertEqual([frame["code"] for frame in connection.take()], ["forbidden"])

    def test_several_connections_may_bear_one_name(self) -> None:
        """Each of them gets what is sent to it."""
        one, two = self.house.plain("bob"), self.house.plain("bob")
        self.house.plain("alice").say({"to": "bob", "msg": "x"})
        self.assertEqual(one.take(), two.take())


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


class Replies(SynchronousTestCase):
    """Each command with an id has exactly one reply, in the order of their effects."""

    def setUp(self) -> None:
        """Open a house whose store answers late."""
        clock = make_clock()
        self.store = LateStore(make_store(clock))
        self.store.late = False
        self.house = House(self.store, clock)
        self.alice = self.house.session("alice")
        self.alice.take()

    def marks(self, connection: FakeConnection) -> list[object]:
        """The ids of what came."""
        return [frame.get("id") for frame in connection.take()]

    def test_ok_comes_only_after_the_commit(self) -> None:
        """Neither `ok` nor the message is seen before the store says so."""
        bob = self.house.plain("bob")
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x", "id": 1})
        self.assertEqual((self.alice.take(), bob.take()), ([], []))
        self.store.release()
        self.assertEqual(self.marks(self.alice), [1])
        self.assertEqual(bob.take(), [{"from": "alice", "to": "bob", "msg": "x"}])

    def test_sends_do_not_wait_for_each_other(self) -> None:
        """Two are with the store at once."""
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x", "id": 1}, {"to": "bob", "msg": "y", "id": 2})
        self.store.late = False
        self.store.release()
        self.assertEqual(self.marks(self.alice), [1, 2])

    def test_a_read_sees_what_went_before_it_and_nothing_after(self) -> None:
        """History between two sends holds the first and not the second."""
        self.store.late = True
        self.alice.say(
            {"to": "bob", "msg": "x", "id": 1},
            {"op": "history", "to": "bob", "id": 2},
            {"to": "bob", "msg": "y", "id": 3},
        )
        self.store.release()
        one, two, three = self.alice.take()
        self.assertEqual([one["id"], two["id"], three["id"]], [1, 2, 3])
        self.assertEqual([message["msg"] for message in two["messages"]], ["x"])

    def test_reading_stops_while_too_many_commands_are_under_way(self) -> None:
        """At 256 the connection is held, at 64 it is read again, and every one has its reply."""
        self.store.late = True
        for mark in range(255):
            self.alice.say({"to": "bob", "msg": "x", "id": mark})
        self.assertFalse(self.alice.held)
        self.alice.say({"to": "bob", "msg": "x", "id": 255})
        self.assertTrue(self.alice.held)
        self.store.release()
        self.assertFalse(self.alice.held)
        self.assertEqual(self.marks(self.alice), list(range(256)))

    def test_commands_without_id_get_no_ok_but_their_error_and_their_answer(self) -> None:
        """As section 1 has it."""
        self.alice.say(
            {"to": "bob", "msg": "x"},
            {"op": "join", "group": "devs"},
            {"op": "subscribe", "topic": "news"},
            {"op": "ack", "seq": 0},
            {"group": "ops", "msg": "x"},
            {"op": "members", "group": "devs"},
            {"op": "ping"},
        )
        events = [frame["event"] for frame in self.alice.take()]
        self.assertEqual(events, ["error", "members", "pong"])

    def test_a_connection_that_is_gone_leaves_its_commands_committed(self) -> None:
        """What the store has been given is stored; the reply is dropped."""
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x", "id": 1})
        self.alice.leave()
        self.store.late = False
        self.store.release()
        bob = self.house.plain("bob")
        self.assertEqual(bob.take(), [{"from": "alice", "to": "bob", "msg": "x"}])

    def test_finishing_waits_for_the_replies_of_what_was_taken(self) -> None:
        """And takes nothing more."""
        finished = []
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x", "id": 1})
        assert self.alice.session is not None
        self.alice.session.finish(lambda: finished.append(True))
        self.alice.say({"to": "bob", "msg": "y", "id": 2})
        self.assertEqual(finished, [])
        self.store.release()
        self.assertEqual((finished, self.marks(self.alice)), ([True], [1]))

    def test_a_connection_that_closes_while_settling_leaves_nothing_behind(self) -> None:
        """No subscriber of a gone connection stays with the state."""
        self.store.late = True
        connection = self.house.connect("carol")
        connection.say({"op": "hello"})
        connection.leave()
        self.store.release()
        self.assertIsNone(self.house.state.clients.get("carol"))

    def test_a_connection_that_closes_before_its_welcome_stays_closed(self) -> None:
        """Whatever the store answers later."""
        connection = self.house.connect("carol")
        self.store.late = True
        connection.say({"op": "hello"})
        for _ in range(3):
            self.store.release_reads()
        connection.leave()
        self.store.late = False
        self.store.release()
        assert connection.session is not None
        self.assertEqual(connection.session.stage, Stage.CLOSED)
        self.assertIsNone(self.house.state.clients.get("carol"))

    def test_an_unexpected_failure_is_an_internal_error_and_is_logged(self) -> None:
        """The client learns no more than that; the connection stays open."""

        def broken(*_: object) -> None:
            raise ZeroDivisionError

        vars(self.store)["members"] = broken
        self.alice.say({"op": "members", "group": "devs", "id": 1}, {"op": "ping", "id": 2})
        error, pong = self.alice.take()
        self.assertEqual((error["code"], error["id"], pong["event"]), ("internal", 1, "pong"))
        self.assertNotIn("Division", str(error))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
