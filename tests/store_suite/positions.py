"""Where a reader begins: positions, and what it missed for good after the retention."""

from __future__ import annotations

from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Loss, Start
from chatsvc.store.rules import MAX_DEVICES
from tests.store_suite.driver import StoreCase, group, seqs, to, topic


class Positions(StoreCase):
    """`start_for` without a loss, and `save_positions`."""

    def test_a_new_user_starts_at_the_beginning(self) -> None:
        """After 0, whatever the log holds; a new device too."""
        self.send("alice", to("bob"))
        self.assertEqual(self.start_for("bob"), Start(0, 0))
        self.assertEqual(self.start_for("zed"), Start(0, 0))
        self.assertEqual(self.start_for("zed", "phone"), Start(0, 0))

    def test_a_position_only_moves_forward(self) -> None:
        """One behind what is stored changes nothing; that is no error."""
        places = [self.send("alice", to("bob")) for _ in range(3)]
        self.start_for("bob", "phone")
        for device in (None, "phone"):
            self.proven("bob", places[1], device)
            self.proven("bob", places[0], device)
            self.assertEqual(self.start_for("bob", device).after, places[1])
            self.proven("bob", places[2], device)
            self.assertEqual(self.start_for("bob", device).after, places[2])

    def test_several_positions_are_saved_at_once(self) -> None:
        """Of users and of devices, each for itself."""
        for _ in range(4):
            self.send("alice", to("bob"))
        self.start_for("bob", "phone")
        self.start_for("bob", "tablet")
        self.result(
            self.store.save_positions(
                {("bob", None): 4, ("bob", "phone"): 3, ("bob", "tablet"): 2, ("al", None): 1}
            )
        )
        self.assertEqual(self.start_for("bob").after, 4)
        self.assertEqual(self.start_for("bob", "phone").after, 3)
        self.assertEqual(self.start_for("bob", "tablet").after, 2)
        self.assertEqual(self.start_for("al").after, 1)

    def test_a_new_device_starts_at_the_users_position_and_keeps_it(self) -> None:
        """Where the user goes on, the device stays."""
        for _ in range(3):
            self.send("alice", to("bob"))
        self.proven("bob", 1)
        self.assertEqual(self.start_for("bob", "phone").after, 1)
        self.proven("bob", 3)
        self.assertEqual(self.start_for("bob", "phone").after, 1)
        self.assertEqual(self.start_for("bob", "tablet").after, 3)

    def test_devices_of_one_name_are_their_users(self) -> None:
        """Another user's `phone` is another device."""
        for _ in range(3):
            self.send("alice", to("bob"))
        self.start_for("bob", "phone")
        self.proven("bob", 2, "phone")
        self.assertEqual(self.start_for("alice", "phone").after, 0)

    def test_since_comes_before_any_position(self) -> None:
        """It is where this reader begins, backwards too, and moves nothing."""
        for _ in range(3):
            self.send("alice", to("bob"))
        self.proven("bob", 2)
        for since in (0, 1, 3):
            self.assertEqual(self.start_for("bob", None, since), Start(since, since))
            self.assertEqual(self.start_for("bob", "phone", since), Start(since, since))
        self.assertEqual(self.start_for("bob").after, 2)
        self.assertEqual(self.start_for("bob", "phone").after, 2)

    def test_a_bound_holds_where_the_position_is_above_it(self) -> None:
        """And changes nothing where it is below; a `since` is bound as well."""
        self.open()
        places = [self.send("alice", to("bob")) for _ in range(3)]
        self.start_for("bob", "phone")
        self.proven("bob", places[1])
        for device, at_most, expected in (
            (None, places[0], places[0]),
            (None, places[2], places[1]),
            ("phone", places[2], 0),
        ):
            start = self.result(self.store.start_for("bob", device, None, at_most=at_most))
            self.assertEqual(start.after, expected)

    def test_an_unused_device_is_forgotten_after_the_retention(self) -> None:
        """It is new then; one that was used meanwhile is not."""
        self.open(retention=100)
        for _ in range(3):
            self.send("alice", to("bob"))
        for device in ("unused", "begun", "saved"):
            self.start_for("bob", device)
        self.let_pass(60)
        self.start_for("bob", "begun")
        self.proven("bob", 1, "saved")
        self.let_pass(60)
        self.send("alice", to("bob"))
        last = self.send("alice", to("bob"))
        self.proven("bob", last)
        self.assertEqual(self.start_for("bob", "unused").after, last)
        self.assertEqual(self.start_for("bob", "begun").after, 0)
        self.assertEqual(self.start_for("bob", "saved").after, 1)

    def test_the_devices_of_a_user_are_bounded(self) -> None:
        """One more than the most is refused; known ones and other users' are not."""
        for number in range(MAX_DEVICES):
            self.start_for("bob", f"d{number}")
        with self.assertRaises(Refused) as caught:
            self.start_for("bob", "more")
        self.assertEqual(caught.exception.code, Code.QUOTA_EXCEEDED)
        self.assertEqual(self.start_for("bob", "d0").after, 0)
        self.assertEqual(self.start_for("alice", "more").after, 0)


class Retention(StoreCase):
    """What is older than the retention is gone, and readers who had not got there are told."""

    old: list[int]
    new: list[int]

    def age(self) -> None:
        """Open a store in which some entries are nearly too old, and others are not."""
        self.open(retention=100)
        self.admit("bob")
        self.subscribe("bob", "a")
        self.join("devs", "alice")
        self.old = [self.send("alice", to("bob")), self.send("alice", topic("a"))]
        self.old.append(self.send("alice", group("devs")))
        self.let_pass(60)
        self.new = [self.send("alice", to("bob")), self.send("alice", topic("a"))]
        self.let_pass(30)

    def pass_retention(self) -> Loss:
        """Let the old ones go; what a reader from the start is told then."""
        self.let_pass(20)
        return Loss(0, self.old[-1], "retention")

    def test_nothing_goes_before_its_time(self) -> None:
        """Up to the retention all is there, and no loss is told."""
        self.age()
        self.assertEqual(seqs(self.feed("bob")), [*self.old[:2], *self.new])
        self.assertEqual(self.start_for("bob"), Start(0, 0))
        self.assertIsNone(self.page("bob").loss)

    def test_the_old_is_gone_everywhere(self) -> None:
        """From feeds, histories and topics; what is younger stays."""
        self.age()
        self.pass_retention()
        self.assertEqual(seqs(self.feed("bob")), self.new)
        self.assertEqual(seqs(self.history("bob", to("alice")).entries), self.new[:1])
        self.assertEqual(seqs(self.history("bob", to("alice"), after=0).entries), self.new[:1])
        self.assertEqual(seqs(self.history("bob", topic("a")).entries), self.new[1:])
        self.assertEqual(seqs(self.history("alice", group("devs"), after=0).entries), [])
        self.assertEqual(seqs(self.matching("a")), self.new[1:])
        self.assertEqual(seqs(self.matching("#")), self.new[1:])

    def test_a_reader_who_was_behind_is_told(self) -> None:
        """In a page from where something is missing."""
        self.age()
        loss = self.pass_retention()
        self.check_losses([self.page("bob").loss], loss)
        self.proven("bob", self.old[0])
        partly = Loss(self.old[0], loss.until, "retention")
        self.check_losses([self.page("bob", self.old[0]).loss], partly)

    def test_a_reader_who_had_got_there_is_not_told(self) -> None:
        """Where nothing is missing, there is no loss."""
        self.age()
        loss = self.pass_retention()
        self.assertEqual(self.start_for("bob", None, loss.until), Start(loss.until, loss.until))
        self.assertIsNone(self.page("bob", loss.until).loss)

    def test_a_replay_of_topics_is_told_too(self) -> None:
        """Where `matches` begins before the oldest entry that is left."""
        self.age()
        loss = self.pass_retention()
        for topic_filter in ("a", "a/#"):
            read = self.store.matches(topic_filter, 0, self.store.head, 10, retained=False)
            self.check_losses([self.result(read).loss], loss)
            read = self.store.matches(topic_filter, loss.until, self.store.head, 10, retained=False)
            self.check_losses([self.result(read).loss])

    def test_a_new_user_lost_nothing(self) -> None:
        """What went before a name was first spoken of was never for it."""
        self.age()
        self.pass_retention()
        self.assertEqual(self.start_for("zed").loss, None)
        self.assertIsNone(self.page("zed").loss)
        first = self.send("alice", to("carol"))
        self.assertEqual(self.start_for("carol").loss, None)
        self.assertEqual(seqs(self.feed("carol")), [first])

    def test_a_new_user_is_told_of_what_its_interests_lost(self) -> None:
        """An interest reaches back to its `after`, however new the name is that has it."""
        self.age()
        loss = self.pass_retention()
        page = self.page("zed", interests={"a": 0})
        self.assertEqual(seqs(page.entries), self.new[1:])
        self.check_losses([page.loss], loss)
        self.assertIsNone(self.page("zed", interests={"a": loss.until}).loss)

    def test_a_name_is_told_of_what_it_lost_since_it_was_spoken_of(self) -> None:
        """It may not have connected; the loss begins where it was first spoken of."""
        self.age()
        spoken_of = self.store.head
        sent = self.send("alice", to("carol"))
        self.let_pass(120)
        self.check_losses([self.page("carol").loss], Loss(spoken_of, sent, "retention"))

    def test_memberships_and_subscriptions_outlive_their_entries(self) -> None:
        """Groups, roles and filters hold on when the entries that began them are gone."""
        self.age()
        self.let_pass(200)
        self.assertEqual(self.roles("alice", "devs"), {"alice": "owner"})
        sent = [self.send("alice", group("devs")), self.send("alice", topic("a"))]
        self.assertEqual(seqs(self.feed("alice")), sent[:1])
        self.assertEqual(seqs(self.feed("bob")), sent[1:])
        self.assertLess(self.join("devs", "alice"), sent[0])

    def test_seq_goes_on_when_all_is_gone(self) -> None:
        """No `seq` is used again, and the head stays."""
        self.age()
        head = self.store.head
        self.let_pass(200)
        self.assertEqual(self.store.head, head)
        self.assertGreater(self.send("alice", to("bob")), head)
