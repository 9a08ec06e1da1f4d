"""What each command does, and what its reply says."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.commands import COMMANDS
from chatsvc.messages.events import MAX_FRAME
from chatsvc.operations import MAX_SUBSCRIPTIONS, OPERATIONS
from tests.fakes import FakeConnection, House


class _WithClients(SynchronousTestCase):
    def setUp(self) -> None:
        """Open a house with a session of alice and a plain connection of bob."""
        self.house = House()
        self.alice = self.house.session("alice")
        self.bob = self.house.plain("bob")
        self.alice.take()

    def ask(self, connection: FakeConnection, **command: Any) -> dict[str, Any]:
        """Say a command, and return its reply; other frames stay."""
        connection.say({"id": "asked", **command})
        (reply,) = [frame for frame in connection.frames if frame.get("id") == "asked"]
        connection.frames.remove(reply)
        return reply


class Sending(_WithClients):
    """`send`, without an `op` or with it."""

    def test_the_reply_says_where_the_message_stands(self) -> None:
        """`seq`, `ts` and the `key`, as in section 4."""
        reply = self.ask(self.alice, to="bob", msg="hi", key="k")
        self.assertEqual(
            reply, {"event": "ok", "id": "asked", "seq": 1, "ts": 1_000_000_250, "key": "k"}
        )

    def test_a_plain_connection_gets_the_bare_shape(self) -> None:
        """Only who, where to and what; `data` where there is one."""
        self.alice.say({"to": "bob", "msg": "hi", "data": {"a": [1, 2.5, None]}, "key": "k"})
        self.assertEqual(
            self.bob.take(),
            [{"from": "alice", "to": "bob", "msg": "hi", "data": {"a": [1, 2.5, None]}}],
        )

    def test_a_session_gets_seq_and_ts_and_what_it_replies_to(self) -> None:
        """The shape of section 4."""
        self.bob.say({"to": "alice", "msg": "one"})
        self.bob.say({"to": "alice", "msg": "two", "reply_to": 1})
        self.assertEqual(
            self.alice.take(),
            [
                {"from": "bob", "to": "alice", "msg": "one", "seq": 1, "ts": 1_000_000_250},
                {
                    "from": "bob",
                    "to": "alice",
                    "msg": "two",
                    "reply_to": 1,
                    "seq": 2,
                    "ts": 1_000_000_250,
                },
            ],
        )

    def test_the_users_other_sessions_get_the_message_with_its_key(self) -> None:
        """The sending one does not, and a plain connection never gets its user's own."""
        other = self.house.session("alice")
        plain = self.house.plain("alice")
        other.take()
        self.ask(self.alice, to="bob", msg="hi", key="k")
        self.assertEqual([frame["key"] for frame in other.take()], ["k"])
        self.assertEqual((self.alice.take(), plain.take()), ([], []))

    def test_a_retry_gets_the_first_reply_again_and_delivers_nothing(self) -> None:
        """With `dup`, from any connection of the user."""
        first = self.ask(self.alice, to="bob", msg="hi", key="k")
        again = self.ask(self.house.plain("alice"), to="bob", msg="hi", key="k")
        self.assertEqual(again, {**first, "dup": True})
        self.assertEqual(len(self.bob.take()), 1)

    def test_a_key_used_for_other_content_is_a_conflict(self) -> None:
        """Nothing is stored."""
        self.ask(self.alice, to="bob", msg="hi", key="k")
        self.assertEqual(self.ask(self.alice, to="bob", msg="ho", key="k")["code"], "key_conflict")
        self.assertEqual(self.house.state.head, 1)

    def test_exactly_one_address_is_needed(self) -> None:
        """None or two are an error that shows how."""
        for address in ({}, {"to": "bob", "group": "devs"}, {"topic": "a", "to": "bob"}):
            reply = self.ask(self.alice, msg="hi", **address)
            self.assertEqual(reply["code"], "bad_request")
            self.assertIn("to", reply["hint"])

    def test_only_topics_retain(self) -> None:
        """`retain` elsewhere is an error."""
        reply = self.ask(self.alice, to="bob", msg="hi", retain=True)
        self.assertEqual(reply["code"], "bad_request")

    def test_a_group_hears_its_members_only(self) -> None:
        """A stranger is refused, with the frame that would help."""
        self.ask(self.bob, op="join", group="devs")
        reply = self.ask(self.alice, group="devs", msg="hi")
        self.assertEqual(
            (reply["code"], reply["reason"], reply["hint"]),
            ("not_member", "alice is not a member of devs", '{"op":"join","group":"devs"}'),
        )
        self.alice.say({"op": "join", "group": "devs"}, {"group": "devs", "msg": "hi"})
        self.assertEqual(self.bob.take(), [{"from": "alice", "group": "devs", "msg": "hi"}])


class Groups(_WithClients):
    """`join`, `leave`, `create`, `members`."""

    def test_members_hear_who_comes_and_goes(self) -> None:
        """Sessions do; the actor has the `ok`, a plain connection nothing."""
        self.ask(self.alice, op="join", group="devs")
        joined = self.ask(self.bob, op="join", group="devs")
        self.ask(self.bob, op="leave", group="devs")
        seen = [(f["event"], f["from"], f["user"], f["seq"]) for f in self.alice.take()]
        self.assertEqual(seen, [("joined", "bob", "bob", 2), ("left", "bob", "bob", 3)])
        self.assertEqual(joined, {"event": "ok", "id": "asked", "seq": 2})
        self.assertEqual(self.bob.take(), [])

    def test_repeating_returns_the_first_seq(self) -> None:
        """Of joining as of leaving."""
        first = self.ask(self.alice, op="join", group="devs")
        self.assertEqual(self.ask(self.alice, op="join", group="devs"), first)
        left = self.ask(self.alice, op="leave", group="devs")
        self.assertEqual(self.ask(self.alice, op="leave", group="devs"), left)

    def test_the_heir_of_the_last_owner_is_told(self) -> None:
        """`role` follows `left`."""
        self.ask(self.bob, op="join", group="devs")
        self.ask(self.alice, op="join", group="devs")
        self.ask(self.bob, op="leave", group="devs")
        left, role = self.alice.take()
        self.assertEqual((left["event"], left["seq"]), ("left", 3))
        self.assertEqual(
            (role["event"], role["user"], role["role"], role["seq"]), ("role", "alice", "owner", 4)
        )

    def test_creating_what_exists_is_an_error(self) -> None:
        """Also for its owner."""
        self.ask(self.alice, op="create", group="devs")
        self.assertEqual(self.ask(self.alice, op="create", group="devs")["code"], "exists")

    def test_a_group_by_invitation_cannot_be_joined(self) -> None:
        """It is forbidden."""
        self.ask(self.alice, op="create", group="board", public=False)
        self.assertEqual(self.ask(self.bob, op="join", group="board")["code"], "forbidden")

    def test_members_are_listed_by_name_in_pages(self) -> None:
        """With roles, and who is here."""
        self.ask(self.bob, op="join", group="devs")
        self.ask(self.alice, op="join", group="devs")
        self.bob.leave()
        first = self.ask(self.alice, op="members", group="devs", limit=1)
        self.assertEqual(
            (first["members"], first["complete"]),
            ([{"user": "alice", "role": "member", "online": True}], False),
        )
        rest = self.ask(self.alice, op="members", group="devs", after="alice")
        self.assertEqual(
            (rest["members"], rest["complete"]),
            ([{"user": "bob", "role": "owner", "online": False}], True),
        )

    def test_a_large_group_is_not_told_of_every_newcomer(self) -> None:
        """From 51 on only its owner and the newcomer's other sessions are."""
        self.ask(self.alice, op="join", group="square")
        early = self.house.session("u0")
        for number in range(50):
            self.house.plain(f"u{number}").say({"op": "join", "group": "square"})
        early.take()
        self.alice.take()
        other = self.house.session("late")
        other.take()
        self.house.plain("late").say({"op": "join", "group": "square"})
        self.assertEqual([f["user"] for f in self.alice.take()], ["late"])
        self.assertEqual([f["user"] for f in other.take()], ["late"])
        self.assertEqual(early.take(), [])


class Topics(_WithClients):
    """`subscribe` and `unsubscribe`."""

    def test_what_matches_is_heard_once(self) -> None:
        """However many filters match."""
        for topic_filter in ("news/#", "news/+", "+/x", "#"):
            self.ask(self.bob, op="subscribe", topic=topic_filter)
        self.alice.say({"topic": "news/x", "msg": "1"})
        self.assertEqual(self.bob.take(), [{"from": "alice", "topic": "news/x", "msg": "1"}])

    def test_retained_messages_come_after_the_ok_and_before_live_ones(self) -> None:
        """Marked `replay` for a session."""
        self.bob.say({"topic": "a/x", "msg": "old", "retain": True})
        self.bob.say({"topic": "a/x", "msg": "new", "retain": True}, {"topic": "a/y", "msg": "no"})
        self.alice.say({"op": "subscribe", "topic": "a/#", "id": 1})
        self.house.clock.advance(0)
        self.bob.say({"topic": "a/z", "msg": "live"})
        frames = [(f.get("event"), f.get("msg"), f.get("replay")) for f in self.alice.take()]
        self.assertEqual(frames, [("ok", None, None), (None, "new", True), (None, "live", None)])

    def test_an_empty_retained_message_clears(self) -> None:
        """As in MQTT."""
        self.bob.say({"topic": "a", "msg": "x", "retain": True})
        self.bob.say({"topic": "a", "msg": "", "retain": True})
        self.ask(self.alice, op="subscribe", topic="a")
        self.house.clock.advance(0)
        self.assertEqual(self.alice.take(), [])

    def test_since_brings_the_stored_matches(self) -> None:
        """All above it, marked, and no position moves by them."""
        for text in ("1", "2", "3"):
            self.bob.say({"topic": f"a/{text}", "msg": text})
        reply = self.ask(self.alice, op="subscribe", topic="a/+", since=1)
        self.house.clock.advance(0)
        self.assertEqual(reply["seq"], 3)
        self.assertEqual(
            [(f["msg"], f["replay"]) for f in self.alice.take()], [("2", True), ("3", True)]
        )

    def test_since_above_the_head_is_a_gap(self) -> None:
        """And then the retained messages come, as without it."""
        self.bob.say({"topic": "a", "msg": "x", "retain": True})
        self.ask(self.alice, op="subscribe", topic="a", since=9)
        self.house.clock.advance(0)
        gap, message = self.alice.take()
        self.assertEqual(gap, {"event": "gap", "topic": "a", "reason": "epoch"})
        self.assertEqual(message["msg"], "x")

    def test_more_than_a_thousand_retained_messages_are_cut_with_a_gap(self) -> None:
        """The newest thousand come."""
        for number in range(1001):
            self.bob.say({"topic": f"a/{number}", "msg": str(number), "retain": True})
        self.ask(self.alice, op="subscribe", topic="a/#")
        for _ in range(20):
            self.house.clock.advance(0)
        gap, *messages = self.alice.take()
        self.assertEqual(
            gap, {"event": "gap", "topic": "a/#", "after": 0, "until": 1, "reason": "quota"}
        )
        self.assertEqual([int(f["msg"]) for f in messages], list(range(1, 1001)))

    def test_a_plain_subscription_ends_with_the_connection(self) -> None:
        """A durable one is the user's: what came meanwhile waits."""
        self.ask(self.bob, op="subscribe", topic="gone")
        self.ask(self.bob, op="subscribe", topic="kept", durable=True)
        self.bob.leave()
        self.alice.say({"topic": "gone", "msg": "1"}, {"topic": "kept", "msg": "2"})
        again = self.house.plain("bob")
        self.assertEqual(again.take(), [{"from": "alice", "topic": "kept", "msg": "2"}])
        self.alice.say({"topic": "gone", "msg": "3"}, {"topic": "kept", "msg": "4"})
        self.assertEqual(again.take(), [{"from": "alice", "topic": "kept", "msg": "4"}])

    def test_unsubscribing_ends_both_kinds_on_every_connection(self) -> None:
        """But not another connection's own subscription."""
        other = self.house.plain("bob")
        own = self.house.plain("bob")
        self.ask(own, op="subscribe", topic="t")
        self.ask(self.bob, op="subscribe", topic="t")
        self.ask(self.bob, op="subscribe", topic="t", durable=True)
        self.assertEqual(
            self.ask(self.bob, op="unsubscribe", topic="t"), {"event": "ok", "id": "asked"}
        )
        self.alice.say({"topic": "t", "msg": "x"})
        self.assertEqual((self.bob.take(), other.take(), len(own.take())), ([], [], 1))

    def test_subscriptions_are_limited(self) -> None:
        """One more than the limit is refused; the same again is not."""
        for number in range(MAX_SUBSCRIPTIONS):
            self.alice.say({"op": "subscribe", "topic": f"t{number}"})
        self.assertEqual(self.ask(self.alice, op="subscribe", topic="x")["code"], "quota_exceeded")
        self.assertEqual(self.ask(self.alice, op="subscribe", topic="t1")["event"], "ok")


class Reading(_WithClients):
    """`history`, `read`, `ack`, `ping`, `help`."""

    def test_read_tells_the_other_side_and_ones_other_sessions(self) -> None:
        """Sessions only, and not the one that said it; going back is told to nobody."""
        phone, bob = self.house.session("alice"), self.house.session("bob")
        self.bob.say({"to": "alice", "msg": "x"})
        for connection in (self.alice, self.bob, phone, bob):
            connection.take()
        self.assertEqual(
            self.ask(self.alice, op="read", to="bob", seq=1), {"event": "ok", "id": "asked"}
        )
        event = {"event": "read", "from": "alice", "to": "bob", "user": "alice", "upto": 1}
        self.assertEqual((phone.take(), bob.take()), ([event], [event]))
        self.assertEqual((self.alice.take(), self.bob.take()), ([], []))
        self.assertEqual(self.ask(self.alice, op="read", to="bob", seq=1)["event"], "ok")
        self.assertEqual(phone.take(), [])

    def test_what_cannot_be_read_is_an_error(self) -> None:
        """Of a group that one is not in, or what is not there yet."""
        self.bob.say({"op": "join", "group": "devs"}, {"group": "devs", "msg": "x"})
        self.assertEqual(self.ask(self.alice, op="read", group="devs", seq=2)["code"], "not_member")
        self.assertEqual(self.ask(self.bob, op="read", group="devs", seq=3)["code"], "bad_request")

    def test_who_does_not_drain_misses_that_somebody_read(self) -> None:
        """It is not in the log, and nothing is kept back for it."""
        bob = self.house.session("bob")
        self.bob.say({"to": "alice", "msg": "x"})
        bob.take()
        bob.congested = True
        self.ask(self.alice, op="read", to="bob", seq=1)
        self.assertEqual(bob.take(), [])

    def test_history_gives_the_newest_messages_in_order(self) -> None:
        """And says whether there are older ones."""
        for text in "1234":
            self.bob.say({"to": "alice", "msg": text})
        reply = self.ask(self.alice, op="history", to="bob", limit=2)
        self.assertEqual([m["msg"] for m in reply["messages"]], ["3", "4"])
        self.assertEqual((reply["to"], reply["complete"]), ("bob", False))
        older = self.ask(self.alice, op="history", to="bob", before=reply["messages"][0]["seq"])
        self.assertEqual([m["msg"] for m in older["messages"]], ["1", "2"])
        self.assertTrue(older["complete"])

    def test_a_long_history_is_cut_below_the_largest_frame(self) -> None:
        """The newest stay; the cut is not complete, and what was cut is had by `before`."""
        for number in range(20):
            self.bob.say({"to": "alice", "msg": f"{number:02}" + "x" * 60_000})
        self.assertIsNone(self.alice.closed)
        reply = self.ask(self.alice, op="history", to="bob")
        texts = [m["msg"][:2] for m in reply["messages"]]
        self.assertEqual((texts[-1], reply["complete"]), ("19", False))
        self.assertLessEqual(sum(len(m["msg"]) for m in reply["messages"]), MAX_FRAME)
        first = reply["messages"][0]["seq"]
        older = self.ask(self.alice, op="history", to="bob", before=first)
        self.assertEqual(older["messages"][-1]["seq"], first - 1)
        upward = self.ask(self.alice, op="history", to="bob", after=0)
        self.assertEqual((upward["messages"][0]["msg"][:2], upward["complete"]), ("00", False))

    def test_ack_above_what_was_written_is_an_error(self) -> None:
        """At it, it is fine."""
        self.bob.say({"to": "alice", "msg": "x"})
        self.assertEqual(self.ask(self.alice, op="ack", seq=2)["code"], "bad_request")
        self.assertEqual(self.ask(self.alice, op="ack", seq=1)["event"], "ok")

    def test_ping_tells_the_time(self) -> None:
        """In milliseconds."""
        self.assertEqual(self.ask(self.alice, op="ping")["ts"], 1_000_000_250)

    def test_help_lists_every_command(self) -> None:
        """Or tells about one; an unknown one is not found."""
        self.assertEqual(
            {page["op"] for page in self.ask(self.alice, op="help")["commands"]}, set(COMMANDS)
        )
        (page,) = self.ask(self.bob, op="help", about="ack")["commands"]
        self.assertEqual((page["op"], page["required"]), ("ack", ["seq"]))
        self.assertEqual(self.ask(self.alice, op="help", about="fly")["code"], "not_found")

    def test_every_command_has_its_row(self) -> None:
        """`hello` alone is done by the session."""
        self.assertEqual({*OPERATIONS, "hello"}, set(COMMANDS))
