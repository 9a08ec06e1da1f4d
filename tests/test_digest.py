"""The digest of a command's content, by which a retry is told from another use of its key."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.decoding import content_digest, decode
from chatsvc.messages.errors import Refused

any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=10,
)


def digest(frame: bytes | dict[str, Any]) -> bytes:
    """The digest of a frame's command."""
    return content_digest(decode(frame if isinstance(frame, bytes) else json.dumps(frame).encode()))


def of_data(data: str) -> bytes:
    """The digest of a message with this JSON as its data."""
    return digest(b'{"to":"bob","key":"k","data":' + data.encode() + b"}")


def as_json(value: Any) -> Any:
    """The value with its types told apart: Python takes True, 1 and 1.0 for equal."""
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return ("boolean", value) if isinstance(value, bool) else value


def reordered(value: Any) -> Any:
    """The same JSON value, its keys in the opposite order and its whole numbers as floats."""
    if isinstance(value, dict):
        return {name: reordered(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return [reordered(item) for item in value]
    return float(value) if type(value) is int else value


class TheSameContent(SynchronousTestCase):
    """What is equal as JSON has one digest."""

    def test_it_is_of_16_bytes(self) -> None:
        """Each stored key costs as many."""
        self.assertEqual(len(digest({"to": "bob", "msg": "hi"})), 16)

    def test_a_number_has_one_value_in_any_spelling(self) -> None:
        """As JSON knows no kinds of numbers; at any depth."""
        for first, second in (
            ("1", "1.0"),
            ("1e2", "100"),
            ('[1,{"a":2}]', '[1.0,{"a":2.0}]'),
            ("0.5", "5e-1"),
            ("-0.0", "0"),
            ("1e15", "1" + "0" * 15),
        ):
            self.assertEqual(of_data(first), of_data(second), first)

    def test_spaces_escapes_and_the_order_of_keys_do_not_count(self) -> None:
        """In the frame and in its data."""
        self.assertEqual(of_data(' { "b" : "\\u00e9", "a": 1 } '), of_data('{"a":1,"b":"é"}'))
        self.assertEqual(digest(b'{"to":"b","msg":"\\u0061"}'), digest(b'{ "msg":"a", "to":"b" }'))

    def test_what_is_not_content_does_not_count(self) -> None:
        """The `id`, the `key`, `from`, an `op` that is said or not, and the name of `msg`."""
        first = digest({"to": "bob", "msg": "hi"})
        for other in (
            {"id": 1, "from": "alice", "to": "bob", "msg": "hi", "key": "k"},
            {"op": "send", "to": "bob", "msg": "hi"},
            {"to": "bob", "message": "hi"},
            {"to": "bob", "msg": "hi", "retain": False, "other": 1},
        ):
            self.assertEqual(digest(other), first, other)

    @settings(database=None, deadline=None, max_examples=200)
    @given(any_json)
    def test_any_value_is_the_same_in_another_spelling(self, value: Any) -> None:
        """Keys turned round, whole numbers as floats."""
        self.assertEqual(
            of_data(json.dumps(value)), of_data(json.dumps(reordered(value), indent=1))
        )


class OtherContent(SynchronousTestCase):
    """Whatever differs has another digest."""

    def test_each_part_of_the_content_counts(self) -> None:
        """No two of these are the same."""
        frames: list[dict[str, Any]] = [
            {"to": "bob", "msg": "hi"},
            {"to": "bob", "msg": "hi "},
            {"to": "bob", "msg": ""},
            {"to": "Bob", "msg": "hi"},
            {"group": "bob", "msg": "hi"},
            {"topic": "bob", "msg": "hi"},
            {"topic": "bob", "msg": "hi", "retain": True},
            {"to": "bob", "msg": "hi", "reply_to": 1},
            {"to": "bob", "msg": "hi", "reply_to": 0},
            {"to": "bob", "msg": "hi", "data": None},
            {"to": "bob", "msg": "hi", "data": {}},
            {"to": "bob", "data": None},
            {"to": "bob", "data": "hi"},
            {"op": "join", "group": "bob"},
            {"op": "leave", "group": "bob"},
            {"op": "create", "group": "bob"},
            {"op": "join", "group": "bobs"},
        ]
        self.assertEqual(len({digest(frame) for frame in frames}), len(frames))

    def test_values_that_look_alike_differ(self) -> None:
        """Types, order in a list, nesting, absent and null."""
        values = ["1", '"1"', "true", "[1]", "[[1]]", "[true]", "null", "[null]", "{}", "[]", '""']
        values += [
            '{"a":null}',
            '{"a":1}',
            '{"A":1}',
            "[1,2]",
            "[2,1]",
            "[12]",
            "1.5",
            "0",
            "false",
        ]
        self.assertEqual(len({of_data(value) for value in values}), len(values))

    @settings(database=None, deadline=None, max_examples=300)
    @given(any_json, any_json)
    def test_any_two_values_are_told_apart(self, first: Any, second: Any) -> None:
        """Equal digests for equal JSON, and for nothing else."""
        same = as_json(first) == as_json(second)
        self.assertEqual(of_data(json.dumps(first)) == of_data(json.dumps(second)), same)


class DeepContent(SynchronousTestCase):
    """Nesting that the decoder lets pass."""

    def test_what_decodes_has_a_digest(self) -> None:
        """Just below the decoder's own limit too: lists, objects, and the two by turns."""
        for opening, closing in (("[", "]"), ('{"a":', "}"), ('[{"a":', "}]")):
            passes, fails = 1, 10_000
            while fails - passes > 1:
                levels = (passes + fails) // 2
                data = opening * levels + "1" + closing * levels
                try:
                    command = decode(b'{"to":"b","key":"k","data":%s}' % data.encode())
                except Refused:
                    fails = levels
                    continue
                passes = levels
                try:
                    length = len(content_digest(command))
                except RecursionError:
                    self.fail(f"{levels} times {opening} escaped as RecursionError")
                self.assertEqual(length, 16)
            self.assertLess(fails, 10_000)
