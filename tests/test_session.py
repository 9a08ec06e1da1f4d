"""Who a connection is, what it may say when, and the order of its replies."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.session import Stage
from tests.fakes import FakeConnection, House, make_late_house


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


class Replies(SynchronousTestCase):
    """Each command with an id has exactly one reply, in the order of their effects."""

    def setUp(self) -> None:
        """Open a house whose store answers late."""
        self.store, self.house = make_late_house()
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
