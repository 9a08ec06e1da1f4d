"""The tables beside the log: groups and users."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.tables import Group, Interval, User


class AGroup(SynchronousTestCase):
    """`Group`."""

    def setUp(self) -> None:
        """Make a group of an owner and two members, the last of them first by name."""
        self.group = Group(1, public=True)
        self.group.enter("zoe", "owner", 1)
        self.group.enter("bob", "member", 2)
        self.group.enter("al", "member", 3)

    def test_members_stand_in_the_order_of_entering(self) -> None:
        """With their roles and since when; staff are those above members."""
        self.assertEqual(self.group.members, {"zoe": "owner", "bob": "member", "al": "member"})
        self.assertEqual(list(self.group.members), ["zoe", "bob", "al"])
        self.assertEqual(self.group.since, {"zoe": 1, "bob": 2, "al": 3})
        self.assertEqual(self.group.staff, {"zoe"})

    def test_a_leaving_member_has_no_heir(self) -> None:
        """The owner stays one."""
        self.assertIsNone(self.group.leave("bob"))
        self.assertEqual(self.group.members, {"zoe": "owner", "al": "member"})
        self.assertEqual(self.group.since, {"zoe": 1, "al": 3})

    def test_the_longest_standing_member_inherits(self) -> None:
        """Where there is no admin."""
        self.assertEqual(self.group.leave("zoe"), "bob")
        self.assertEqual(self.group.members, {"bob": "owner", "al": "member"})
        self.assertEqual(self.group.staff, {"bob"})

    def test_the_longest_standing_admin_comes_before_members(self) -> None:
        """Of several admins the one who entered first, though a member was there before."""
        self.group.enter("eve", "admin", 5)
        self.group.enter("dan", "admin", 4)
        self.assertEqual(self.group.leave("zoe"), "dan")
        self.assertEqual(self.group.members["dan"], "owner")
        self.assertEqual(self.group.members["eve"], "admin")

    def test_another_owner_needs_no_heir(self) -> None:
        """Only the last owner's leaving makes another."""
        self.group.enter("eve", "owner", 4)
        self.assertIsNone(self.group.leave("zoe"))
        self.assertEqual(self.group.members["bob"], "member")
        self.assertEqual(self.group.leave("eve"), "bob")

    def test_the_last_one_leaves_nobody(self) -> None:
        """Then there is no heir, and nothing is left."""
        for user in ("bob", "al"):
            self.group.leave(user)
        self.assertIsNone(self.group.leave("zoe"))
        self.assertEqual((self.group.members, self.group.since, self.group.staff), ({}, {}, set()))


class AUser(SynchronousTestCase):
    """`User`."""

    def setUp(self) -> None:
        """Make a user that has been spoken of."""
        self.user = User("bob", 7)

    def spans(self, name: str) -> list[tuple[int, int | None]]:
        """When the user hears or heard a group."""
        return [(span.after, span.until) for span in self.user.groups[name]]

    def filters(self, floor: int) -> list[tuple[str, int, int | None]]:
        """When the user hears or heard which filters."""
        found = self.user.every_filter(floor)
        return sorted((held.what, held.after, held.until) for held in found)

    def test_it_begins_with_nothing(self) -> None:
        """Not seen, at position 0, in no group."""
        user = self.user
        self.assertEqual((user.name, user.created, user.seen, user.position), ("bob", 7, False, 0))
        self.assertEqual((list(user.roles), self.filters(0)), ([], []))

    def test_groups_are_heard_in_stretches(self) -> None:
        """Each from entering to leaving; the current ones are open."""
        user = self.user
        user.enter_group("devs", "member", 10, 0)
        user.enter_group("ops", "member", 11, 0)
        self.assertIsNone(user.left_group("devs"))
        user.leave_group("devs", 20)
        self.assertEqual((list(user.roles), user.left_group("devs")), (["ops"], 20))
        user.enter_group("devs", "member", 30, 0)
        self.assertEqual(self.spans("devs"), [(10, 20), (30, None)])
        self.assertEqual(sorted(user.roles), ["devs", "ops"])
        self.assertIsNone(user.left_group("unknown"))

    def test_stretches_that_are_expired_are_forgotten(self) -> None:
        """On entering again, those that ended up to the last expired entry."""
        for after in (10, 30, 50):
            self.user.enter_group("devs", "member", after, 0)
            self.user.leave_group("devs", after + 10)
        self.user.enter_group("devs", "member", 70, 39)
        self.assertEqual(self.spans("devs"), [(30, 40), (50, 60), (70, None)])
        self.user.leave_group("devs", 80)
        self.user.enter_group("devs", "member", 90, 40)
        self.assertEqual(self.spans("devs"), [(50, 60), (70, 80), (90, None)])

    def test_filters_are_heard_from_beginning_to_end(self) -> None:
        """Ended ones are kept as long as something in them is not expired."""
        user = self.user
        user.filters["a"] = Interval("a", 10)
        user.end_filter("a", 20, 0)
        user.filters["a"] = Interval("a", 30)
        user.end_filter("b", 40, 0)
        self.assertEqual(self.filters(0), [("a", 10, 20), ("a", 30, None)])
        self.assertEqual(self.filters(19), [("a", 10, 20), ("a", 30, None)])
        self.assertEqual(self.filters(20), [("a", 30, None)])
        user.end_filter("a", 50, 20)
        self.assertEqual(self.filters(0), [("a", 30, 50)])
        self.assertEqual(user.filters, {})

    def test_devices_are_forgotten_by_their_last_use(self) -> None:
        """Those used before the moment, not at it."""
        self.user.devices = {"old": (1, 9.9), "just": (2, 10.0), "new": (3, 11.0)}
        self.user.forget_devices(10.0)
        self.assertEqual(self.user.devices, {"just": (2, 10.0), "new": (3, 11.0)})

    def test_coming_and_going_leaves_no_more_than_was_said_meanwhile(self) -> None:
        """A stretch that begins where the last ended goes on with it; an empty one is nothing."""
        user = User("bob", 0)
        for seq in range(0, 100, 2):
            user.enter_group("devs", "member", seq, 0)
            user.leave_group("devs", seq + 2)
        self.assertEqual([(span.after, span.until) for span in user.groups["devs"]], [(0, 100)])
        user.enter_group("devs", "member", 105, 0)
        self.assertEqual(len(user.groups["devs"]), 2)
        for _ in range(100):
            user.filters["a"] = Interval("a", 7)
            user.end_filter("a", 7, 0)
        self.assertEqual(list(user.every_filter(0)), [])
