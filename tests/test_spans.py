"""Where in the log an entry stands."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.store.spans import events_of, messages_of, received_by, runs_of, sent_by
from tests.store_suite.driver import group, to, topic
from tests.store_suite.model import conversation

NAMES = ("a", "b", "a-b", "A", "0", "a.b")
ADDRESSES = [Address(kind, name) for kind in ("to", "group", "topic") for name in NAMES]


def entry(sender: str, address: Address, kind: str = "message") -> Entry:
    """An entry of which only its place matters."""
    return Entry(seq=1, ts=1, kind=kind, sender=sender, address=address)  # type: ignore[arg-type]


class TheRunsOfAnEntry(SynchronousTestCase):
    """`runs_of`: its conversation's first."""

    def test_a_direct_message_is_in_three(self) -> None:
        """The conversation, what one sent, what the other received; to oneself in two."""
        self.assertEqual(runs_of(entry("b", to("a"))), ("d/a|b", "s/b", "r/a"))
        self.assertEqual(runs_of(entry("a", to("a"))), ("d/a|a", "s/a"))

    def test_others_are_in_that_of_their_conversation(self) -> None:
        """What happened in a group besides messages stands apart."""
        self.assertEqual(runs_of(entry("a", group("devs"))), ("g/devs",))
        self.assertEqual(runs_of(entry("a", topic("a/b"))), ("t/a/b",))
        for kind in ("joined", "left", "role"):
            self.assertEqual(runs_of(entry("a", group("devs"), kind)), ("e/devs",))

    def test_the_first_is_the_one_that_is_asked_for(self) -> None:
        """By either side of a conversation."""

        @settings(deadline=None, database=None, max_examples=100)
        @given(sender=st.sampled_from(NAMES), address=st.sampled_from(ADDRESSES))
        def hold(sender: str, address: Address) -> None:
            runs = runs_of(entry(sender, address))
            self.assertEqual(runs[0], messages_of(sender, address))
            if address.kind == "to":
                self.assertEqual(runs[0], messages_of(address.name, to(sender)))
                self.assertIn(sent_by(sender), runs)
                self.assertIs(received_by(address.name) in runs, address.name != sender)

        hold()


class TheNamesOfRuns(SynchronousTestCase):
    """Each is one run's."""

    def test_two_conversations_never_have_the_same(self) -> None:
        """Whoever's they are, of whatever kind, by whatever names."""
        talks = [(user, address) for user in NAMES for address in ADDRESSES]
        for (user, address), (other, another) in itertools.combinations(talks, 2):
            same = conversation(user, address) == conversation(other, another)
            runs = messages_of(user, address), messages_of(other, another)
            self.assertIs(runs[0] == runs[1], same)

    def test_those_of_one_name_are_apart(self) -> None:
        """Of a user, a group and a topic that are called alike."""
        names = [
            messages_of("a", to("a")),
            messages_of("a", group("a")),
            messages_of("a", topic("a")),
            events_of("a"),
            sent_by("a"),
            received_by("a"),
        ]
        self.assertEqual(len(set(names)), len(names))
