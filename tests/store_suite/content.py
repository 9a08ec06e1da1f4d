"""What messages are made of: any text, any data, and keys that are any text."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.store_suite.driver import StoreCase, to


class Content(StoreCase):
    """It is given back as it was, and told apart to the last character."""

    def test_all_content_comes_back_as_it_was(self) -> None:
        """Text to the character, data to the byte: deep, large and with numbers of any size."""
        texts = (
            "\u0000",
            "a\u0000b",
            "'\"\\",
            "\u2028\u2029",
            "\U0001f600",
            "\ud7ff\uffff",
            "é" * 99,
        )
        values = (
            b"[" * 100 + b"]" * 100,
            b'{"a" :  123456789012345678901234567890, "a":-0.10e-400}',
            b'["' + b"x" * 500_000 + b'"]',
            '"\u2028 \\u0000 \\\\"'.encode(),
        )
        for text in texts:
            self.send("alice", to("bob"), text, origin=text)
        for data in values:
            self.send("alice", to("bob"), None, data=data)
        self.assertEqual([entry.msg for entry in self.feed("bob")], [*texts, *[None] * len(values)])
        self.assertEqual(
            [entry.data for entry in self.feed("bob")], [*[None] * len(texts), *values]
        )
        self.assertEqual(self.feed("bob"), self.announced)

    def test_any_text_comes_back_as_it_was(self) -> None:
        """Whatever characters a message, its key and its data are made of."""

        @settings(deadline=None, database=None, max_examples=50)
        @given(msg=st.text(), data=st.binary(min_size=1), key=st.text(min_size=1))
        def hold(msg: str, data: bytes, key: str) -> None:
            before, user = self.store.head, f"u{self.store.head}"
            self.append("send", user, to("bob"), msg=msg, data=data, key=key, digest=data)
            self.assertEqual(self.feed("bob", before), self.announced[-1:])
            self.assertEqual((self.announced[-1].msg, self.announced[-1].data), (msg, data))
            again = self.append("send", user, to("bob"), msg="ho", key=key, digest=data)
            self.assertTrue(again.dup)

        hold()

    def test_keys_are_the_same_to_the_last_character(self) -> None:
        """Case, blanks, signs that end a text elsewhere: each makes another key."""
        keys = (
            "a",
            "A",
            "a ",
            "a\u0000",
            "a\u0000b",
            "á",
            "a\u0301",
            "1",
            "01",
            "null",
            "'",
            '"',
            "%",
        )
        places = [self.send("alice", to("bob"), key=key, digest=b"1") for key in keys]
        self.assertEqual(places, sorted(set(places)))
        again = [
            self.append("send", "alice", to("bob"), msg="hi", key=key, digest=b"1") for key in keys
        ]
        self.assertEqual(
            [(receipt.seq, receipt.dup) for receipt in again], [(p, True) for p in places]
        )
