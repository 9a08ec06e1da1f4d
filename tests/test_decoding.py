"""What becomes of a frame that is no good command: a refusal that helps, and nothing else."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import fields
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.commands import COMMANDS, Command, Send
from chatsvc.messages.decoding import content_digest, decode
from chatsvc.messages.errors import Code, Refused
from chatsvc.messages.events import Error, encode

DEEP = 10_000
LONE = "\ud800"

ACCEPTED: dict[str, tuple[type, ...]] = {
    "id": (str, int, type(None)),
    "retain": (bool,),
    "public": (bool,),
    "durable": (bool,),
    "since": (int,),
    "seq": (int,),
    "before": (int,),
    "after": (int, str),  # a seq in `history`, a name in `members`
    "limit": (int,),
    "reply_to": (int,),
    "topics": (list,),
    **dict.fromkeys(("from", "to", "group", "topic", "msg", "message", "key"), (str,)),
    **dict.fromkeys(("user", "token", "password", "device", "epoch", "about"), (str,)),
}
"""Of which JSON types a field may be; `data` may be of any."""

any_text = st.text(st.characters(exclude_categories=()), max_size=20)
any_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
examples = st.sampled_from([kind.example.encode() for kind in COMMANDS.values()])


def nested(levels: int, opening: str = "[", closing: str = "]", core: str = "") -> str:
    """JSON of that many levels."""
    return opening * levels + core + closing * levels


class _Refusing(SynchronousTestCase):
    def refused(self, payload: bytes | str | dict[str, Any]) -> Refused:
        """The refusal of ``payload``, sound in itself."""
        if isinstance(payload, dict):
            payload = json.dumps(payload)
        if isinstance(payload, str):
            payload = payload.encode()
        with self.assertRaises(Refused) as caught:
            decode(payload)
        refused: Refused = caught.exception
        self.check(refused)
        return refused

    def check(self, refused: Refused) -> None:
        """A refusal has a short reason and a hint that works, and goes over the wire."""
        self.assertIsInstance(refused.code, Code)
        self.assertTrue(refused.reason)
        self.assertLess(len(refused.reason), 300)
        self.assertIsInstance(decode((refused.hint or "").encode()), Command)
        frame = encode(Error(id=refused.id, code=refused.code, reason=refused.reason))
        self.assertEqual(json.loads(frame)["code"], refused.code)


class WhatIsNoCommand(_Refusing):
    """Frames that are not JSON objects."""

    def test_what_is_not_json_is_refused(self) -> None:
        """As `bad_request`, an empty frame too."""
        for payload in (b"", b" ", b"hi", b"{", b'{"to":"b","msg":"x"', b"\x00", b"{'to':'b'}"):
            refused = self.refused(payload)
            self.assertEqual(refused.code, Code.BAD_REQUEST)
            self.assertEqual(refused.reason, "the frame is not valid JSON in UTF-8")

    def test_what_follows_the_object_is_refused(self) -> None:
        """Two objects are not one."""
        self.assertEqual(self.refused(b'{"op":"ping"}{"op":"ping"}').code, Code.BAD_REQUEST)

    def test_what_is_not_an_object_is_refused(self) -> None:
        """Other JSON values say nothing."""
        for value in ("[]", '[{"op":"ping"}]', "null", "true", "3", "1e999", '"ping"'):
            refused = self.refused(value)
            self.assertEqual(refused.code, Code.BAD_REQUEST)
            self.assertIsNone(refused.id)

    def test_an_unknown_op_is_told_so(self) -> None:
        """With the `id`, and `help` as a hint; a long one is quoted in part."""
        for op in ("dance", "", "SEND", "send\n", "x" * 10_240):
            refused = self.refused({"id": 7, "op": op})
            self.assertEqual((refused.code, refused.id), (Code.UNKNOWN_OP, 7))
            self.assertEqual(refused.hint, '{"op":"help"}')

    def test_an_op_that_is_no_string_is_refused(self) -> None:
        """An explicit `null` is not an absent one."""
        others: list[Any] = [None, 7, [], {}, True]
        for op in others:
            refused = self.refused({"id": 7, "op": op})
            self.assertEqual((refused.code, refused.id), (Code.BAD_REQUEST, 7))
            self.assertIn("`op`", refused.reason)


class IllTypedFields(_Refusing):
    """What is wrong with one field of a command."""

    def test_a_field_of_the_wrong_type_is_named(self) -> None:
        """Every field of every command, with every other type; the reply can carry the `id`."""
        values: list[Any] = [None, True, 1, 1.5, "a", [], {}]
        for op, kind in COMMANDS.items():
            for name in [field.encode_name for field in fields(kind)]:
                if name == "data":
                    continue
                for value in values:
                    if type(value) in ACCEPTED[name] and name != "after":
                        continue
                    if name == "after" and type(value) is (int if op == "history" else str):
                        continue
                    frame = {"id": 7, **json.loads(kind.example), name: value}
                    refused = self.refused(frame)
                    self.assertEqual(refused.code, Code.BAD_REQUEST, frame)
                    self.assertIn(f"`{name}`", refused.reason)
                    if name == "id":
                        self.assertIsNone(refused.id)
                    else:
                        self.assertEqual((refused.id, refused.hint), (7, kind.example))

    def test_a_required_field_that_is_missing_is_named(self) -> None:
        """With the `id`, wherever that stands."""
        needed = {
            **dict.fromkeys(("join", "leave", "create", "members"), "group"),
            **dict.fromkeys(("subscribe", "unsubscribe"), "topic"),
            "ack": "seq",
        }
        for op, name in needed.items():
            refused = self.refused({"op": op, "id": "m"})
            self.assertEqual((refused.code, refused.id), (Code.BAD_REQUEST, "m"))
            self.assertIn(f"`{name}`", refused.reason)

    def test_a_message_needs_text_or_data(self) -> None:
        """An empty text is one, and `null` is data."""
        self.assertEqual(self.refused({"id": 7, "to": "bob"}).id, 7)
        for content in ({"msg": ""}, {"data": None}):
            self.assertIsInstance(decode(json.dumps({"to": "b", **content}).encode()), Send)

    def test_numbers_out_of_range_are_refused(self) -> None:
        """Below 0, above a limit, beyond what a float holds, or of thousands of digits."""
        huge = "9" * 5000
        for op, name, number in (
            *(("ack", "seq", n) for n in ("-1", "1e400", huge, "-" + huge)),
            *(("history", "limit", n) for n in ("0", "201", "-1", huge)),
            *(("history", "before", n) for n in ("-1", huge)),
            *(("send", "reply_to", n) for n in ("-1", "1e999999999", huge)),
            *(("send", "data", n) for n in ("1e400", "[-1e400]", huge)),
        ):
            refused = self.refused(f'{{"to":"b","op":"{op}","{name}":{number},"id":7}}')
            self.assertEqual((refused.code, refused.id), (Code.BAD_REQUEST, 7), (op, name))

    def test_a_huge_id_is_refused_without_an_id(self) -> None:
        """There is none that a reply could carry."""
        for mark in ("1e400", "9" * 5000, '"' + "x" * 65 + '"', "1.5"):
            self.assertIsNone(self.refused(f'{{"op":"ping","id":{mark}}}').id)


class HostileText(_Refusing):
    """Nesting, and text that is none."""

    def test_ten_thousand_levels_are_refused_with_the_id(self) -> None:
        """In data, in a known field, in one nobody knows, before the `id` or behind it."""
        for core in (nested(DEEP), nested(DEEP, '{"a":', "}", "1")):
            for name in ("data", "msg", "to", "other"):
                for frame in (
                    f'{{"id":7,"to":"b","msg":"x","{name}":{core}}}',
                    f'{{"to":"b","msg":"x","{name}":{core},"id":7}}',
                ):
                    refused = self.refused(frame)
                    self.assertEqual(refused.code, Code.BAD_REQUEST)
                    self.assertEqual(refused.id, 7, f"no id found: {frame[:40]}…")

    def test_ten_thousand_levels_of_nothing_are_refused(self) -> None:
        """Also when they are never closed."""
        for core in (nested(DEEP), nested(DEEP, '{"a":', "}", "1"), "[" * DEEP, '{"a":' * DEEP):
            self.assertIsNone(self.refused(core).id)

    def test_lone_surrogates_are_refused_with_the_id(self) -> None:
        """In names, texts and data, as values and as keys: no receiver could decode them."""
        for field in (
            {"to": LONE},
            {"from": "a" + LONE},
            {"msg": LONE},
            {"msg": "\udc00\ud800"},
            {"data": LONE},
            {"data": [{"a": [LONE]}]},
            {"data": {LONE: 1}},
            {"other": LONE},
            {LONE: 1},
            {"op": LONE},
            {"key": LONE},
        ):
            for frame in (
                {"id": 7, "to": "b", "msg": "x", **field},
                {"to": "b", "msg": "x", **field, "id": 7},
            ):
                refused = self.refused(frame)
                self.assertEqual(refused.id, 7, f"no id found: {json.dumps(frame)}")

    def test_a_surrogate_pair_is_one_character(self) -> None:
        """Escaped or not."""
        for text in (rb"\ud83d\ude00", "\N{GRINNING FACE}".encode()):
            command = decode(b'{"to":"b","msg":"' + text + b'"}')
            self.assertEqual(getattr(command, "msg", None), "\N{GRINNING FACE}")

    def test_what_is_not_utf_8_is_refused(self) -> None:
        """A binary frame reaches the decoder unchecked; unknown fields are no exception."""
        for octets in (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80"):
            for name in (b"msg", b"data", b"to", b"key", b"op", b"other"):
                frame = b'{"id":7,"to":"b","msg":"x","%s":"%s"}' % (name, octets)
                self.assertEqual(self.refused(frame).code, Code.BAD_REQUEST)
            self.refused(octets)
            self.refused(b'{"to":"b","msg":"x","%s":1}' % octets)


class WhateverComes(_Refusing):
    """Everything is either a command or refused."""

    def take(self, payload: bytes) -> Command | Refused:
        """What becomes of ``payload``; anything but these two is an error of the test."""
        try:
            command = decode(payload)
        except Refused as refused:
            self.check(refused)
            return refused
        self.assertIn(type(command), COMMANDS.values())
        content_digest_or_refusal(command)
        return command

    @settings(database=None, deadline=None, max_examples=300)
    @given(st.binary(max_size=60))
    def test_any_bytes(self, payload: bytes) -> None:
        """They decode or are refused."""
        self.take(payload)

    @settings(database=None, deadline=None, max_examples=300)
    @given(any_json)
    def test_any_json(self, value: Any) -> None:
        """It decodes or is refused."""
        self.take(json.dumps(value).encode())

    @settings(database=None, deadline=None, max_examples=400)
    @given(examples, st.integers(0), st.integers(0, 4), st.binary(max_size=4))
    def test_any_change_of_bytes(self, frame: bytes, at: int, gone: int, come: bytes) -> None:
        """A valid frame with some bytes replaced decodes or is refused."""
        at %= len(frame) + 1
        self.take(frame[:at] + come + frame[at + gone :])

    @settings(database=None, deadline=None, max_examples=400)
    @given(examples, st.sampled_from(sorted([*ACCEPTED, "data", "op", "other"])), any_json)
    def test_any_change_of_a_field(self, frame: bytes, name: str, value: Any) -> None:
        """It decodes or is refused, and a refusal has the `id`."""
        outcome = self.take(json.dumps({"id": "m", **json.loads(frame), name: value}).encode())
        if name != "id":
            self.assertEqual(outcome.id, "m")


def content_digest_or_refusal(command: Command) -> None:
    """Take the digest, where the address allows one."""
    try:
        content_digest(command)
    except Refused:
        return
