"""What a connection is shown of the log: the seam, lagging, and proof by pong."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.errors import CloseCode
from tests.fakes import FakeConnection, House, make_clock, make_late_house, make_store


def words(frames: list[dict[str, Any]]) -> list[str]:
    """What came, in short: texts of messages, names of events."""
    return [frame.get("event") or frame["msg"] for frame in frames]


class TheSeam(SynchronousTestCase):
    """First what was missed, then live: no gap and no repetition."""

    def setUp(self) -> None:
        """Open a house whose store answers late, with a session of alice."""
        self.store, self.house = make_late_house()
        self.alice = self.house.session("alice")

    def test_what_is_announced_while_the_store_is_read_is_shown_once(self) -> None:
        """Whatever is told first, the answer to the read or the announcement."""
        self.alice.say({"to": "bob", "msg": "missed"})
        self.store.late = True
        bob = self.house.session("bob")
        for step in range(8):
            self.alice.say({"to": "bob", "msg": f"live{step}"})
            self.store.release(1)
            self.house.clock.advance(0)
        self.store.late = False
        self.store.release()
        self.house.clock.advance(0)
        self.assertEqual(
            [f["msg"] for f in bob.take() if "msg" in f],
            ["missed", *(f"live{step}" for step in range(8))],
        )

    def test_a_page_may_reach_beyond_what_was_announced(self) -> None:
        """The late announcement of what a page has shown is not shown again."""
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x"})  # committed, and not announced yet
        bob = self.house.connect("bob")
        self.house.clock.advance(0.25)
        while not bob.frames:
            self.store.release_reads()
        self.assertEqual(self.store.head, 0)
        self.store.release()
        self.assertEqual(words(bob.take()), ["x"])

    def test_a_resume_after_what_a_page_has_shown_goes_on_there(self) -> None:
        """Also before that is announced: no `gap`, and nothing again."""
        self.store.late = True
        self.alice.say({"to": "bob", "msg": "x"})  # committed, and not announced yet
        former = self.house.session("bob")
        while not any("msg" in frame for frame in former.frames):
            self.store.release_reads()
        former.leave()
        bob = self.house.session("bob", since=1)
        self.store.release_reads()
        self.store.late = False
        self.store.release()
        self.house.clock.advance(0)
        self.assertEqual(words(bob.take()), ["welcome", "caught_up"])

    def test_a_subscription_made_while_a_page_is_read_is_heard(self) -> None:
        """Also of what that page reads over, because it is committed and not announced yet."""
        self.store.late = True
        self.alice.say({"topic": "t/a", "msg": "x"})
        bob = self.house.session("bob")
        while not bob.frames:
            self.store.release_reads()
        bob.say({"op": "subscribe", "topic": "t/a", "id": 1})  # the first page is on its way
        self.store.release_reads()
        self.house.clock.advance(0)
        self.store.late = False
        self.store.release()
        self.house.clock.advance(0)
        frames = bob.take()
        (ok,) = [frame for frame in frames if frame.get("event") == "ok"]
        self.assertEqual(ok["seq"], 0)
        self.assertIn("x", words(frames))

    def test_memberships_announced_while_arriving_count(self) -> None:
        """A group joined on another connection meanwhile is heard, one left is not."""
        self.alice.say({"op": "join", "group": "devs"})
        phone = self.house.session("bob")
        phone.say({"op": "join", "group": "devs"})
        phone.leave()
        self.store.late = True
        bob = self.house.session("bob")
        self.store.release(1)
        other = self.house.session("bob")
        other.say({"op": "leave", "group": "devs"})
        self.store.release()
        self.store.late = False
        self.alice.take()
        bob.take()
        self.alice.say({"group": "devs", "msg": "x"})
        self.assertEqual(bob.take(), [])

    def test_long_replays_take_turns(self) -> None:
        """A page a turn; others are served in between."""
        for number in range(500):
            self.alice.say({"to": "bob", "msg": str(number)})
        bob = self.house.session("bob")
        self.assertEqual(len(bob.frames), 1 + 200)
        carol = self.house.session("carol")
        self.assertEqual(words(carol.take()), ["welcome", "caught_up"])
        self.house.clock.advance(0)
        self.house.clock.advance(0)
        texts = words(bob.take())
        self.assertEqual(texts, ["welcome", *map(str, range(500)), "caught_up"])

    def test_a_reader_beyond_the_quota_gets_a_gap_for_the_oldest(self) -> None:
        """Of a group; direct messages are all there."""
        clock = make_clock()
        house = House(make_store(clock, quota=3), clock)
        alice = house.session("alice")
        bob = house.session("bob")
        for member in (alice, bob):
            member.say({"op": "join", "group": "g"})
        bob.leave()
        alice.say({"to": "bob", "msg": "direct"})
        for text in "12345":
            alice.say({"group": "g", "msg": text})
        again = house.session("bob")
        self.assertEqual(
            words(again.frames), ["welcome", "gap", "direct", "3", "4", "5", "caught_up"]
        )
        gap = again.frames[1]
        self.assertEqual((gap["until"], gap["reason"]), (5, "quota"))

    def test_what_retention_took_is_a_gap(self) -> None:
        """For a session; a plain connection is told nothing and gets what is left."""
        clock = make_clock()
        house = House(make_store(clock, retention=100), clock)
        house.session("bob").leave()
        alice = house.session("alice")
        alice.say({"to": "bob", "msg": "old"})
        clock.advance(60)
        alice.say({"to": "bob", "msg": "new"})
        clock.advance(50)
        plain = house.plain("bob")
        self.assertEqual(words(plain.frames), ["new"])
        session = house.session("bob")
        self.assertEqual(words(session.frames), ["welcome", "gap", "new", "caught_up"])
        self.assertEqual(
            session.frames[1], {"event": "gap", "after": 0, "until": 1, "reason": "retention"}
        )


class NoFalseGap(SynchronousTestCase):
    """Who was shown everything is not told of a loss when retention passes by."""

    def setUp(self) -> None:
        """Open a house with little retention, and a session that hears nothing of the traffic."""
        clock = make_clock()
        self.house = House(make_store(clock, retention=100), clock)
        self.bob = self.house.session("bob")
        self.alice = self.house.session("alice")
        for _ in range(6):
            self.alice.say({"to": "carol", "msg": "x"})
            self.house.clock.advance(24)
        self.bob.take()

    def test_not_at_a_subscription(self) -> None:
        """A live stream has been shown all that was announced."""
        self.bob.say({"op": "subscribe", "topic": "t", "id": 1})
        self.assertEqual(words(self.bob.take()), ["ok"])

    def test_not_when_it_lags(self) -> None:
        """It lags from the entry before."""
        self.bob.congested = True
        self.alice.say({"to": "bob", "msg": "y"})
        self.assertEqual(self.bob.take(), [{"event": "lagging", "seq": 6}])
        self.bob.congested = False
        assert self.bob.session is not None
        self.bob.session.drained()
        self.assertEqual(words(self.bob.take()), ["y", "caught_up"])

    def test_not_when_it_comes_again(self) -> None:
        """Its idle pings have proven that it was there."""
        self.house.sweep(1, self.bob)
        self.bob.echo()
        self.bob.leave()
        again = self.house.session("bob")
        self.assertEqual(words(again.take()), ["welcome", "caught_up"])


class Lagging(SynchronousTestCase):
    """A connection that does not drain is fed from the log."""

    def setUp(self) -> None:
        """Open a house with a sender and a session that is live."""
        self.house = House()
        self.alice = self.house.session("alice")
        self.bob = self.house.session("bob")
        self.bob.take()

    def drain(self, connection: FakeConnection) -> None:
        """The transport has sent everything."""
        connection.congested = False
        assert connection.session is not None
        connection.session.drained()
        self.house.clock.advance(0)

    def test_it_is_told_from_where_and_until_where(self) -> None:
        """`lagging`, then nothing more until it drains, then all of it, then `caught_up`."""
        self.alice.say({"to": "bob", "msg": "1"})
        self.bob.congested = True
        for text in "234":
            self.alice.say({"to": "bob", "msg": text})
        self.assertEqual(words(self.bob.frames), ["1", "lagging"])
        self.assertEqual(self.bob.take()[1]["seq"], 1)
        self.drain(self.bob)
        self.assertEqual(words(self.bob.frames), ["2", "3", "4", "caught_up"])
        self.assertEqual(self.bob.take()[-1]["seq"], 4)

    def test_a_plain_connection_loses_nothing_and_is_told_nothing(self) -> None:
        """The same for a plain connection, but for the events."""
        plain = self.house.plain("carol")
        plain.congested = True
        for text in "123":
            self.alice.say({"to": "carol", "msg": text})
        self.assertEqual(plain.frames, [])
        self.drain(plain)
        self.assertEqual(words(plain.take()), ["1", "2", "3"])

    def test_its_own_topics_are_not_lost_either(self) -> None:
        """What a subscription of the connection matched while it lagged comes from the log."""
        self.bob.say({"op": "subscribe", "topic": "news/#"})
        self.house.clock.advance(0)
        self.bob.congested = True
        self.alice.say({"topic": "news/a", "msg": "1"}, {"topic": "other", "msg": "2"})
        self.drain(self.bob)
        self.assertEqual(words(self.bob.take()), ["lagging", "1", "caught_up"])

    def test_own_messages_are_not_shown_to_the_connection_that_sent_them(self) -> None:
        """Neither live nor when it is fed from the log; another session of the user gets them."""
        other = self.house.session("bob")
        other.take()
        self.bob.congested = True
        self.alice.say({"to": "bob", "msg": "1"})
        self.bob.say({"to": "alice", "msg": "own"})
        self.drain(self.bob)
        self.assertEqual(words(self.bob.take()), ["lagging", "1", "caught_up"])
        self.assertEqual(words(other.take()), ["1", "own"])

    def test_congestion_without_anything_to_show_is_not_lagging(self) -> None:
        """A long reply alone does not make a connection lag."""
        self.bob.congested = True
        self.drain(self.bob)
        self.alice.say({"to": "bob", "msg": "1"})
        self.assertEqual(words(self.bob.take()), ["1"])

    def test_at_most_a_window_is_unproven(self) -> None:
        """256 KiB, then a ping, and nothing more until its pong."""
        self.bob.leave()
        for number in range(20):
            self.alice.say({"to": "bob", "msg": f"{number:02}" + "x" * 60_000})
        bob = self.house.session("bob")
        self.house.clock.advance(0)
        self.assertEqual(len(bob.frames), 1 + 5)
        self.assertEqual(len(bob.pings), 1)
        rounds = 0
        while words(bob.frames)[-1] != "caught_up":
            bob.echo()
            self.house.clock.advance(0)
            rounds += 1
        self.assertEqual(rounds, 3)
        texts = [f["msg"][:2] for f in bob.frames if "msg" in f]
        self.assertEqual(texts, [f"{number:02}" for number in range(20)])

    def test_no_progress_for_a_minute_is_the_end(self) -> None:
        """With 4000; 60 s count from the last progress."""
        self.bob.congested = True
        self.alice.say({"to": "bob", "msg": "x" * 1000})
        self.house.sweep(59, self.bob)
        self.assertIsNone(self.bob.closed)
        self.house.sweep(30, self.bob)
        assert self.bob.closed is not None
        self.assertEqual(self.bob.closed[0], CloseCode.NO_PROGRESS)


class Proof(SynchronousTestCase):
    """Pings name what was written, pongs move positions."""

    def setUp(self) -> None:
        """Open a house with a sender and a session that is live."""
        self.house = House()
        self.alice = self.house.session("alice")
        self.bob = self.house.session("bob")

    def missed(self) -> list[str]:
        """The texts that a new plain connection of bob would get."""
        connection = self.house.plain("bob")
        texts = words(connection.take())
        connection.leave()
        return texts

    def test_a_ping_follows_the_first_unproven_delivery_at_once(self) -> None:
        """It names the seq that was written, and comes after it."""
        self.alice.say({"to": "bob", "msg": "1"})
        self.assertEqual([ping.split()[0] for ping in self.bob.pings], [b"1"])

    def test_then_at_most_every_two_seconds_while_something_is_unproven(self) -> None:
        """One ping is outstanding at a time."""
        self.alice.say({"to": "bob", "msg": "1"}, {"to": "bob", "msg": "2"})
        self.house.sweep(3, self.bob)
        self.assertEqual(len(self.bob.pings), 1)
        self.bob.echo()
        self.house.sweep(1, self.bob)
        self.assertEqual([ping.split()[0] for ping in self.bob.pings], [b"1", b"2"])
        self.bob.echo()
        self.alice.say({"to": "bob", "msg": "3"})
        self.assertEqual(len(self.bob.pings), 2)
        self.house.sweep(2, self.bob)
        self.assertEqual(len(self.bob.pings), 3)

    def test_an_idle_connection_is_pinged_every_25_seconds(self) -> None:
        """And one that answers is left open."""
        for expected in (1, 2):
            self.house.sweep(24, self.bob)
            self.assertEqual(len(self.bob.pings), expected - 1)
            self.house.sweep(1, self.bob)
            self.assertEqual(len(self.bob.pings), expected)
            self.bob.echo()
        self.assertIsNone(self.bob.closed)

    def test_without_a_pong_for_ten_seconds_the_connection_is_closed(self) -> None:
        """With 3008; the message is still to come."""
        self.alice.say({"to": "bob", "msg": "1"})
        self.house.sweep(10, self.bob)
        self.assertIsNone(self.bob.closed)
        self.house.sweep(1, self.bob)
        assert self.bob.closed is not None
        self.assertEqual(self.bob.closed[0], CloseCode.SILENT)
        self.assertEqual(self.missed(), ["1"])

    def test_time_in_which_the_server_does_not_read_does_not_count(self) -> None:
        """A pong cannot be seen then."""
        self.alice.say({"to": "bob", "msg": "1"})
        self.house.sweep(30, self.bob, reading=False)
        self.assertIsNone(self.bob.closed)
        self.house.sweep(12, self.bob)
        self.assertIsNotNone(self.bob.closed)

    def test_only_an_exact_echo_counts(self) -> None:
        """Another payload, an old one or an unasked-for one proves nothing."""
        self.alice.say({"to": "bob", "msg": "1"})
        assert self.bob.session is not None
        for payload in (b"", b"1", b"99 1", self.bob.pings[0] + b" "):
            self.bob.session.pong(payload)
        self.bob.leave()
        self.assertEqual(self.missed(), ["1"])

    def test_what_is_proven_does_not_come_again(self) -> None:
        """What came after the ping does."""
        self.alice.say({"to": "bob", "msg": "1"}, {"to": "bob", "msg": "2"})
        self.bob.echo()
        self.bob.leave()
        self.assertEqual(self.missed(), ["2"])

    def test_after_an_ack_only_acks_move_the_position(self) -> None:
        """A pong proves delivery, and no longer processing."""
        self.alice.say({"to": "bob", "msg": "1"}, {"to": "bob", "msg": "2"})
        self.bob.say({"op": "ack", "seq": 1})
        self.house.sweep(2, self.bob)
        self.bob.echo()
        self.bob.leave()
        self.assertEqual(self.missed(), ["2"])

    def test_replayed_messages_of_a_subscription_move_nothing(self) -> None:
        """A ping after them names the position as it was."""
        self.alice.say({"topic": "t", "msg": "x", "retain": True})
        self.bob.say({"op": "subscribe", "topic": "t"})
        self.house.clock.advance(0)
        self.assertEqual(words(self.bob.take())[-1], "x")
        self.assertEqual([ping.split()[0] for ping in self.bob.pings], [b"1"])

    def test_positions_are_saved_every_few_seconds(self) -> None:
        """Also while the connection lives."""
        self.alice.say({"to": "bob", "msg": "1"})
        self.bob.echo()
        self.house.clock.advance(3)
        self.bob.closed = (CloseCode.NORMAL, "the process was killed")
        self.assertEqual(self.missed(), [])
