"""How far users have read."""

from __future__ import annotations

from typing import Any

from chatsvc.messages.entries import Address
from chatsvc.messages.errors import Code, Refused
from tests.store_suite.driver import StoreCase, group, to, topic


class ReadMarks(StoreCase):
    """`mark_read`."""

    def mark(self, user: str, address: Address, seq: int) -> set[str]:
        """Move a mark; to whom it is news."""
        told: frozenset[str] = self.result(self.store.mark_read(user, address, seq))
        return set(told)

    def refuse_mark(self, code: Code, *mark: Any) -> None:
        """Check that a mark is refused."""
        with self.assertRaises(Refused) as caught:
            self.mark(*mark)
        self.assertEqual(caught.exception.code, code)

    def test_it_is_news_to_both_sides(self) -> None:
        """To the reader too, who may have other sessions; of a topic to the reader alone."""
        seq = self.send("alice", to("bob"))
        self.assertEqual(self.mark("bob", to("alice"), seq), {"alice", "bob"})
        self.assertEqual(self.mark("alice", to("bob"), seq), {"alice", "bob"})
        seq = self.send("alice", topic("a"))
        self.assertEqual(self.mark("bob", topic("a"), seq), {"bob"})

    def test_a_mark_only_moves_forward(self) -> None:
        """Again, or behind, it is news to nobody, and no error; another one's is another."""
        first, second, third = (self.send("alice", to("bob")) for _ in range(3))
        self.assertTrue(self.mark("bob", to("alice"), second))
        for seq in (second, first, 0):
            self.assertEqual(self.mark("bob", to("alice"), seq), set())
        self.assertTrue(self.mark("bob", to("alice"), third))
        self.assertTrue(self.mark("alice", to("bob"), first))

    def test_each_conversation_has_its_own(self) -> None:
        """As has each kind of address of the same name."""
        self.join("bob", "alice")
        for address in (to("bob"), group("bob"), topic("bob")):
            self.send("alice", address)
        head = self.store.head
        for address in (to("bob"), group("bob"), topic("bob")):
            self.assertTrue(self.mark("alice", address, head))
            self.assertFalse(self.mark("alice", address, head))

    def test_it_is_news_to_a_group_of_fifty(self) -> None:
        """In a larger one to nobody else: reading must not cost the square of a crowd."""
        names = [f"u{number}" for number in range(50)]
        self.join("devs", *names)
        seq = self.send("u0", group("devs"))
        self.assertEqual(self.mark("u1", group("devs"), seq), set(names))
        self.join("devs", "one-more")
        seq = self.send("u0", group("devs"))
        self.assertEqual(self.mark("u1", group("devs"), seq), {"u1"})

    def test_what_cannot_be_read_cannot_be_marked(self) -> None:
        """A group of others, what is not stored yet, a conversation in which nothing was said."""
        self.join("devs", "alice")
        seq = self.send("alice", group("devs"))
        self.refuse_mark(Code.NOT_MEMBER, "bob", group("devs"), seq)
        self.refuse_mark(Code.BAD_REQUEST, "alice", group("devs"), seq + 1)
        self.refuse_mark(Code.NOT_FOUND, "alice", to("bob"), seq)
        self.refuse_mark(Code.NOT_FOUND, "alice", topic("devs"), seq)

    def test_it_moves_no_position(self) -> None:
        """Where the reader begins is another matter."""
        seq = self.send("alice", to("bob"))
        self.mark("bob", to("alice"), seq)
        self.assertEqual(self.start_for("bob").after, 0)
        self.assertEqual(len(self.feed("bob")), 1)
