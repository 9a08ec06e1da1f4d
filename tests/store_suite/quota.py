"""How much may wait: the quota of a receiver, and messages for names never seen."""

from __future__ import annotations

from chatsvc.messages.errors import Code
from chatsvc.store import Loss, Start
from tests.fakes import DAY
from tests.store_suite.driver import StoreCase, group, seqs, to, topic


class Quota(StoreCase):
    """At most so many messages wait for a reader; here three."""

    def narrow(self, retention: float = DAY) -> None:
        """Open a store with a small quota, and a receiver who has been seen."""
        self.open(quota=3, retention=retention)
        self.admit("bob")

    def fill(self) -> list[int]:
        """Have as many direct messages wait for bob as there may."""
        return [self.send(sender, to("bob")) for sender in ("alice", "carol", "alice")]

    def test_a_direct_message_beyond_it_is_refused(self) -> None:
        """The sender knows, whoever sent what waits; nothing is stored, no key bound."""
        self.narrow()
        places = self.fill()
        for sender in ("alice", "dave"):
            self.refuse(
                Code.QUOTA_EXCEEDED, "send", sender, to("bob"), msg="hi", key="k", digest=b"1"
            )
        self.assertEqual(seqs(self.feed("bob")), places)
        self.proven("bob", places[0])
        self.assertFalse(
            self.append("send", "alice", to("bob"), msg="ho", key="k", digest=b"2").dup
        )
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("bob"), msg="hi")

    def test_nothing_waits_for_who_is_present(self) -> None:
        """While the receiver is shown the log, messages are accepted."""
        self.narrow()
        places = self.fill()
        places += [self.send("alice", to("bob"), present=True) for _ in range(3)]
        self.assertEqual(seqs(self.feed("bob")), places)

    def test_only_what_others_sent_to_it_waits(self) -> None:
        """Not its own messages, nor those to itself, nor groups and topics."""
        self.narrow()
        self.join("devs", "bob", "alice")
        self.subscribe("bob", "a")
        for _ in range(4):
            self.send("bob", to("alice"), present=True)
            self.send("bob", to("bob"))
            self.send("alice", group("devs"))
            self.send("alice", topic("a"))
        self.fill()
        self.assertGreater(self.send("bob", to("bob")), 0)

    def test_groups_and_topics_are_always_accepted(self) -> None:
        """Also where one of the readers is full."""
        self.narrow()
        self.join("devs", "bob", "alice")
        self.subscribe("bob", "a")
        self.fill()
        for _ in range(5):
            self.send("alice", group("devs"))
            self.send("alice", topic("a"))
        self.assertEqual(len(self.announced), 2 + 3 + 10)

    def test_what_expired_waits_no_more(self) -> None:
        """There is room again after the retention."""
        self.narrow(retention=10)
        self.fill()
        self.let_pass(20)
        self.assertEqual(seqs(self.feed("bob", self.store.head - 3)), [])
        self.fill()

    def test_it_holds_for_names_never_seen_too(self) -> None:
        """A direct message beyond the receiver's quota is refused, whoever the receiver is."""
        self.narrow()
        for _ in range(3):
            self.send("alice", to("zed"))
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("zed"), msg="hi")
        self.refuse(Code.QUOTA_EXCEEDED, "send", "bob", to("zed"), msg="hi")

    def test_the_oldest_of_groups_and_topics_are_cut_off(self) -> None:
        """The newest are given, and a loss is told for those before; direct ones all come."""
        self.narrow()
        self.join("devs", "bob", "alice")
        begin = self.subscribe("bob", "a")
        self.proven("bob", begin)
        shared, direct = [], []
        for name in ("x", "y", "z"):
            shared.append(self.send("alice", group("devs"), name))
            direct.append(self.send("alice", to("bob"), name))
            shared.append(self.send("alice", topic("a"), name))
        start = self.start_for("bob")
        self.assertEqual(start.after, begin)
        self.assertIn(start.shared_after, range(shared[2], shared[3]))
        self.check_losses([start.loss], Loss(begin, start.shared_after, "quota"))
        found = seqs(self.feed("bob", start.after, start.shared_after))
        self.assertEqual(found, sorted([*direct, *shared[3:]]))

    def test_up_to_the_quota_nothing_is_cut_off(self) -> None:
        """Own messages, and coming and going, do not count as waiting."""
        self.narrow()
        self.join("devs", "bob", "alice")
        begin = self.store.head
        self.proven("bob", begin)
        for number in range(3):
            self.send("alice", group("devs"))
            self.send("bob", group("devs"))
            self.join("devs", f"u{number}")
            self.leave("devs", f"u{number}")
        self.assertEqual(self.start_for("bob"), Start(begin, begin))

    def test_only_what_is_heard_is_counted(self) -> None:
        """Other topics, and groups one is not in, cut off nothing."""
        self.narrow()
        self.subscribe("bob", "a/+")
        self.join("devs", "alice")
        for _ in range(5):
            self.send("alice", topic("a"))
            self.send("alice", group("devs"))
        self.join("devs", "bob")
        for name in ("a/b", "a/c", "a/b"):
            self.send("alice", topic(name))
        self.assertEqual(self.start_for("bob"), Start(0, 0))

    def test_retention_and_quota_are_told_apart(self) -> None:
        """The first by the feed, the second by the start."""
        self.narrow(retention=100)
        self.join("devs", "bob", "alice")
        gone = self.send("alice", group("devs"))
        self.let_pass(90)
        places = [self.send("alice", group("devs")) for _ in range(5)]
        self.let_pass(20)
        start = self.start_for("bob")
        self.check_losses([start.loss], Loss(0, start.shared_after, "quota"))
        self.check_losses([self.page("bob").loss], Loss(0, gone, "retention"))
        self.assertEqual(seqs(self.feed("bob", start.after, start.shared_after)), places[2:])


class NamesNeverSeen(StoreCase):
    """At most 1,000 messages of one sender wait for names that never connected."""

    def send_to_unseen(self) -> None:
        """Open a store in which as many of alice's wait, for four names."""
        self.open(retention=100)
        for number in range(1000):
            self.send("alice", to(f"new{number % 4}"))

    def test_a_thousand_and_first_is_refused(self) -> None:
        """For any such name; others may send to them, and alice to names that were seen."""
        self.send_to_unseen()
        for name in ("new0", "unheard-of"):
            self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to(name), msg="hi")
        self.send("bob", to("new0"))
        self.admit("carol")
        self.send("alice", to("carol"))
        self.send("alice", to("alice"))

    def test_messages_are_freed_when_the_name_connects(self) -> None:
        """As many as waited for it; to the name itself there is no such bound any more."""
        self.send_to_unseen()
        self.admit("new1")
        self.assertEqual(len(self.feed("new1")), 250)
        self.send("alice", to("new1"))
        for number in range(250):
            self.send("alice", to(f"newer{number}"))
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("newer0"), msg="hi")
        self.send("alice", to("new1"))

    def test_connecting_again_frees_nothing_more(self) -> None:
        """Each message is counted once."""
        self.send_to_unseen()
        for _ in range(3):
            self.admit("new1")
        for _ in range(250):
            self.send("alice", to("newer"))
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("newer"), msg="hi")

    def test_expired_ones_do_not_count(self) -> None:
        """After the retention there is room again, and connecting frees nothing twice."""
        self.send_to_unseen()
        self.let_pass(110)
        self.admit("new0")
        for number in range(1000):
            self.send("alice", to(f"newer{number}"))
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("new2"), msg="hi")
