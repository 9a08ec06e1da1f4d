"""Groups: joining and leaving, owners, the end of a group, and who is told in a large one."""

from __future__ import annotations

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Member
from tests.store_suite.driver import ENOUGH, StoreCase, group, seqs


def told(entry: Entry) -> tuple[str, str, str | None]:
    """What an entry of a group says: its kind, who acted, and whom it concerns."""
    return (entry.kind, entry.sender, entry.user)


class JoiningAGroup(StoreCase):
    """`join` and `create`."""

    def test_joining_a_missing_group_creates_it(self) -> None:
        """The caller is its owner, later ones are members."""
        first, second = self.join("devs", "alice"), self.join("devs", "bob")
        self.assertEqual(self.roles("bob", "devs"), {"alice": "owner", "bob": "member"})
        self.assertEqual(
            [(entry.seq, *told(entry), entry.address) for entry in self.announced],
            [
                (first, "joined", "alice", "alice", group("devs")),
                (second, "joined", "bob", "bob", group("devs")),
            ],
        )

    def test_joining_again_gets_the_first_seq(self) -> None:
        """It is stored once, and its role stays."""
        first = self.join("devs", "alice")
        self.join("devs", "bob")
        self.assertEqual(self.join("devs", "alice"), first)
        self.assertEqual(len(self.announced), 2)
        self.assertEqual(self.roles("alice", "devs")["alice"], "owner")

    def test_the_groups_of_a_user_are_limited(self) -> None:
        """One more is refused until one is left."""
        for number in range(1000):
            self.join(f"g{number}", "alice")
        self.refuse(Code.QUOTA_EXCEEDED, "join", "alice", group("more"))
        self.leave("g7", "alice")
        self.join("more", "alice")

    def test_joining_after_leaving_is_a_new_joining(self) -> None:
        """A repeated `join` then gets the `seq` of the later one."""
        first = self.join("devs", "bob", "alice")
        self.leave("devs", "alice")
        second = self.join("devs", "alice")
        self.assertGreater(second, first)
        self.assertEqual(self.join("devs", "alice"), second)

    def test_creating_makes_an_owner(self) -> None:
        """It is told of as `joined`, and others may join."""
        self.append("create", "alice", group("devs"))
        self.assertEqual(told(self.announced[-1]), ("joined", "alice", "alice"))
        self.join("devs", "bob")
        self.assertEqual(self.roles("bob", "devs"), {"alice": "owner", "bob": "member"})

    def test_creating_what_there_is_fails(self) -> None:
        """`exists`, also for its owner."""
        self.join("devs", "alice")
        self.refuse(Code.EXISTS, "create", "bob", group("devs"))
        self.refuse(Code.EXISTS, "create", "alice", group("devs"))

    def test_a_private_group_cannot_be_joined(self) -> None:
        """`forbidden`; but for its members it is as any other, and repeating is no refusal."""
        made = self.append("create", "alice", group("board"), public=False).seq
        self.refuse(Code.FORBIDDEN, "join", "bob", group("board"))
        self.assertEqual(self.join("board", "alice"), made)
        self.assertGreater(self.send("alice", group("board")), made)

    def test_names_of_groups_and_users_are_apart(self) -> None:
        """A group may be called as a user is, or as a topic."""
        self.join("alice", "bob")
        self.refuse(Code.NOT_MEMBER, "send", "alice", group("alice"), msg="hi")
        self.assertEqual(self.roles("bob", "alice"), {"bob": "owner"})

    def test_only_members_send(self) -> None:
        """To others a group is `not_member`, whether there is one or not."""
        self.join("devs", "alice")
        self.refuse(Code.NOT_MEMBER, "send", "bob", group("devs"), msg="hi")
        self.refuse(Code.NOT_MEMBER, "send", "bob", group("unknown"), msg="hi")

    def test_admitting_tells_of_groups_and_filters(self) -> None:
        """`Standing` has what holds as of the head: current groups with roles, durable filters."""
        self.join("devs", "alice", "bob")
        self.join("ops", "bob")
        self.join("old", "carol", "bob")
        self.leave("old", "bob")
        self.subscribe("bob", "a/#")
        self.subscribe("bob", "b")
        self.unsubscribe("bob", "b")
        standing = self.result(self.store.admit("bob"))
        self.assertEqual(standing.seq, self.store.head)
        self.assertEqual(standing.groups, {"devs": "member", "ops": "owner"})
        self.assertEqual(standing.filters, ("a/#",))

    def test_somebody_new_belongs_to_nothing(self) -> None:
        """Admitting a name never seen finds no groups and no filters."""
        standing = self.result(self.store.admit("zed"))
        self.assertEqual((standing.seq, standing.groups, standing.filters), (0, {}, ()))


class LeavingAGroup(StoreCase):
    """`leave`, and what follows from it."""

    def test_leaving_is_told(self) -> None:
        """As `left`, and the one who left is no member any more."""
        self.join("devs", "alice", "bob")
        self.leave("devs", "bob")
        self.assertEqual(told(self.announced[-1]), ("left", "bob", "bob"))
        self.assertEqual(self.roles("alice", "devs"), {"alice": "owner"})
        self.refuse(Code.NOT_MEMBER, "send", "bob", group("devs"), msg="hi")

    def test_leaving_again_gets_the_first_seq(self) -> None:
        """It is stored once; the latest leaving counts."""
        self.join("devs", "alice", "bob")
        first = self.leave("devs", "bob")
        self.assertEqual(self.leave("devs", "bob"), first)
        self.join("devs", "bob")
        second = self.leave("devs", "bob")
        self.assertGreater(second, first)
        self.assertEqual(self.leave("devs", "bob"), second)
        self.assertEqual(len(self.announced_as("left")), 2)

    def test_who_never_was_a_member_cannot_leave(self) -> None:
        """`not_member`, whether there is such a group or not."""
        self.join("devs", "alice")
        self.refuse(Code.NOT_MEMBER, "leave", "bob", group("devs"))
        self.refuse(Code.NOT_MEMBER, "leave", "bob", group("unknown"))

    def test_the_longest_standing_member_inherits(self) -> None:
        """When the last owner leaves, who has been there longest becomes owner, and all hear it."""
        self.join("devs", "alice", "zoe", "bob")
        self.leave("devs", "alice")
        self.assertEqual(self.roles("bob", "devs"), {"zoe": "owner", "bob": "member"})
        role = self.announced[-1]
        self.assertEqual((told(role), role.role), (("role", "alice", "zoe"), "owner"))
        self.assertEqual(self.feed("zoe")[-1], role)
        self.assertEqual(self.feed("bob")[-1], role)
        self.assertEqual(self.feed("alice")[-1].kind, "left")

    def test_standing_counts_from_the_last_joining(self) -> None:
        """Who left and came back stands behind those who stayed."""
        self.join("devs", "alice", "bob", "carol")
        self.leave("devs", "bob")
        self.join("devs", "bob")
        self.leave("devs", "alice")
        self.assertEqual(self.roles("bob", "devs"), {"carol": "owner", "bob": "member"})

    def test_a_leaving_member_changes_no_roles(self) -> None:
        """The owner stays, and nobody is told of a role."""
        self.join("devs", "alice", "bob", "carol")
        self.leave("devs", "bob")
        self.assertEqual(self.announced_as("role"), [])
        self.assertEqual(self.roles("alice", "devs"), {"alice": "owner", "carol": "member"})

    def test_the_last_member_leaving_ends_the_group(self) -> None:
        """A private one too: its name is free, and the next one is no heir of it."""
        self.append("create", "alice", group("board"), public=False)
        self.leave("board", "alice")
        self.assertEqual(self.announced_as("role"), [])
        with self.assertRaises(Refused) as caught:
            self.roles("alice", "board")
        self.assertEqual(caught.exception.code, Code.NOT_MEMBER)
        self.join("board", "bob", "carol")
        self.assertEqual(self.roles("bob", "board"), {"bob": "owner", "carol": "member"})

    def test_a_new_group_of_an_old_name_starts_empty(self) -> None:
        """Nothing of the old one is in its history or its members' feeds."""
        self.join("devs", "alice")
        self.send("alice", group("devs"))
        self.leave("devs", "alice")
        new = [self.join("devs", "bob"), self.send("bob", group("devs"))]
        self.assertEqual(seqs(self.history("bob", group("devs")).entries), new[1:])
        self.assertEqual(seqs(self.history("bob", group("devs"), after=0).entries), new)
        self.assertEqual(seqs(self.feed("bob")), new)

    def test_a_reply_does_not_reach_into_an_ended_group(self) -> None:
        """A message of the old group is none of the new one's conversation."""
        self.join("devs", "alice")
        old = self.send("alice", group("devs"))
        self.leave("devs", "alice")
        self.join("devs", "bob")
        self.refuse(Code.NOT_FOUND, "send", "bob", group("devs"), msg="hi", reply_to=old)

    def test_former_members_keep_what_they_heard(self) -> None:
        """Of an ended group they get on resume what came before its end, and none of the next."""
        old = [self.join("devs", "alice"), self.send("alice", group("devs"))]
        old.append(self.leave("devs", "alice"))
        self.join("devs", "bob")
        self.send("bob", group("devs"))
        self.assertEqual(seqs(self.feed("alice")), old)


class ACrowd(StoreCase):
    """`joined` and `left` in groups of up to 50, and of more."""

    users: list[str]
    fiftieth: int

    def gather(self) -> None:
        """Have a group of 50: one owner and 49 members."""
        self.users = [f"u{number:02}" for number in range(50)]
        self.fiftieth = self.join("town", *self.users)

    def hearers(self, seq: int, *users: str) -> set[str]:
        """Who of these hears an entry."""
        return {user for user in users if seqs(self.feed(user, seq - 1))[:1] == [seq]}

    def test_all_of_fifty_hear_who_joins_and_leaves(self) -> None:
        """The entry is for the whole conversation."""
        self.gather()
        self.assertIsNone(self.announced[-1].audience)
        everybody = set(self.users)
        self.assertEqual(self.hearers(self.fiftieth, *everybody), everybody)
        left = self.leave("town", "u49")
        self.assertIsNone(self.announced[-1].audience)
        self.assertEqual(self.hearers(left, *everybody), everybody)

    def test_of_more_only_admins_and_the_user_hear_who_joins(self) -> None:
        """The entry names them as its audience, and only their feeds have it."""
        self.gather()
        joined = self.join("town", "late")
        self.assertEqual(self.announced[-1].audience, frozenset({"u00", "late"}))
        self.assertEqual(self.hearers(joined, *self.users, "late"), {"u00", "late"})

    def test_of_more_only_admins_and_the_user_hear_who_leaves(self) -> None:
        """The entry names them as its audience, and only their feeds have it."""
        self.gather()
        self.join("town", "late", "later")
        left = self.leave("town", "u30")
        self.assertEqual(self.announced[-1].audience, frozenset({"u00", "u30"}))
        self.assertEqual(self.hearers(left, *self.users, "late", "later"), {"u00", "u30"})

    def test_all_of_more_hear_messages_and_roles(self) -> None:
        """Only joining and leaving are kept from the crowd."""
        self.gather()
        self.join("town", "late")
        sent = self.send("u10", group("town"))
        self.leave("town", "u00")
        role = self.announced_as("role")[0].seq
        crowd = {*self.users[1:], "late"}
        self.assertEqual(self.hearers(sent, *crowd), crowd)
        self.assertEqual(self.hearers(role, *crowd, "u00"), crowd)

    def test_the_audience_is_fixed_when_it_is_committed(self) -> None:
        """Who becomes owner later does not hear on resume what it did not hear live."""
        self.gather()
        joined = self.join("town", "late")
        self.leave("town", "u00")
        self.assertEqual(self.announced_as("role")[0].user, "u01")
        self.assertEqual(self.hearers(joined, "u01"), set())

    def test_history_tells_members_of_all_comings(self) -> None:
        """Read with `after`, it has all entries of the conversation, events too."""
        self.gather()
        joined = self.join("town", "late")
        found = self.history("u20", group("town"), after=self.fiftieth).entries
        self.assertEqual(seqs(found), [joined])


class ListingMembers(StoreCase):
    """`members`."""

    def test_members_come_in_the_order_of_their_names(self) -> None:
        """Pages of any size, each after the last name of the one before, give them all."""
        names = ["Zoe", "al", "bob", "b", "carol", "u-2", "u-10"]
        self.join("devs", *names)
        expected = sorted(names)
        for limit in range(1, len(names) + 1):
            found: list[Member] = []
            after, complete = None, False
            for _ in range(-(-len(names) // limit)):
                self.assertFalse(complete)
                page, complete = self.result(self.store.members("bob", "devs", after, limit))
                self.assertEqual(len(page), min(limit, len(names) - len(found)))
                found += page
                after = page[-1].user
            self.assertTrue(complete)
            self.assertEqual([member.user for member in found], expected)
            self.assertEqual({m.user for m in found if m.role == "owner"}, {"Zoe"})

    def test_after_need_not_be_a_member(self) -> None:
        """It is a place in the order, not a name to be found."""
        self.join("devs", "alice", "carol")
        page = self.result(self.store.members("alice", "devs", "bob", ENOUGH))
        self.assertEqual(page, ([Member("carol", "member")], True))
        page = self.result(self.store.members("alice", "devs", "carol", ENOUGH))
        self.assertEqual(page, ([], True))

    def test_only_members_may_ask(self) -> None:
        """`not_member` for others, former ones included."""
        self.join("devs", "alice", "bob")
        self.leave("devs", "bob")
        for user, name in (("bob", "devs"), ("zed", "devs"), ("alice", "unknown")):
            with self.assertRaises(Refused) as caught:
                self.roles(user, name)
            self.assertEqual(caught.exception.code, Code.NOT_MEMBER)
