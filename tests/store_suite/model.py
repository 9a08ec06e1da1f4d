"""The feed against a naive model: a list of entries, each with its hearers fixed at its commit."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Refused
from chatsvc.store import Start
from tests.store_suite.driver import StoreCase, group, seqs, to, topic

USERS = ("alice", "bob", "carol", "dave")
GROUPS = ("devs", "ops")
TOPICS = ("a", "a/b", "a/b/c", "b")
FILTERS = ("a", "a/+", "a/#", "+", "#", "+/b", "b")

users = st.sampled_from(USERS)
groups = st.sampled_from(GROUPS)
topics = st.sampled_from(TOPICS)
filters = st.sampled_from(FILTERS)
devices = st.sampled_from((None, "phone", "tablet"))


def conversation(user: str, address: Address) -> tuple[str, ...]:
    """The conversation that ``address`` means when ``user`` says it: its kind, and who is in it."""
    if address.kind == "to":
        return ("to", *sorted((user, address.name)))
    return (address.kind, address.name)


def heard_by(topic_filter: str, name: str) -> bool:
    """Whether a filter means a topic, written down for each filter there is here."""
    meant = {
        "a": {"a"},
        "a/+": {"a/b"},
        "a/#": {"a", "a/b", "a/b/c"},
        "+": {"a", "b"},
        "#": set(TOPICS),
        "+/b": {"a/b"},
        "b": {"b"},
    }
    return name in meant[topic_filter]


class TheFeedAndItsModel(RuleBasedStateMachine):
    """The store does what the rules say; the model says who heard it."""

    case: StoreCase

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[Entry, frozenset[str]]] = []
        self.members: dict[str, list[str]] = {name: [] for name in GROUPS}
        self.born: dict[str, int] = {}
        self.filters: dict[str, set[str]] = {name: set() for name in USERS}
        self.keys: dict[tuple[str, int], int] = {}
        self.retained: dict[str, int] = {}
        self.positions: dict[tuple[str, str | None], int] = {}

    @initialize()
    def open(self) -> None:
        """Begin with an empty store."""
        self.case.open()

    def commit(self, hearers: set[str], *kinds: str) -> Entry:
        """Take over what the last append announced."""
        known = len(self.log)
        new = self.case.announced[known:]
        self.case.assertEqual([entry.kind for entry in new], list(kinds))
        for entry in new:
            heard = frozenset(hearers if entry.kind != "role" else hearers - {entry.sender})
            self.log.append((entry, heard))
        return new[0]

    # --- what happens ---

    @rule(user=users, other=users)
    def send_direct(self, user: str, other: str) -> None:
        """A direct message is for its two parties."""
        self.case.send(user, to(other))
        self.commit({user, other}, "message")

    @rule(user=users, name=groups)
    def send_to_group(self, user: str, name: str) -> None:
        """A message to a group is for who is a member then; others cannot send."""
        if user in self.members[name]:
            self.case.send(user, group(name))
            self.commit(set(self.members[name]), "message")
        else:
            self.case.assertRaises(Refused, self.case.send, user, group(name))

    @rule(user=users, name=topics, retain=st.booleans())
    def publish(self, user: str, name: str, *, retain: bool) -> None:
        """A message to a topic is for those who have a durable filter then."""
        seq = self.case.send(user, topic(name), retain=retain)
        if retain:
            self.retained[name] = seq
        self.commit(
            {who for who in USERS if any(heard_by(f, name) for f in self.filters[who])}, "message"
        )

    @rule(user=users, key=st.integers(0, 2))
    def send_with_key(self, user: str, key: int) -> None:
        """What has a key is stored once."""
        receipt = self.case.append(
            "send", user, to("alice"), msg="hi", key=str(key), digest=b"same"
        )
        if (user, key) in self.keys:
            self.case.assertEqual(receipt.seq, self.keys[user, key])
            self.case.assertTrue(receipt.dup)
        else:
            self.keys[user, key] = self.commit({user, "alice"}, "message").seq

    @rule(user=users, name=groups)
    def join(self, user: str, name: str) -> None:
        """A joining is for all members, the new one included."""
        receipt = self.case.join(name, user)
        if user not in self.members[name]:
            self.members[name].append(user)
            entry = self.commit(set(self.members[name]), "joined")
            self.case.assertEqual(receipt, entry.seq)
            if len(self.members[name]) == 1:
                self.born[name] = entry.seq

    @rule(user=users, name=groups)
    def leave(self, user: str, name: str) -> None:
        """A leaving is for all members, the old one included; the heir is told to the others."""
        members = self.members[name]
        if user not in members:
            return
        owner = members[0] == user and len(members) > 1
        self.case.leave(name, user)
        self.commit(set(members), *(["left", "role"] if owner else ["left"]))
        members.remove(user)

    @rule(user=users, topic_filter=filters)
    def subscribe(self, user: str, topic_filter: str) -> None:
        """A durable filter is heard from here on."""
        self.case.subscribe(user, topic_filter)
        self.filters[user].add(topic_filter)

    @rule(user=users, topic_filter=filters)
    def unsubscribe(self, user: str, topic_filter: str) -> None:
        """A durable filter is heard up to here."""
        self.case.unsubscribe(user, topic_filter)
        self.filters[user].discard(topic_filter)

    @rule(user=users, name=topics)
    def clear(self, user: str, name: str) -> None:
        """A topic has no retained message any more; what clears it is a message as any."""
        self.case.send(user, topic(name), "", retain=True)
        self.retained.pop(name, None)
        self.commit(
            {who for who in USERS if any(heard_by(f, name) for f in self.filters[who])}, "message"
        )

    @rule(user=users, device=devices, part=st.floats(0, 1))
    def prove(self, user: str, device: str | None, part: float) -> None:
        """A position moves forward, that of a device only where it is known."""
        seq = int(part * self.case.store.head)
        self.case.proven(user, seq, device)
        if device is None or (user, device) in self.positions:
            self.positions[user, device] = max(seq, self.positions.get((user, device), 0))

    @rule(user=users, device=devices)
    def begin(self, user: str, device: str | None) -> None:
        """A reader begins at its position, a new device at its user's, which it keeps."""
        position = self.positions.setdefault((user, device), self.positions.get((user, None), 0))
        self.case.assertEqual(self.case.start_for(user, device), Start(position, position))

    # --- what is read ---

    @rule(user=users)
    def admit(self, user: str) -> None:
        """A user is told of its groups, with its roles, and of its durable filters."""
        standing = self.case.result(self.case.store.admit(user))
        roles = {
            name: "owner" if members[0] == user else "member"
            for name, members in self.members.items()
            if user in members
        }
        self.case.assertEqual(standing.seq, self.case.store.head)
        self.case.assertEqual(standing.groups, roles)
        self.case.assertEqual(sorted(standing.filters), sorted(self.filters[user]))

    @rule(name=groups)
    def list_members(self, name: str) -> None:
        """A group has those who joined and did not leave; the longest-standing one owns it."""
        members = self.members[name]
        if members:
            roles = dict.fromkeys(members, "member") | {members[0]: "owner"}
            self.case.assertEqual(self.case.roles(members[-1], name), roles)

    @rule(topic_filter=filters, limits=st.lists(st.integers(1, 3), min_size=1, max_size=2))
    def replay(self, topic_filter: str, limits: list[int]) -> None:
        """Of each topic that matches, the last retained message, in the order of the log."""
        found = self.case.matching(topic_filter, retained=True, limits=limits)
        expected = [seq for name, seq in self.retained.items() if heard_by(topic_filter, name)]
        self.case.assertEqual(seqs(found), sorted(expected))

    @rule(
        user=users,
        start=st.floats(0, 1),
        cut=st.floats(0, 1),
        interests=st.dictionaries(filters, st.floats(0, 1), max_size=3),
        limits=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    )
    def read(
        self, user: str, start: float, cut: float, interests: dict[str, float], limits: list[int]
    ) -> None:
        """A feed has what its user was a hearer of, and what its interests match."""
        head = self.case.store.head
        after, shared_after = int(start * head), int(cut * head)
        wanted = {name: int(low * head) for name, low in interests.items()}
        expected = [
            entry
            for entry, hearers in self.log
            if entry.seq > after
            and (entry.address.kind == "to" or entry.seq > shared_after)
            and (
                user in hearers
                or (
                    entry.address.kind == "topic"
                    and any(
                        heard_by(name, entry.address.name) and entry.seq > low
                        for name, low in wanted.items()
                    )
                )
            )
        ]
        found = self.case.feed(user, after, shared_after, wanted, limits)
        self.case.assertEqual(found, expected)

    @rule(
        user=users,
        address=st.one_of(users.map(to), topics.map(topic), groups.map(group)),
        since=st.none() | st.floats(0, 1),
        limit=st.integers(1, 10),
    )
    def look_back(self, user: str, address: Address, since: float | None, limit: int) -> None:
        """A history has the conversation, for members from the birth of their group on."""
        case = self.case
        after = None if since is None else int(since * case.store.head)
        if address.kind == "group" and user not in self.members[address.name]:
            case.assertRaises(Refused, case.history, user, address, after=after)
            return
        born = self.born[address.name] if address.kind == "group" else 1
        talk = conversation(user, address)
        whole = [
            entry
            for entry, _ in self.log
            if conversation(entry.sender, entry.address) == talk
            and entry.seq >= born
            and (entry.kind == "message" if after is None else entry.seq > after)
        ]
        part = case.history(user, address, after=after, limit=limit)
        expected = whole[-limit:] if after is None else whole[:limit]
        case.assertEqual(list(part.entries), expected)
        case.assertEqual(part.complete, len(whole) <= limit)

    @invariant()
    def everything_was_announced_in_order(self) -> None:
        """The log of the model is the one that was announced."""
        announced = self.case.announced if self.log else []
        self.case.assertEqual([entry for entry, _ in self.log], announced)
        places = seqs(announced)
        self.case.assertEqual(places, sorted(set(places)))


class TheFeedByModel(StoreCase):
    """Any sequence of commands, read at any time from any place."""

    def test_feeds_are_those_of_the_model(self) -> None:
        """Who hears an entry is fixed when it is committed, and is the same on every replay."""
        case = self

        class Machine(TheFeedAndItsModel):
            def __init__(self) -> None:
                super().__init__()
                self.case = case

        options = settings(deadline=None, database=None, max_examples=60, stateful_step_count=40)
        run_state_machine_as_test(Machine, settings=options)
