"""Names given to clients, who is connected, and who hears which group and which topic."""

from __future__ import annotations

from string import ascii_lowercase

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.registry import (
    ClientRegistry,
    GroupRegistry,
    TopicRegistry,
    given_name,
    given_number,
)


class Touched:
    """A connection that counts how often a table has looked at it."""

    def __init__(self) -> None:
        self.count = 0

    def __hash__(self) -> int:
        self.count += 1
        return id(self)

    def __eq__(self, other: object) -> bool:
        self.count += 1
        return self is other


class GivenNames(SynchronousTestCase):
    """`client-a`, `client-b`, … for those who say no name."""

    def setUp(self) -> None:
        """Begin with nobody."""
        self.clients: ClientRegistry[object] = ClientRegistry()

    def give(self, count: int) -> list[str]:
        """Names for so many clients."""
        return [self.clients.give_name() for _ in range(count)]

    def test_they_go_from_a_to_z_and_on_with_two_letters(self) -> None:
        """As section 3 has it, and on as columns of a spreadsheet."""
        names = self.give(26 + 26 * 26 + 1)
        self.assertEqual(names[:26], [f"client-{letter}" for letter in ascii_lowercase])
        self.assertEqual(names[26:28], ["client-aa", "client-ab"])
        self.assertEqual(names[51:53], ["client-az", "client-ba"])
        self.assertEqual(names[-2:], ["client-zz", "client-aaa"])
        self.assertEqual(len(set(names)), len(names))

    def test_a_name_and_its_number_belong_together(self) -> None:
        """Both ways; other names have no number."""
        for number in (0, 25, 26, 701, 702, 18277, 18278, 10**9):
            self.assertEqual(given_number(given_name(number)), number)
        for name in ("client-", "client-A", "client-a1", "client-é", "xclient-a", "client-a\n"):
            self.assertIsNone(given_number(name), name)

    def test_the_first_free_one_is_given_again(self) -> None:
        """Whatever the order in which they became free."""
        self.give(5)
        for name in ("client-d", "client-b", "client-c"):
            self.clients.lay_down(name)
        self.assertEqual(self.give(4), ["client-b", "client-c", "client-d", "client-f"])

    def test_a_name_that_somebody_bears_already_is_skipped(self) -> None:
        """Borne explicitly before it was ever given, or while it was free."""
        self.clients.bear("client-b")
        self.assertEqual(self.give(2), ["client-a", "client-c"])
        self.clients.lay_down("client-a")
        self.clients.bear("client-a")
        self.assertEqual(self.give(1), ["client-d"])
        self.clients.lay_down("client-b")
        self.assertEqual(self.give(2), ["client-b", "client-e"])

    def test_a_name_is_free_when_its_last_bearer_is_gone(self) -> None:
        """Several connections may bear one name."""
        self.give(1)
        self.clients.bear("client-a")
        self.clients.lay_down("client-a")
        self.assertEqual(self.give(1), ["client-b"])
        self.clients.lay_down("client-a")
        self.assertEqual(self.give(1), ["client-a"])

    def test_coming_and_going_leaves_nothing_behind(self) -> None:
        """However often, under whatever name."""
        self.give(3)
        for turn in range(1000):
            for name in ("client-b", "client-zzz", f"alice{turn}"):
                self.clients.bear(name)
                self.clients.lay_down(name)
            self.clients.lay_down("client-a")
            self.assertEqual(self.clients.give_name(), "client-a")
            for name in ("client-c", "client-b"):
                self.clients.lay_down(name)
            self.assertEqual(self.give(2), ["client-b", "client-c"])
        self.assertEqual(
            self.clients._bearers, dict.fromkeys(("client-a", "client-b", "client-c"), 1)
        )
        self.assertEqual((self.clients._freed, self.clients._free), ([], set()))

    def test_freed_names_are_kept_once_each(self) -> None:
        """Borne and laid down again while they are free, too."""
        for name in self.give(3):
            self.clients.lay_down(name)
        for _ in range(100):
            self.clients.bear("client-b")
            self.clients.lay_down("client-b")
        self.assertEqual(sorted(self.clients._freed), [0, 1, 2])
        self.assertEqual(self.clients._bearers, {})


class GivenNamesModel(RuleBasedStateMachine):
    """Names against the plainest reading: look at all from the first."""

    def __init__(self) -> None:
        super().__init__()
        self.clients: ClientRegistry[object] = ClientRegistry()
        self.borne: list[str] = []

    @rule()
    def give(self) -> None:
        """A client comes without a name."""
        number = 0
        while given_name(number) in self.borne:
            number += 1
        assert self.clients.give_name() == given_name(number)
        self.borne.append(given_name(number))

    @rule(number=st.integers(0, 30))
    def bear(self, number: int) -> None:
        """A client comes with one of these names."""
        self.clients.bear(given_name(number))
        self.borne.append(given_name(number))

    @precondition(lambda self: self.borne)
    @rule(data=st.data())
    def lay_down(self, data: st.DataObject) -> None:
        """One of them goes."""
        name = data.draw(st.sampled_from(self.borne))
        self.borne.remove(name)
        self.clients.lay_down(name)

    @invariant()
    def nothing_grows(self) -> None:
        """What is kept is what is borne, and what was given and is free."""
        assert len(self.clients._bearers) == len(set(self.borne))
        assert sorted(self.clients._freed) == sorted(self.clients._free)
        assert len(self.clients._free) <= self.clients._next


class AnyComingAndGoing(SynchronousTestCase):
    """Names in any order of events."""

    def test_the_first_free_name_is_given_whatever_happened(self) -> None:
        """As the plainest reading of the rule says."""
        run_state_machine_as_test(
            GivenNamesModel,
            settings=settings(
                database=None, deadline=None, max_examples=60, stateful_step_count=40
            ),
        )


class ConnectedUsers(SynchronousTestCase):
    """Users with at least one connection."""

    def test_a_user_is_connected_from_the_first_to_the_last_connection(self) -> None:
        """And all of them are known, in the order they came."""
        clients: ClientRegistry[str] = ClientRegistry()
        self.assertIsNone(clients.get("alice"))
        alice = clients.add("alice", "one")
        self.assertIs(clients.add("alice", "two"), alice)
        clients.add("bob", "three")
        self.assertEqual((len(clients), list(alice.subscribers)), (2, ["one", "two"]))
        clients.discard("alice", "one")
        self.assertIs(clients.get("alice"), alice)
        clients.discard("alice", "two")
        self.assertIsNone(clients.get("alice"))
        self.assertEqual(len(clients), 1)

    def test_discarding_what_is_not_there_changes_nothing(self) -> None:
        """Neither a stranger nor another's connection."""
        clients: ClientRegistry[str] = ClientRegistry()
        alice = clients.add("alice", "one")
        clients.discard("bob", "one")
        clients.discard("alice", "two")
        self.assertEqual((len(clients), list(alice.subscribers)), (1, ["one"]))


class Groups(SynchronousTestCase):
    """Who hears a group."""

    def setUp(self) -> None:
        """Begin with two connections of alice."""
        self.clients: ClientRegistry[str] = ClientRegistry()
        self.groups: GroupRegistry[str] = GroupRegistry()
        self.alice = self.clients.add("alice", "one")
        self.clients.add("alice", "two")

    def test_a_user_enters_and_leaves_with_all_connections(self) -> None:
        """Others stay, and nothing is left of an empty group."""
        self.groups.add("devs", "bob")
        self.groups.enter(self.alice, "devs")
        self.groups.enter(self.alice, "devs")
        self.assertEqual(self.groups.subscribers("devs"), ["bob", "one", "two"])
        self.assertEqual(list(self.alice.groups), ["devs"])
        self.groups.leave(self.alice, "devs")
        self.assertEqual(self.groups.subscribers("devs"), ["bob"])
        self.assertEqual(list(self.alice.groups), [])
        self.groups.discard("devs", "bob")
        self.groups.discard("devs", "bob")
        self.assertEqual(self.groups._subscribers, {})

    def test_the_list_may_be_walked_while_members_leave(self) -> None:
        """It is a copy."""
        self.groups.enter(self.alice, "devs")
        for subscriber in self.groups.subscribers("devs"):
            self.groups.discard("devs", subscriber)
        self.assertEqual(self.groups.subscribers("devs"), [])


class Topics(SynchronousTestCase):
    """Who hears a topic."""

    def setUp(self) -> None:
        """Begin with no subscription."""
        self.topics: TopicRegistry[str] = TopicRegistry()

    def test_several_matching_filters_name_a_connection_once(self) -> None:
        """And each connection that has one."""
        for topic_filter in ("a/b", "a/+", "a/#", "#"):
            self.topics.add(topic_filter, "one")
        self.topics.add("+/b", "two")
        self.topics.add("a/c", "three")
        self.assertEqual(sorted(self.topics.subscribers("a/b")), ["one", "two"])

    def test_a_filter_held_twice_ends_with_the_second(self) -> None:
        """As the connection's own and as its user's; nothing is left of it then."""
        self.topics.add("a/#", "one")
        self.topics.add("a/#", "one")
        self.topics.discard("a/#", "one")
        self.assertEqual(self.topics.subscribers("a"), ["one"])
        self.topics.discard("a/#", "one")
        self.assertEqual(self.topics.subscribers("a"), [])
        self.topics.discard("a/#", "one")
        self.topics.add("a/#", "one")
        self.topics.discard("a/#", "one")
        self.assertEqual((self.topics._holds, bool(self.topics._tree)), ({}, False))


class TheCostOfOne(SynchronousTestCase):
    """What one connection costs does not depend on how many others there are."""

    def test_coming_and_going_touches_no_other_connection(self) -> None:
        """Of ten thousand others none is looked at, and the one as often as if it were alone."""
        costs = []
        for crowd in (0, 10_000):
            clients: ClientRegistry[Touched] = ClientRegistry()
            groups: GroupRegistry[Touched] = GroupRegistry()
            topics: TopicRegistry[Touched] = TopicRegistry()
            others = [Touched() for _ in range(crowd)]
            for number, other in enumerate(others):
                groups.enter(clients.add(f"user{number}", other), "devs")
                topics.add("a/#", other)
            one = Touched()
            for other in others:
                other.count = 0
            user = clients.add("alice", one)
            groups.enter(user, "devs")
            topics.add("a/#", one)
            topics.discard("a/#", one)
            groups.leave(user, "devs")
            clients.discard("alice", one)
            self.assertEqual(sum(other.count for other in others), 0)
            costs.append(one.count)
        self.assertEqual(costs[0], costs[1])
