"""Who hears what: direct messages, groups, topics; devices; what it costs."""

from __future__ import annotations

from chatsvc.messages.entries import Shape
from chatsvc.state import Delivery
from tests.ears import Ear, StateCase
from tests.fakes import LateStore, make_store


class Deaf(Ear):
    """A subscriber that breaks."""

    def deliver(self, delivery: Delivery) -> None:
        """Break."""
        raise ZeroDivisionError


class WhoHearsWhat(StateCase):
    """Entries reach those whom they concern, once each, in the order of the log."""

    def setUp(self) -> None:
        """Add two connections of alice, and one each of bob and carol."""
        super().setUp()
        self.alice, self.phone = self.ear("alice"), self.ear("alice", "phone")
        self.bob, self.carol = self.ear("bob"), self.ear("carol")

    def heard(self) -> list[list[str]]:
        """What each of the four heard since the last time."""
        return [ear.take() for ear in (self.alice, self.phone, self.bob, self.carol)]

    def test_a_direct_message_is_heard_by_both_sides(self) -> None:
        """On all their connections, and by nobody else."""
        self.say("alice", "to", "bob", "one")
        self.say("bob", "to", "alice", "two")
        self.assertEqual(self.heard(), [["one", "two"], ["one", "two"], ["one", "two"], []])

    def test_a_message_to_oneself_is_heard_once(self) -> None:
        """On each connection."""
        self.say("alice", "to", "alice", "note")
        self.assertEqual(self.heard(), [["note"], ["note"], [], []])

    def test_a_group_is_heard_from_joining_to_leaving(self) -> None:
        """Both included, for the one who joins and leaves."""
        self.do("bob", "create", "devs")
        self.say("bob", "group", "devs", "early")
        self.do("alice", "join", "devs")
        self.say("bob", "group", "devs", "hi")
        self.do("alice", "leave", "devs")
        self.say("bob", "group", "devs", "late")
        mine = ["joined", "hi", "left"]
        bobs = ["joined", "early", "joined", "hi", "left", "late"]
        self.assertEqual(self.heard(), [mine, mine, bobs, []])

    def test_a_topic_is_heard_by_filter(self) -> None:
        """A durable one counts for all connections of its user; several deliver once."""
        self.state.subscribe_durably("alice", "a/#")
        self.state.topics.add("a/+", self.alice)
        self.state.topics.add("+/b", self.bob)
        self.say("carol", "topic", "a/b", "both")
        self.say("carol", "topic", "a", "one")
        self.say("carol", "topic", "b", "none")
        self.assertEqual(self.heard(), [["both", "one"], ["both", "one"], ["both"], []])

    def test_a_durable_filter_ends_on_all_connections(self) -> None:
        """One that a connection holds besides stays."""
        self.state.subscribe_durably("alice", "a")
        self.state.subscribe_durably("alice", "a")
        self.state.topics.add("a", self.phone)
        self.state.unsubscribe_durably("alice", "a")
        self.state.unsubscribe_durably("alice", "a")
        self.say("bob", "topic", "a", "x")
        self.assertEqual(self.heard(), [[], ["x"], [], []])

    def test_in_a_crowd_only_admins_and_the_one_concerned_hear_who_joins(self) -> None:
        """From 51 members on; its messages are heard by all."""
        self.do("alice", "create", "crowd")
        self.do("bob", "join", "crowd")
        for number in range(48):
            self.do(f"user{number}", "join", "crowd")
        self.heard()
        self.do("carol", "join", "crowd")
        self.say("carol", "group", "crowd", "hi")
        self.assertEqual(
            self.heard(), [["joined", "hi"], ["joined", "hi"], ["hi"], ["joined", "hi"]]
        )

    def test_who_goes_while_an_entry_is_told_disturbs_nobody(self) -> None:
        """Nor who comes: the list of hearers is a copy."""
        test = self

        class Leaver(Ear):
            def deliver(self, delivery: Delivery) -> None:
                super().deliver(delivery)
                self.state.detach(test.carol)
                self.state.detach(self)
                test.ear(self.user)

        for user in ("alice", "bob", "carol"):
            self.do(user, "join", "devs")
        self.state.attach(Leaver(self.state, "bob"))
        self.heard()
        self.say("alice", "group", "devs", "x")
        self.assertEqual(self.heard()[:3], [["x"], ["x"], ["x"]])

    def test_one_that_breaks_leaves_the_others_undisturbed(self) -> None:
        """The failure is logged, once for each entry."""
        self.state.attach(Deaf(self.state, "alice"))
        late = self.ear("alice")
        self.say("bob", "to", "alice", "one")
        self.say("bob", "to", "alice", "two")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertEqual(late.take(), ["one", "two"])
        self.assertEqual(self.heard()[:3], [["one", "two"]] * 3)

    def test_each_shape_is_encoded_once_for_all(self) -> None:
        """All receivers are handed the same bytes."""
        self.say("alice", "to", "bob", "x")
        deliveries = [ear.deliveries[0] for ear in (self.alice, self.phone, self.bob)]
        self.assertEqual(len({id(each) for each in deliveries}), 1)
        for shape in Shape:
            payloads = [each.payload(shape) for each in deliveries]
            self.assertIsNotNone(payloads[0])
            self.assertEqual(len({id(payload) for payload in payloads}), 1)
        self.assertEqual(len({deliveries[0].payload(shape) for shape in Shape}), 3)

    def test_a_shape_that_shows_nothing_is_found_out_once(self) -> None:
        """As for the others."""
        self.do("alice", "join", "devs")
        delivery = self.alice.deliveries[0]
        self.assertIsNone(delivery.payload(Shape.BARE))
        self.assertEqual(delivery.payloads, {Shape.BARE: None})

    def test_a_user_is_shown_the_log_while_a_connection_is_live(self) -> None:
        """One that is fed from the store, or has gone, does not count."""
        self.assertTrue(self.state.is_shown("alice"))
        self.alice.live = False
        self.assertTrue(self.state.is_shown("alice"))
        self.state.detach(self.phone)
        self.assertFalse(self.state.is_shown("alice"))
        self.assertFalse(self.state.is_shown("nobody"))


class Devices(StateCase):
    """A device has one live connection."""

    def test_a_newer_connection_replaces_the_older(self) -> None:
        """That of the same user and device, and no other."""
        older, tablet = self.ear("alice", "phone"), self.ear("alice", "tablet")
        plain, bobs = self.ear("alice"), self.ear("bob", "phone")
        newer = self.ear("alice", "phone")
        self.assertEqual(
            [ear.gone for ear in (older, tablet, plain, bobs, newer)],
            [True, False, False, False, False],
        )
        self.say("bob", "to", "alice", "x")
        self.assertEqual([ear.take() for ear in (older, newer)], [[], ["x"]])

    def test_the_older_ones_late_end_does_not_matter(self) -> None:
        """The newest stays the device's."""
        older = self.ear("alice", "phone")
        newer = self.ear("alice", "phone")
        self.state.detach(older)
        self.ear("alice", "phone")
        self.assertTrue(newer.gone)

    def test_what_the_user_belongs_to_stays(self) -> None:
        """When the only connection is replaced."""
        older = self.ear("alice", "phone")
        self.do("alice", "join", "devs")
        self.state.subscribe_durably("alice", "a/#")
        newer = self.ear("alice", "phone")
        self.say("alice", "group", "devs", "g")
        self.say("alice", "topic", "a/b", "t")
        self.assertEqual((older.take(), newer.take()), (["joined"], ["g", "t"]))
        self.state.detach(newer)
        self.nothing_is_left()


class Size(StateCase):
    """What depends on the number of users, and what does not."""

    def test_pings_are_more_seldom_with_many_users(self) -> None:
        """Every 2 s up to 4,000 users, then in proportion."""
        for count, interval in ((0, 2.0), (4000, 2.0), (6000, 3.0)):
            for number in range(len(self.state.clients), count):
                self.state.clients.add(f"user{number}", Ear(self.state, f"user{number}"))
            self.assertEqual(self.state.ping_interval, interval)

    def test_coming_and_going_touches_no_other_connection(self) -> None:
        """However many are in the same group and hear the same topic."""

        class Counted(Ear):
            touched = 0

            def __hash__(self) -> int:
                self.touched += 1
                return id(self)

            def __eq__(self, other: object) -> bool:
                self.touched += 1
                return self is other

        self.do("alice", "join", "devs")
        self.state.store.subscribe("alice", "a/#")
        crowd = [Counted(self.state, f"user{number}") for number in range(1000)]
        for other in crowd:
            self.do(other.user, "join", "devs")
            self.state.store.subscribe(other.user, "a/#")
            self.state.attach(other)
            other.touched = 0
        self.state.detach(self.ear("alice"))
        self.assertEqual(sum(other.touched for other in crowd), 0)

    def test_nothing_is_left_of_those_who_went(self) -> None:
        """Going twice changes nothing, nor does going without having come."""
        self.do("alice", "join", "devs")
        self.state.subscribe_durably("alice", "a/#")
        ears = [self.ear("alice"), self.ear("alice", "phone"), self.ear("bob")]
        self.state.detach(Ear(self.state, "alice"))
        for ear in [*ears, *ears]:
            self.state.detach(ear)
        self.nothing_is_left()

    def test_the_head_is_that_of_the_last_announced_entry(self) -> None:
        """Not of what is only committed."""
        late = LateStore(make_store(self.clock))
        self.open(late)
        self.say("alice", "to", "bob", "x")
        self.assertEqual(self.state.head, 0)
        late.release()
        self.assertEqual(self.state.head, 1)
