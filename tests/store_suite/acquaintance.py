"""Who is acquainted with whom."""

from __future__ import annotations

from tests.store_suite.driver import StoreCase, group, to, topic


class Acquaintance(StoreCase):
    """`acquainted`."""

    def acquainted(self, user: str, other: str) -> bool:
        """Whether two users are acquainted; it is the same from either side."""
        there = self.result(self.store.acquainted(user, other))
        back = self.result(self.store.acquainted(other, user))
        self.assertEqual(there, back)
        return there

    def test_a_direct_message_makes_acquainted(self) -> None:
        """Whoever wrote it, and only the two."""
        self.assertFalse(self.acquainted("alice", "bob"))
        self.send("alice", to("bob"))
        self.assertTrue(self.acquainted("alice", "bob"))
        self.assertFalse(self.acquainted("alice", "carol"))
        self.assertFalse(self.acquainted("bob", "carol"))

    def test_a_group_that_both_are_in_makes_acquainted(self) -> None:
        """For as long as both are; having written in it is not enough."""
        self.join("devs", "alice")
        self.send("alice", group("devs"))
        self.assertFalse(self.acquainted("alice", "bob"))
        self.join("devs", "bob")
        self.assertTrue(self.acquainted("alice", "bob"))
        self.leave("devs", "alice")
        self.assertFalse(self.acquainted("alice", "bob"))

    def test_a_topic_does_not(self) -> None:
        """Anybody may hear it."""
        self.send("alice", topic("news"))
        self.result(self.store.subscribe("bob", "news"))
        self.assertFalse(self.acquainted("alice", "bob"))

    def test_who_is_not_known_is_acquainted_with_nobody(self) -> None:
        """And names that are part of each other are not taken for each other."""
        self.send("a", to("b-c"))
        for user, other in (("a", "b"), ("a", "c"), ("b", "c"), ("zed", "zoe")):
            self.assertFalse(self.acquainted(user, other))
