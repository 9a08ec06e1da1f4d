"""Reading beside the feed: history, stored messages of topics, and retained ones."""

from __future__ import annotations

from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Loss
from tests.store_suite.driver import ENOUGH, StoreCase, group, seqs, to, topic


class History(StoreCase):
    """`history`."""

    def test_both_sides_read_the_same(self) -> None:
        """A direct conversation is named by the other party, and is theirs alone."""
        places = [self.send("alice", to("bob")), self.send("bob", to("alice"))]
        self.send("alice", to("carol"))
        self.assertEqual(seqs(self.history("alice", to("bob")).entries), places)
        self.assertEqual(seqs(self.history("bob", to("alice")).entries), places)
        self.assertEqual(seqs(self.history("carol", to("bob")).entries), [])

    def test_a_conversation_with_oneself_is_one(self) -> None:
        """It holds what one sent to oneself, once."""
        place = self.send("alice", to("alice"))
        self.send("alice", to("bob"))
        self.assertEqual(seqs(self.history("alice", to("alice")).entries), [place])

    def test_members_read_the_whole_history(self) -> None:
        """What was before their joining included, though they did not hear it."""
        self.join("devs", "alice")
        place = self.send("alice", group("devs"))
        self.join("devs", "bob")
        self.assertEqual(seqs(self.history("bob", group("devs")).entries), [place])

    def test_others_may_not_read_a_group(self) -> None:
        """`not_member`, also for former members and where there is none."""
        self.join("devs", "alice", "bob")
        self.leave("devs", "bob")
        for user, name in (("bob", "devs"), ("zed", "devs"), ("alice", "unknown")):
            with self.assertRaises(Refused) as caught:
                self.history(user, group(name))
            self.assertEqual(caught.exception.code, Code.NOT_MEMBER)

    def test_a_topic_is_read_by_its_name(self) -> None:
        """Not by those below it."""
        place = self.send("alice", topic("a"))
        self.send("alice", topic("a/b"))
        self.assertEqual(seqs(self.history("bob", topic("a")).entries), [place])

    def test_an_unknown_conversation_is_empty(self) -> None:
        """There is nothing, and that is all."""
        for address in (to("zed"), topic("z")):
            for after in (None, 0):
                part = self.history("alice", address, after=after)
                self.assertEqual((list(part.entries), part.complete), ([], True))

    def test_without_after_it_is_the_newest_messages_only(self) -> None:
        """In increasing order; events are left out, and do not count."""
        self.join("devs", "alice")
        places = []
        for number in range(5):
            places.append(self.send("alice", group("devs")))
            self.join("devs", f"u{number}")
        part = self.history("alice", group("devs"), limit=3)
        self.assertEqual((seqs(part.entries), part.complete), (places[2:], False))
        part = self.history("alice", group("devs"), limit=5)
        self.assertEqual((seqs(part.entries), part.complete), (places, True))

    def test_with_after_it_is_the_first_entries_of_every_kind(self) -> None:
        """In increasing order from there on."""
        places = [self.join("devs", "alice"), self.join("devs", "bob")]
        places += [self.send("alice", group("devs")), self.leave("devs", "bob")]
        places.append(self.send("alice", group("devs")))
        part = self.history("alice", group("devs"), after=places[0], limit=3)
        self.assertEqual((seqs(part.entries), part.complete), (places[1:4], False))
        part = self.history("alice", group("devs"), after=places[0], limit=4)
        self.assertEqual((seqs(part.entries), part.complete), (places[1:], True))
        part = self.history("alice", group("devs"), after=places[-1])
        self.assertEqual((list(part.entries), part.complete), ([], True))

    def test_before_and_after_are_exclusive(self) -> None:
        """Alone and together; `complete` is about what lies between them."""
        places = [self.send("alice", to("bob")) for _ in range(6)]
        bounded = [
            ({"before": places[3]}, places[:3]),
            ({"after": places[3]}, places[4:]),
            ({"after": places[1], "before": places[4]}, places[2:4]),
            ({"before": places[0]}, []),
            ({"before": places[-1] + 100}, places),
            ({"after": places[4], "before": places[2]}, []),
        ]
        for bounds, expected in bounded:
            part = self.history("bob", to("alice"), **bounds)
            self.assertEqual((seqs(part.entries), part.complete), (expected, True))
        part = self.history("bob", to("alice"), before=places[3], limit=2)
        self.assertEqual((seqs(part.entries), part.complete), (places[1:3], False))
        part = self.history("bob", to("alice"), after=places[1], before=places[4], limit=1)
        self.assertEqual((seqs(part.entries), part.complete), (places[2:3], False))

    def test_pages_join_in_both_directions(self) -> None:
        """Backwards by `before` and forwards by `after`, each gives the whole."""
        places = [self.send("alice", to("bob")) for _ in range(7)]
        for limit in (1, 2, 3, 7, 8):
            back: list[int] = []
            forth: list[int] = []
            turns = -(-len(places) // limit)
            for turn in range(1, turns + 1):
                before = back[0] if back else None
                part = self.history("bob", to("alice"), before=before, limit=limit)
                self.assertIs(part.complete, turn == turns)
                back = seqs(part.entries) + back
                after = forth[-1] if forth else 0
                part = self.history("bob", to("alice"), after=after, limit=limit)
                self.assertIs(part.complete, turn == turns)
                forth += seqs(part.entries)
            self.assertEqual((back, forth), (places, places))


class StoredMatches(StoreCase):
    """`matches`, of all stored messages."""

    def test_it_finds_what_matches_and_no_more(self) -> None:
        """Messages of topics, not of groups or people, above `after` and up to `until`."""
        self.join("a", "alice")
        self.send("alice", group("a"))
        self.send("alice", to("a"))
        names = ["a", "a/b", "b", "a", "a/b/c", "b/b"]
        places = [self.send("alice", topic(name)) for name in names]
        for topic_filter, expected in (
            ("a", [0, 3]),
            ("a/#", [0, 1, 3, 4]),
            ("+", [0, 2, 3]),
            ("+/b", [1, 5]),
            ("#", [0, 1, 2, 3, 4, 5]),
            ("c", []),
        ):
            found = seqs(self.matching(topic_filter))
            self.assertEqual(found, [places[index] for index in expected])
        self.assertEqual(seqs(self.matching("#", places[1], places[3])), places[2:4])
        self.assertEqual(seqs(self.matching("a", places[0], places[3])), [places[3]])
        self.assertEqual(seqs(self.matching("a", places[0], places[2])), [])


class RetainedMessages(StoreCase):
    """`matches` with `retained`."""

    def test_the_last_retained_one_of_each_topic_is_given(self) -> None:
        """In the order of the log; what was not to be retained replaces nothing."""
        self.send("alice", topic("a"), retain=True)
        two = self.send("alice", topic("a/b"), retain=True)
        three = self.send("alice", topic("a"), retain=True)
        self.send("alice", topic("a"))
        self.send("alice", topic("c"))
        self.assertEqual(self.retained("a/#"), [two, three])
        self.assertEqual(self.retained("a"), [three])
        self.assertEqual(self.retained("+/b"), [two])
        self.assertEqual(self.retained("#"), [two, three])
        self.assertEqual(self.retained("c"), [])

    def test_an_empty_one_clears(self) -> None:
        """The topic has none then, and may get another; the clearing one is stored as any."""
        self.send("alice", topic("a"), retain=True)
        kept = self.send("alice", topic("b"), retain=True)
        cleared = self.send("alice", topic("a"), "", retain=True)
        self.assertEqual(self.announced[-1].seq, cleared)
        self.assertEqual(self.retained("#"), [kept])
        self.assertEqual(len(self.history("bob", topic("a")).entries), 2)
        again = self.send("alice", topic("a"), retain=True)
        self.assertEqual(self.retained("#"), [kept, again])

    def test_only_a_retained_empty_one_clears(self) -> None:
        """Neither an empty one that is not to be retained, nor one that has data."""
        first = self.send("alice", topic("a"), retain=True)
        self.send("alice", topic("a"), "")
        self.assertEqual(self.retained("a"), [first])
        second = self.send("alice", topic("a"), "", data=b"1", retain=True)
        self.assertEqual(self.retained("a"), [second])
        third = self.send("alice", topic("a"), None, data=b'""', retain=True)
        self.assertEqual(self.retained("a"), [third])

    def test_clearing_what_there_is_not_is_no_error(self) -> None:
        """It is stored, and nothing is retained."""
        self.send("alice", topic("a"), "", retain=True)
        self.assertEqual(self.retained("#"), [])

    def test_it_keeps_to_its_bounds(self) -> None:
        """Above `after` and up to `until`."""
        places = [self.send("alice", topic(f"t/{n}"), retain=True) for n in range(5)]
        found = self.matching("t/#", places[0], places[3], retained=True)
        self.assertEqual(seqs(found), places[1:4])

    def test_a_refused_message_is_not_retained(self) -> None:
        """What is not stored leaves the old one where it is."""
        first = self.send("alice", topic("a"), key="k", digest=b"1", retain=True)
        self.refuse(
            Code.KEY_CONFLICT,
            "send",
            "alice",
            topic("a"),
            msg="",
            key="k",
            digest=b"2",
            retain=True,
        )
        self.assertEqual(self.retained("a"), [first])

    def test_it_outlives_the_retention(self) -> None:
        """As in MQTT, a topic keeps its retained message until another takes its place."""
        self.open(retention=10)
        kept = self.send("alice", topic("a"), retain=True)
        self.let_pass(20)
        self.send("alice", topic("b"))
        self.assertEqual(seqs(self.history("bob", topic("a")).entries), [])
        self.assertEqual(self.retained("#"), [kept])

    def test_only_the_newest_thousand_are_given(self) -> None:
        """Of more, the oldest are left out, and said to be."""
        places = [self.send("alice", topic(f"t/{n}"), retain=True) for n in range(1000)]
        self.assertEqual(self.retained("t/+"), places)
        head = self.store.head
        page = self.result(self.store.matches("#", 0, head, ENOUGH, retained=True))
        self.assertIsNone(page.loss)
        places += [self.send("alice", topic(f"u/{n}"), retain=True) for n in range(3)]
        page = self.result(self.store.matches("#", 0, head, ENOUGH, retained=True))
        self.assertEqual((seqs(page.entries), page.loss), (places[:1000], None))
        head = self.store.head
        page = self.result(self.store.matches("#", 0, head, ENOUGH, retained=True))
        self.check_losses([page.loss], Loss(0, places[2], "quota"))
        self.assertEqual(seqs(page.entries), places[3:])
        for limit in (1, 7, 300):
            found = self.matching("#", retained=True, limits=[limit] * 3 + [600])
            self.assertEqual(seqs(found), places[3:])
