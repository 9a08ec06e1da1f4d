"""`signal`: to whom it goes, from whom it is taken, and that nothing of it stays."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.circle import Circle
from chatsvc.messages.commands import MAX_SIGNAL
from tests.fakes import FakeConnection, House, make_late_house

DATA = {"sdp": "v=0", "n": 1.50}


class _WithFriends(SynchronousTestCase):
    def setUp(self) -> None:
        """Let alice and bob be in sessions, and acquainted."""
        self.store, self.house = make_late_house()
        self.alice = self.house.session("alice", device="laptop")
        self.bob = self.house.session("bob")
        self.alice.say({"op": "send", "to": "bob", "msg": "hi"})
        self.take(self.alice, self.bob)

    def take(self, *connections: FakeConnection) -> list[list[dict[str, Any]]]:
        """What each has heard since the last time."""
        return [connection.take() for connection in connections]

    def signal(self, connection: FakeConnection, to: str, **fields: Any) -> dict[str, Any]:
        """Say `signal`; the reply."""
        connection.take()
        connection.say({"op": "signal", "id": 1, "to": to, "data": DATA, **fields})
        (reply,) = connection.take()
        return reply


class Signals(_WithFriends):
    """What is passed on."""

    def test_all_sessions_of_a_user_get_it(self) -> None:
        """As it was said, with the device of who said it; plain connections do not."""
        phone, plain = self.house.session("bob", device="phone"), self.house.plain("bob")
        self.take(phone, plain)
        self.assertEqual(self.signal(self.alice, "bob"), {"event": "ok", "id": 1})
        event = {"event": "signal", "from": "alice", "device": "laptop", "data": DATA}
        self.assertEqual(self.take(self.bob, phone, plain), [[event], [event], []])

    def test_one_device_may_be_meant(self) -> None:
        """Then no other gets it; who has no device names none."""
        phone = self.house.session("bob", device="phone")
        self.take(phone)
        self.assertEqual(self.signal(self.alice, "bob", device="phone")["event"], "ok")
        self.assertEqual(self.take(self.bob), [[]])
        self.assertEqual(len(phone.take()), 1)
        self.assertEqual(self.signal(self.bob, "alice")["event"], "ok")
        (event,) = self.alice.take()
        self.assertNotIn("device", event)

    def test_data_goes_on_byte_for_byte(self) -> None:
        """Whatever JSON it is."""
        self.alice.say(b'{"op":"signal","to":"bob","data": [1.50, {"a":null},"\\u00e9"] }')
        (event,) = self.bob.take()
        self.assertEqual(event["data"], [1.5, {"a": None}, "é"])

    def test_to_oneself_it_goes_to_the_other_sessions(self) -> None:
        """If there is one."""
        self.assertEqual(self.signal(self.alice, "alice")["code"], "offline")
        phone = self.house.session("alice", device="phone")
        self.take(phone)
        self.assertEqual(self.signal(self.alice, "alice")["event"], "ok")
        self.assertEqual(len(phone.take()), 1)

    def test_who_is_not_here_is_offline(self) -> None:
        """So is a device that is not, and a user with plain connections alone."""
        self.assertEqual(self.signal(self.alice, "bob", device="phone")["code"], "offline")
        self.bob.leave()
        self.assertEqual(self.signal(self.alice, "bob")["code"], "offline")
        self.house.plain("bob")
        self.assertEqual(self.signal(self.alice, "bob")["code"], "offline")

    def test_nothing_of_it_is_stored(self) -> None:
        """The log is as it was, and who comes later gets nothing."""
        head = self.store.head
        self.signal(self.alice, "bob")
        self.assertEqual(self.store.head, head)
        phone = self.house.session("bob", device="phone", since=0)
        self.assertNotIn("signal", [frame.get("event") for frame in phone.take()])

    def test_who_does_not_drain_misses_it(self) -> None:
        """That is no error: a session was there."""
        self.bob.congested = True
        self.assertEqual(self.signal(self.alice, "bob")["event"], "ok")
        self.assertEqual(self.bob.take(), [])

    def test_what_is_too_large_or_unsound_is_refused(self) -> None:
        """By its size in bytes as it was written, and by its depth."""
        text = "x" * (MAX_SIGNAL - 2)
        self.assertEqual(self.signal(self.alice, "bob", data=text)["event"], "ok")
        self.assertEqual(self.signal(self.alice, "bob", data=text + "x")["code"], "too_large")
        deep = "[" * 101 + "]" * 101
        self.alice.say(b'{"op":"signal","id":2,"to":"bob","data":%s}' % deep.encode())
        self.assertEqual(self.alice.take()[-1]["code"], "bad_request")
        self.alice.say({"op": "signal", "id": 3, "to": "bob"})
        self.assertEqual(self.alice.take()[-1]["code"], "bad_request")


class TheCircle(_WithFriends):
    """From whom a signal is taken."""

    def test_strangers_are_refused_whether_they_are_here_or_not(self) -> None:
        """With the same words, and the frame that would make acquainted."""
        here, away = self.house.session("carol"), "dave"
        refusals = [self.signal(self.alice, name) for name in ("carol", away)]
        self.assertEqual([refusal["code"] for refusal in refusals], ["forbidden"] * 2)
        self.assertEqual(
            refusals[0]["reason"].replace("carol", away), refusals[1]["reason"], refusals
        )
        self.assertNotIn("signal", [frame.get("event") for frame in here.take()])
        self.alice.say(json.loads(refusals[0]["hint"]))
        self.assertEqual(self.signal(self.alice, "carol")["event"], "ok")

    def test_a_group_makes_the_circle_until_one_leaves(self) -> None:
        """Whichever of the two, and though it was remembered."""
        carol = self.house.session("carol")
        for leaver in (self.alice, carol):
            for each in (self.alice, carol):
                each.say({"op": "join", "group": "devs"})
            self.assertEqual(self.signal(self.alice, "carol")["event"], "ok")
            leaver.say({"op": "leave", "group": "devs"})
            self.assertEqual(self.signal(self.alice, "carol")["code"], "forbidden")
            self.assertEqual(self.signal(carol, "alice")["code"], "forbidden")

    def test_what_was_asked_before_somebody_left_is_not_remembered(self) -> None:
        """The answer comes late."""
        carol = self.house.session("carol")
        for each in (self.alice, carol):
            each.say({"op": "join", "group": "devs"})
        self.take(self.alice, carol)
        self.store.late = True
        self.alice.say({"op": "signal", "id": 1, "to": "carol", "data": 1})
        carol.say({"op": "leave", "group": "devs"})
        self.store.release()
        self.store.late = False
        self.assertEqual(self.signal(self.alice, "carol")["code"], "forbidden")

    def test_the_store_is_asked_once(self) -> None:
        """While both stay; a second signal waits for nothing."""
        self.signal(self.alice, "bob")
        self.store.late = True
        self.assertEqual(self.signal(self.alice, "bob")["event"], "ok")
        self.assertEqual(self.signal(self.bob, "alice")["event"], "ok")

    def test_nothing_is_remembered_of_who_has_gone(self) -> None:
        """On either side."""
        circle: Circle = self.house.state.circle
        self.signal(self.alice, "bob")
        self.assertEqual(len(circle), 2)
        self.bob.leave()
        self.assertEqual(len(circle), 0)

    def test_signals_keep_the_order_of_commands(self) -> None:
        """One that must ask holds up what comes after it."""
        house = House()
        ann, ben = house.session("ann"), house.session("ben")
        self.take(ann, ben)
        ann.say(
            {"to": "ben", "msg": "one"},
            {"op": "signal", "to": "ben", "data": 2},
            {"to": "ben", "msg": "three"},
        )
        heard = [frame.get("msg", frame.get("data")) for frame in ben.take()]
        self.assertEqual(heard, ["one", 2, "three"])
