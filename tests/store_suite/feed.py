"""The feed: what a user hears of conversations and topics, live and on resume, in pages."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store_suite.driver import StoreCase, group, seqs, to, topic


class TheFeed(StoreCase):
    """`feed`, as far as it is about people and groups."""

    def test_both_sides_of_a_direct_conversation_hear_it(self) -> None:
        """One's own messages included; nobody else."""
        places = [self.send("alice", to("bob")), self.send("bob", to("alice"))]
        self.assertEqual(seqs(self.feed("alice")), places)
        self.assertEqual(seqs(self.feed("bob")), places)
        self.assertEqual(self.feed("carol"), [])

    def test_a_message_to_oneself_comes_once(self) -> None:
        """Sender and receiver are one reader."""
        sent = self.send("alice", to("alice"))
        self.assertEqual(seqs(self.feed("alice")), [sent])

    def test_it_is_what_was_announced(self) -> None:
        """An entry is the same on resume as it was live."""
        self.join("devs", "alice", "bob")
        self.send("alice", group("devs"), origin="s1")
        self.send("alice", to("bob"), data=b"[1]", key="k", digest=b"1", origin="s2")
        self.leave("devs", "alice")
        self.assertEqual([*self.feed("bob")], self.announced[1:])

    def test_only_what_is_above_is_given(self) -> None:
        """`after` is exclusive, and at the head there is nothing more."""
        first, second = self.send("alice", to("bob")), self.send("alice", to("bob"))
        self.assertEqual(seqs(self.feed("bob", first)), [second])
        page = self.page("bob", second)
        self.assertEqual((list(page.entries), page.upto, page.complete), ([], second, True))
        self.assertIsNone(page.loss)

    def test_an_empty_log_is_complete(self) -> None:
        """Before the first entry a page is whole up to 0."""
        page = self.page("bob")
        self.assertEqual((list(page.entries), page.upto, page.complete), ([], 0, True))

    def test_a_page_is_whole_up_to_where_it_says(self) -> None:
        """Full pages are not complete while there is more, and skip nothing."""
        places = [self.send("alice", to("bob")) for _ in range(3)]
        self.send("alice", to("carol"))
        page = self.page("bob", limit=2)
        self.assertEqual((seqs(page.entries), page.complete), (places[:2], False))
        self.assertIn(page.upto, range(places[1], places[2]))
        page = self.page("bob", page.upto, limit=2)
        self.assertEqual(seqs(page.entries), places[2:])

    def test_a_group_is_heard_from_joining_to_leaving(self) -> None:
        """From one's own `joined` up to and including one's own `left`."""
        self.join("devs", "alice")
        self.send("alice", group("devs"))
        heard = [self.join("devs", "bob"), self.send("alice", group("devs"))]
        heard.append(self.leave("devs", "bob"))
        self.send("alice", group("devs"))
        self.assertEqual(seqs(self.feed("bob")), heard)

    def test_rejoining_adds_a_stretch(self) -> None:
        """Both stretches are heard, and what was between them is not."""
        self.join("devs", "alice")
        heard: list[int] = []
        for _ in range(3):
            self.send("alice", group("devs"))
            heard += [self.join("devs", "bob"), self.send("alice", group("devs"))]
            heard.append(self.leave("devs", "bob"))
        self.send("alice", group("devs"))
        heard.append(self.join("devs", "bob"))
        heard.append(self.send("alice", group("devs")))
        self.assertEqual(seqs(self.feed("bob")), heard)
        for place in range(len(heard)):
            self.assertEqual(seqs(self.feed("bob", heard[place])), heard[place + 1 :])

    def test_groups_and_topics_may_begin_later_than_people(self) -> None:
        """Above `after`, but of groups and topics only what is above `shared_after`."""
        self.join("devs", "bob")
        self.subscribe("bob", "a")
        direct = [self.send("alice", to("bob"))]
        self.send("bob", group("devs"))
        cut = self.send("alice", topic("a"))
        direct.append(self.send("alice", to("bob")))
        shared = [self.send("bob", group("devs")), self.send("alice", topic("a"))]
        self.assertEqual(seqs(self.feed("bob", 0, cut)), [*direct, *shared])
        self.assertEqual(seqs(self.feed("bob", direct[0], cut)), [direct[1], *shared])
        self.assertEqual(seqs(self.feed("bob", 0, cut, {"a": 0})), [*direct, *shared])
        self.assertEqual(seqs(self.feed("bob", 0, shared[-1])), direct)


class SubscribingToTopics(StoreCase):
    """Durable subscriptions and interests, in the feed."""

    def test_topics_are_heard_by_subscription_only(self) -> None:
        """Neither by publishing nor by being there."""
        self.admit("bob")
        self.send("alice", topic("a"))
        self.assertEqual((self.feed("alice"), self.feed("bob")), ([], []))

    def test_a_durable_subscription_holds_from_its_seq_to_its_end(self) -> None:
        """What matches above the `seq` it fired with, until it is ended; own messages too."""
        self.send("alice", topic("a/b"))
        self.assertEqual(self.subscribe("bob", "a/+"), self.store.head)
        heard = [self.send("alice", topic("a/b")), self.send("bob", topic("a/c"))]
        self.send("alice", topic("a"))
        self.send("alice", topic("a/b/c"))
        self.unsubscribe("bob", "a/+")
        self.send("alice", topic("a/b"))
        self.assertEqual(seqs(self.feed("bob")), heard)
        self.assertEqual(self.feed("alice"), [])

    def test_subscribing_again_changes_nothing(self) -> None:
        """What was heard already is heard still."""
        self.subscribe("bob", "a")
        first = self.send("alice", topic("a"))
        self.subscribe("bob", "a")
        second = self.send("alice", topic("a"))
        self.assertEqual(seqs(self.feed("bob")), [first, second])
        self.unsubscribe("bob", "a")
        self.send("alice", topic("a"))
        self.assertEqual(seqs(self.feed("bob")), [first, second])

    def test_a_subscription_may_be_taken_up_again(self) -> None:
        """Each stretch is heard, and what was between them is not."""
        heard = []
        for _ in range(3):
            self.subscribe("bob", "a/#")
            heard += [self.send("alice", topic("a")), self.send("alice", topic("a/b/c"))]
            self.unsubscribe("bob", "a/#")
            self.send("alice", topic("a"))
        self.assertEqual(seqs(self.feed("bob")), heard)

    def test_ending_what_there_is_not_does_nothing(self) -> None:
        """An unknown filter is no error, and other filters stay."""
        self.subscribe("bob", "a")
        self.unsubscribe("bob", "b")
        self.unsubscribe("zed", "a")
        sent = self.send("alice", topic("a"))
        self.assertEqual(seqs(self.feed("bob")), [sent])

    def test_an_interest_is_heard_above_its_seq(self) -> None:
        """For the asking connection only, and while it asks."""
        first, second = self.send("alice", topic("a")), self.send("alice", topic("a"))
        self.assertEqual(seqs(self.feed("bob", interests={"a": first})), [second])
        self.assertEqual(seqs(self.feed("bob", interests={"a": 0})), [first, second])
        self.assertEqual(seqs(self.feed("bob", first, interests={"a": 0})), [second])
        self.assertEqual(self.feed("bob"), [])

    def test_several_matching_filters_deliver_once(self) -> None:
        """Durable ones, ended ones and interests alike."""
        for topic_filter in ("#", "a/#", "a/b"):
            self.subscribe("bob", topic_filter)
        first = self.send("alice", topic("a/b"))
        self.unsubscribe("bob", "a/#")
        self.unsubscribe("bob", "#")
        second = self.send("alice", topic("a/b"))
        heard = self.feed("bob", interests={"a/+": 0, "a/b": 0, "+/b": 0})
        self.assertEqual(seqs(heard), [first, second])

    def test_each_filter_counts_from_its_own_seq(self) -> None:
        """A message is heard where one of the filters that match it holds at its place."""
        places = [self.send("alice", topic(name)) for name in ("a", "b", "a", "b", "a")]
        heard = self.feed("bob", interests={"a": places[2], "+": places[3], "b": places[0]})
        self.assertEqual(seqs(heard), [places[1], places[3], places[4]])

    def test_topics_have_nothing_to_do_with_groups(self) -> None:
        """A filter does not hear a group or a user of that name."""
        self.subscribe("bob", "#")
        self.join("a", "alice")
        self.send("alice", group("a"))
        self.send("alice", to("a"))
        self.assertEqual(self.feed("bob"), [])

    def test_what_does_not_match_is_passed_in_pages(self) -> None:
        """Among thousands of others the few that match are found, page by page, at their places."""
        self.subscribe("bob", "+/b")
        heard = []
        for number in range(5000):
            seq = self.send("alice", topic("a/b" if number % 1999 == 0 else f"a/c{number % 7}"))
            heard += [seq] if number % 1999 == 0 else []
            if number == 2500:
                heard.append(self.send("alice", to("bob")))
        for limit in (1, 2, 200):
            self.assertEqual(seqs(self.feed("bob", limits=[limit])), heard)


class Paging(StoreCase):
    """The same whole, however it is cut."""

    def busy(self) -> list[int]:
        """Let all kinds of things happen; what bob hears of it with an interest in `n/#`."""
        heard = []
        self.subscribe("bob", "a/#")
        self.join("devs", "alice")
        for turn in range(4):
            heard.append(self.join("devs", "bob"))
            heard.append(self.send("alice", group("devs")))
            heard.append(self.send("carol", topic("a/x")))
            self.send("carol", topic("b"))
            heard.append(self.send("bob", to("alice")))
            if turn % 2:
                heard.append(self.leave("devs", "bob"))
            self.send("alice", to("carol"))
            heard.append(self.send("carol", topic("n/1")))
        self.unsubscribe("bob", "a/#")
        self.send("carol", topic("a/x"))
        return sorted(heard)

    def test_any_limits_and_any_start_give_the_same(self) -> None:
        """Pages of any sizes, from any place on, join to what is heard above it."""
        heard = self.busy()

        @settings(deadline=None, database=None, max_examples=60)
        @given(
            limits=st.lists(st.integers(1, 6), min_size=1, max_size=6),
            start=st.floats(0, 1),
            cut=st.floats(0, 1),
        )
        def hold(limits: list[int], start: float, cut: float) -> None:
            after, shared_after = (int(part * self.store.head) for part in (start, cut))
            expected = [
                entry
                for entry in self.announced
                if entry.seq in heard
                and entry.seq > after
                and (entry.address.kind == "to" or entry.seq > shared_after)
            ]
            found = self.feed("bob", after, shared_after, {"n/#": 0}, limits)
            self.assertEqual(found, expected)

        hold()

    def test_matches_may_be_cut_anywhere_too(self) -> None:
        """Pages of any sizes of one topic, or of many, join to all up to `until`."""
        self.busy()
        until = self.store.head - 2

        @settings(deadline=None, database=None, max_examples=40)
        @given(
            limits=st.lists(st.integers(1, 5), min_size=1, max_size=4),
            after=st.integers(0, until),
        )
        def hold(limits: list[int], after: int) -> None:
            for topic_filter, wanted in (("a/x", ["a/x"]), ("+/#", ["a/x", "b", "n/1"])):
                expected = [
                    entry
                    for entry in self.announced
                    if entry.address.kind == "topic"
                    and entry.address.name in wanted
                    and after < entry.seq <= until
                ]
                found = self.matching(topic_filter, after, until, limits=limits)
                self.assertEqual(found, expected)

        hold()
