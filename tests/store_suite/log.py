"""The log: what an entry holds, the one order of announcements and answers, and keys."""

from __future__ import annotations

from typing import Any, Literal

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, Receipt
from tests.fakes import appended
from tests.store_suite.driver import StoreCase, group, seqs, to, topic


class TheLog(StoreCase):
    """`append`, `head` and what is announced."""

    def test_seq_begins_at_one_and_increases(self) -> None:
        """An entry's position is an integer from 1, strictly increasing over all conversations."""
        places = [
            self.send("alice", to("bob")),
            self.send("alice", topic("a/b")),
            self.join("devs", "alice"),
            self.send("alice", group("devs")),
            self.leave("devs", "alice"),
        ]
        self.assertEqual(places[0], 1)
        self.assertEqual(places, sorted(set(places)))
        self.assertEqual(seqs(self.announced), places)

    def test_head_is_the_last_announced(self) -> None:
        """0 before the first entry, then that of the entry that is being or was announced last."""
        heads: list[tuple[int, int]] = []
        self.open(hear=lambda entry: heads.append((entry.seq, self.store.head)))
        self.assertEqual(self.store.head, 0)
        first, second = self.send("alice", to("bob")), self.send("alice", to("bob"))
        self.assertEqual(heads, [(first, first), (second, second)])
        self.assertEqual(self.store.head, second)

    def test_the_log_has_a_name(self) -> None:
        """`epoch` is a string that does not change as the log grows; `name` is for people."""
        epoch = self.store.epoch
        self.assertTrue(epoch)
        self.send("alice", to("bob"))
        self.assertEqual(self.store.epoch, epoch)
        self.assertTrue(self.store.name)

    def test_a_message_is_announced_as_it_was_appended(self) -> None:
        """All that the command said stands in the entry, with the clock in milliseconds."""
        first = self.send("alice", to("bob"))
        self.clock.advance(1.5)
        receipt = self.append(
            "send",
            "alice",
            to("bob"),
            msg="hé ☃ \u0000",
            data=b'{"a":[1,2.50]}',
            reply_to=first,
            key="k",
            digest=b"d",
            origin="s7",
        )
        expected = Entry(
            seq=receipt.seq,
            ts=1_000_001_500,
            kind="message",
            sender="alice",
            address=to("bob"),
            origin="s7",
            msg="hé ☃ \u0000",
            data=b'{"a":[1,2.50]}',
            key="k",
            reply_to=first,
        )
        self.assertEqual(receipt, Receipt(expected.seq, expected.ts))
        self.assertEqual(self.announced[-1], expected)
        self.assertEqual(self.feed("bob", first), [expected])
        self.assertEqual(self.history("bob", to("alice")).entries[-1], expected)

    def test_text_and_data_may_be_missing_or_empty(self) -> None:
        """A message without text is not one with empty text; data is passed on untouched."""
        self.send("alice", to("bob"), None, data=b"null")
        self.send("alice", to("bob"), "")
        found = [(entry.msg, entry.data) for entry in self.feed("bob")]
        self.assertEqual(found, [(None, b"null"), ("", None)])

    def test_a_reply_is_to_a_message_of_the_same_conversation(self) -> None:
        """Both sides may reply; what is in another conversation, or nowhere, is `not_found`."""
        talk = self.send("alice", to("bob"))
        elsewhere = self.send("alice", to("carol"))
        self.assertGreater(self.send("bob", to("alice"), reply_to=talk), elsewhere)
        for wrong in (elsewhere, self.store.head + 1, 0):
            self.refuse(Code.NOT_FOUND, "send", "bob", to("alice"), msg="hi", reply_to=wrong)
        on_topic = self.send("alice", topic("a"))
        self.send("bob", topic("a"), reply_to=on_topic)
        self.refuse(Code.NOT_FOUND, "send", "bob", topic("a/b"), msg="hi", reply_to=on_topic)


class OneOrder(StoreCase):
    """Announcements and answers come in the order of the log."""

    told: list[tuple[str, int]]

    def listen(self) -> None:
        """Open a store, and keep what it announces and what fires in one list."""
        self.told = []
        self.open(hear=lambda entry: self.told.append(("announced", entry.seq)))

    def begin(
        self, op: Literal["send", "join", "leave", "create"], user: str, address: Address
    ) -> Any:
        """Append without waiting."""
        fired = appended(self.store.append, Append(op=op, user=user, address=address, msg="hi"))
        return fired.addCallback(self._fired)

    def _fired(self, receipt: Receipt) -> Receipt:
        self.told.append(("fired", receipt.seq))
        return receipt

    def test_each_answer_follows_its_announcement(self) -> None:
        """When `append` fires with n, all up to n has been announced, and nothing above it."""
        self.listen()
        pending = [self.begin("send", f"u{number % 3}", to("bob")) for number in range(20)]
        places = [self.result(fired).seq for fired in pending]
        self.assertEqual(places, sorted(set(places)))
        expected = [(what, seq) for seq in places for what in ("announced", "fired")]
        self.assertEqual(self.told, expected)

    def test_a_leaving_owner_is_answered_after_all_that_the_leaving_brought(self) -> None:
        """Where one append makes two entries, it fires after both, and before what follows."""
        self.listen()
        self.join("devs", "alice", "bob")
        self.told.clear()
        left = self.result(self.begin("leave", "alice", group("devs"))).seq
        end = self.send("bob", group("devs"))
        role = self.announced_as("role")[0].seq
        self.assertEqual(
            self.told,
            [("announced", left), ("announced", role), ("fired", left), ("announced", end)],
        )

    def test_a_subscription_fires_in_the_same_order(self) -> None:
        """When `subscribe` fires with n, all up to n has been announced, and nothing above it."""
        self.listen()
        before = self.begin("send", "alice", topic("a"))
        kept = self.store.subscribe("bob", "a")
        kept.addCallback(lambda seq: self.told.append(("kept", seq)))
        after = self.begin("send", "alice", topic("a"))
        ended = self.store.unsubscribe("bob", "a")
        ended.addCallback(lambda _: self.told.append(("ended", self.store.head)))
        last = self.begin("send", "alice", topic("a"))
        one, two, three = (self.result(fired).seq for fired in (before, after, last))
        self.assertEqual(
            self.told,
            [
                ("announced", one),
                ("fired", one),
                ("kept", one),
                ("announced", two),
                ("fired", two),
                ("ended", two),
                ("announced", three),
                ("fired", three),
            ],
        )
        self.assertEqual(seqs(self.feed("bob")), [two])

    def test_a_refusal_does_not_hold_up_the_others(self) -> None:
        """What was appended beside a refused command is stored as if that had not been."""
        self.listen()
        one = self.begin("send", "alice", to("bob"))
        wrong = self.begin("send", "alice", group("devs"))
        two = self.begin("send", "alice", to("bob"))
        places = [self.result(one).seq]
        with self.assertRaises(Refused):
            self.result(wrong)
        places.append(self.result(two).seq)
        self.assertEqual(seqs(self.announced), places)

    def test_stopping_finishes_what_was_accepted(self) -> None:
        """What was appended before `stop` is announced and answered."""
        self.listen()
        pending = [self.begin("send", "alice", to("bob")) for _ in range(5)]
        self.close()
        places = [self.result(fired).seq for fired in pending]
        self.assertEqual(seqs(self.announced), places)


class Keys(StoreCase):
    """`(user, key)` names a storing command."""

    def test_a_retry_gets_the_first_receipt(self) -> None:
        """The same key with the same content stores nothing, and says `dup`."""
        first = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.send("alice", to("bob"))
        self.clock.advance(5)
        again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.assertEqual(again, Receipt(first.seq, first.ts, dup=True))
        self.assertFalse(first.dup)
        self.assertEqual(len(self.announced), 2)

    def test_a_retry_while_the_first_is_under_way_stores_once(self) -> None:
        """Two of the same key at once are one entry."""
        append = Append(op="send", user="alice", address=to("bob"), msg="hi", key="k", digest=b"1")
        pending = [appended(self.store.append, append) for _ in range(3)]
        receipts = [self.result(fired) for fired in pending]
        self.assertEqual([receipt.dup for receipt in receipts], [False, True, True])
        self.assertEqual({receipt.seq for receipt in receipts}, {1})
        self.assertEqual(seqs(self.announced), [1])

    def test_other_content_is_a_conflict(self) -> None:
        """The same key with another digest is refused, whatever else would be."""
        self.send("alice", to("bob"), key="k", digest=b"1")
        for address in (to("bob"), group("unknown")):
            self.refuse(Code.KEY_CONFLICT, "send", "alice", address, msg="ho", key="k", digest=b"2")

    def test_a_key_is_its_users(self) -> None:
        """Another user's command with the same key is another command."""
        first = self.send("alice", to("bob"), key="k", digest=b"1")
        self.assertGreater(self.send("bob", to("alice"), key="k", digest=b"2"), first)

    def test_commands_without_a_key_are_never_the_same(self) -> None:
        """Without a key each is stored."""
        self.assertLess(self.send("alice", to("bob")), self.send("alice", to("bob")))

    def test_a_key_comes_before_membership(self) -> None:
        """A retry is answered as the first time, though the user is no longer a member."""
        self.join("devs", "bob", "alice")
        first = self.send("alice", group("devs"), key="k", digest=b"1")
        self.leave("devs", "alice")
        again = self.append("send", "alice", group("devs"), msg="hi", key="k", digest=b"1")
        self.assertEqual((again.seq, again.dup), (first, True))
        self.refuse(Code.NOT_MEMBER, "send", "alice", group("devs"), msg="hi", key="new")

    def test_a_key_comes_before_the_quota(self) -> None:
        """A retry is answered as the first time, though too much waits for the receiver now."""
        self.open(quota=1)
        self.admit("bob")
        first = self.send("alice", to("bob"), key="k", digest=b"1")
        self.refuse(Code.QUOTA_EXCEEDED, "send", "alice", to("bob"), msg="hi", key="new")
        again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.assertEqual((again.seq, again.dup), (first, True))

    def test_group_commands_have_keys_too(self) -> None:
        """A retried `join`, `create` or `leave` gets its first receipt, and changes nothing."""
        first = self.append("join", "alice", group("devs"), key="j", digest=b"1")
        left = self.append("leave", "alice", group("devs"), key="l", digest=b"2")
        again = self.append("join", "alice", group("devs"), key="j", digest=b"1")
        self.assertEqual((again.seq, again.dup), (first.seq, True))
        made = self.append("create", "alice", group("devs"), key="c", digest=b"3")
        again = self.append("leave", "alice", group("devs"), key="l", digest=b"2")
        self.assertEqual((again.seq, again.dup), (left.seq, True))
        again = self.append("create", "alice", group("devs"), key="c", digest=b"3")
        self.assertEqual((again.seq, again.dup), (made.seq, True))
        self.assertEqual(self.roles("alice", "devs"), {"alice": "owner"})

    def test_a_refused_command_does_not_bind_its_key(self) -> None:
        """After `not_member` the same key may bear other content."""
        self.refuse(Code.NOT_MEMBER, "send", "alice", group("devs"), msg="hi", key="k", digest=b"1")
        receipt = self.append("send", "alice", to("bob"), msg="ho", key="k", digest=b"2")
        self.assertFalse(receipt.dup)

    def test_a_repeated_join_does_not_bind_its_key(self) -> None:
        """Only a commit binds a key, and what changes nothing commits nothing."""
        first = self.join("devs", "alice")
        again = self.append("join", "alice", group("devs"), key="k", digest=b"1")
        self.assertEqual(again.seq, first)
        receipt = self.append("send", "alice", to("bob"), msg="ho", key="k", digest=b"2")
        self.assertFalse(receipt.dup)

    def test_a_key_outlives_its_entry(self) -> None:
        """A retry is safe for ever, also when what it stored has been expired."""
        self.open(retention=10)
        first = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.let_pass(20)
        self.assertEqual(self.feed("bob"), [])
        again = self.append("send", "alice", to("bob"), msg="hi", key="k", digest=b"1")
        self.assertEqual(again, Receipt(first.seq, first.ts, dup=True))
