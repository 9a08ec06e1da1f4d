"""What a client may say: each command in its frame, names, topics and filters, addresses."""

from __future__ import annotations

import json
import string
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.commands import COMMANDS, Hello, History, Send, is_name
from chatsvc.messages.decoding import decode
from chatsvc.messages.entries import Address
from chatsvc.messages.errors import Code, Refused


class Commands(SynchronousTestCase):
    """What a good frame says."""

    def test_every_example_is_a_command_of_its_own_class(self) -> None:
        """So each hint works."""
        for op, kind in COMMANDS.items():
            command = decode(kind.example.encode())
            self.assertIs(type(command), kind)
            self.assertEqual(command.op, op)

    def test_without_an_op_it_is_send(self) -> None:
        """The seed's frame works unchanged."""
        command = decode(b'{"from":"client-a","to":"client-b","msg":"Hello from A!"}')
        assert isinstance(command, Send)
        self.assertEqual(
            (command.sender, command.to, command.msg, command.id, command.key),
            ("client-a", "client-b", "Hello from A!", None, UNSET),
        )

    def test_message_stands_for_msg(self) -> None:
        """Under its other name it is the same text."""
        command = decode(b'{"to":"bob","message":"hi"}')
        assert isinstance(command, Send)
        self.assertEqual(command.msg, "hi")

    def test_unknown_fields_are_ignored(self) -> None:
        """Whatever they hold."""
        command = decode(b'{"op":"hello","user":"alice","other":[1,{"x":null}],"Id":1,"":{}}')
        self.assertEqual(command, Hello(user="alice"))

    def test_white_space_around_the_object_is_allowed(self) -> None:
        """`websocat` sends the newline of each line."""
        self.assertEqual(decode(b' \t{"op":"hello"}\r\n'), Hello())

    def test_an_id_is_a_short_string_or_an_integer(self) -> None:
        """It is the client's own."""
        for mark in (0, -5, 2**63, 10**30, "", "x" * 64, "\u00e9\n"):
            self.assertEqual(decode(json.dumps({"op": "ping", "id": mark}).encode()).id, mark)

    def test_data_is_passed_untouched(self) -> None:
        """Byte for byte: spaces, spellings of numbers, escapes, repeated keys."""
        for data in (
            b'{ "b" : [1 ,2.50, 1E3,-0.0], "a":"\\u00e9\\/" , "a":null}',
            b'"\xc3\xa9"',
            b"1.000",
            b"null",
            b"123456789012345678901234567890",
            b"[\n\t]",
        ):
            command = decode(b'{"to":"bob","data": ' + data + b' ,"id":1}')
            assert isinstance(command, Send)
            assert command.data is not UNSET
            self.assertEqual(bytes(command.data), data)

    @settings(database=None, deadline=None, max_examples=200)
    @given(st.text(max_size=50))
    def test_any_text_arrives_as_it_is(self, text: str) -> None:
        """Control characters and all scripts."""
        command = decode(json.dumps({"to": "bob", "msg": text}).encode())
        self.assertEqual(getattr(command, "msg", None), text)


class Names(SynchronousTestCase):
    """What a name, a topic and a filter can be."""

    def refused(self, frame: dict[str, Any]) -> Refused:
        """The refusal of a frame."""
        with self.assertRaises(Refused) as caught:
            decode(json.dumps(frame).encode())
        refused: Refused = caught.exception
        return refused

    def places(self) -> list[dict[str, Any]]:
        """Frames that lack a name in the one field that is null."""
        return [
            {"to": None, "msg": "x"},
            {"group": None, "msg": "x"},
            {"from": None, "to": "b", "msg": "x"},
            {"op": "hello", "user": None},
            {"op": "hello", "device": None},
            {"op": "join", "group": None},
            {"op": "members", "group": "g", "after": None},
            {"topic": None, "msg": "x"},
            {"op": "subscribe", "topic": None},
            {"op": "history", "topic": None},
        ]

    def fill(self, frame: dict[str, Any], name: str) -> dict[str, Any]:
        """The frame with ``name`` in its place."""
        return {key: name if value is None else value for key, value in frame.items()}

    def test_a_name_of_other_characters_is_refused_everywhere(self) -> None:
        """Wildcards of other systems, spaces, control characters, a final newline, letters."""
        wrong = [
            "*",
            "a*",
            ">",
            "a>",
            "a b",
            " a",
            "a ",
            "",
            "a\n",
            "\n",
            "a\r\n",
            "a\x00",
            "a\x7f",
        ]
        for name in [*wrong, "a\u2028", "é", "\uff41", "a:b", "a$b", "a\\b"]:
            for frame in self.places():
                refused = self.refused({"id": 7, **self.fill(frame, name)})
                self.assertEqual((refused.code, refused.id), (Code.BAD_REQUEST, 7), (frame, name))

    def test_a_name_begins_with_a_letter_or_a_digit(self) -> None:
        """And has no levels and no wildcards; a topic has."""
        for name in (".a", "_a", "-a", "@a", "a/b", "#", "+"):
            for frame in self.places()[:7]:
                self.assertEqual(self.refused(self.fill(frame, name)).code, Code.BAD_REQUEST)

    def test_a_topic_has_no_empty_level_and_no_wildcard(self) -> None:
        """A filter has them where MQTT has, and a `#` at the end alone."""
        for name in ("/", "a/", "/a", "a//b", "+", "a/+", "#", "a/#"):
            self.assertEqual(self.refused({"topic": name, "msg": "x"}).code, Code.BAD_REQUEST)
        for name in ("/", "a/", "/a", "a//b", "a+", "+a/b", "#/a", "a/#/b", "a#", "a/b#", "##"):
            refused = self.refused({"op": "subscribe", "topic": name})
            self.assertEqual(refused.code, Code.BAD_REQUEST)

    def test_a_name_that_is_too_long_is_too_large(self) -> None:
        """64 characters, 255 for topics; ten thousand are not quoted back."""
        for frame, most in [(frame, 64) for frame in self.places()[:7]] + [
            (frame, 255) for frame in self.places()[7:]
        ]:
            decode(json.dumps(self.fill(frame, "a" * most)).encode())
            for size in (most + 1, 10_240):
                refused = self.refused({"id": 7, **self.fill(frame, "a" * size)})
                self.assertEqual((refused.code, refused.id), (Code.TOO_LARGE, 7))

    def test_every_allowed_character_is_allowed(self) -> None:
        """All of `A-Z a-z 0-9 . _ - @`, and filters with wildcards."""
        for part in (string.ascii_lowercase, string.ascii_uppercase, string.digits + "._-@"):
            for frame in self.places():
                decode(json.dumps(self.fill(frame, part)).encode())
        for topic in ("#", "+", "a/#", "+/b/+", "a/+/#", ".a/-b", "a/b"):
            decode(json.dumps({"op": "subscribe", "topic": topic}).encode())

    def test_a_name_in_the_url_follows_the_same_rule(self) -> None:
        """What connects as a name can be written to under it."""
        for name in ("a", "client-a", "A.b_c-d@e", "9", "a" * 64):
            self.assertTrue(is_name(name), name)
        for name in ("", "a" * 65, ".a", "a b", "a\n", "a/b", "*", "é", "a\x00", "\ud800"):
            self.assertFalse(is_name(name), name)

    @settings(database=None, deadline=None, max_examples=300)
    @given(st.text(st.sampled_from("aZ0._-@/+#*> \né\x00"), max_size=6))
    def test_a_frame_and_the_url_never_differ(self, name: str) -> None:
        """Whatever is a name for one is a name for the other."""
        try:
            decode(json.dumps({"to": name, "msg": "x"}).encode())
        except Refused:
            self.assertFalse(is_name(name))
        else:
            self.assertTrue(is_name(name))


class Addresses(SynchronousTestCase):
    """`to`, `group` or `topic`."""

    def test_an_address_is_exactly_one_of_three(self) -> None:
        """Its kind and its name."""
        self.assertEqual(Send(to="bob").address(), Address("to", "bob"))
        self.assertEqual(Send(group="devs").address(), Address("group", "devs"))
        self.assertEqual(History(topic="a/b").address(), Address("topic", "a/b"))

    def test_none_or_several_are_refused(self) -> None:
        """With the command's own example as a hint."""
        several: list[Send | History] = [
            Send(),
            Send(to="a", group="a"),
            Send(to="a", topic="a"),
            Send(group="a", topic="a"),
            Send(to="a", group="a", topic="a"),
            History(),
            History(to="a", group="a"),
        ]
        for command in several:
            with self.assertRaises(Refused) as caught:
                command.address()
            self.assertEqual(caught.exception.code, Code.BAD_REQUEST)
            self.assertEqual(caught.exception.hint, command.example)
