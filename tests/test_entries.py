"""The shapes in which an entry of the log goes over the wire, byte for byte."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import (
    Address,
    Entry,
    Shape,
    render,
    shape_for,
)

BOB = Address("to", "bob")
DEVS = Address("group", "devs")
TS = 1767225600123


def message(address: Address = BOB, **fields: Any) -> Entry:
    """A message from alice at 1043."""
    return Entry(1043, TS, "message", "alice", address, "c1", **fields)


class Messages(SynchronousTestCase):
    """A message, in each of its shapes."""

    def test_the_bare_shape_is_the_seeds(self) -> None:
        """As in section 4: who, where to, what, and nothing else."""
        entry = Entry(
            1043,
            TS,
            "message",
            "client-a",
            Address("to", "client-b"),
            origin="c1",
            msg="Hello from A!",
            key="k",
            reply_to=7,
        )
        self.assertEqual(
            render(entry, Shape.BARE),
            b'{"from":"client-a","to":"client-b","msg":"Hello from A!"}',
        )

    def test_the_full_shape_has_its_place_and_time(self) -> None:
        """As in section 4; the sender's `key` is nobody else's business."""
        self.assertEqual(
            render(message(msg="hi", key="k"), Shape.FULL),
            b'{"from":"alice","to":"bob","msg":"hi","seq":1043,"ts":1767225600123}',
        )

    def test_the_full_shape_says_what_it_replies_to(self) -> None:
        """Where it replies to something."""
        self.assertEqual(
            render(message(msg="hi", reply_to=7), Shape.FULL),
            b'{"from":"alice","to":"bob","msg":"hi","reply_to":7,"seq":1043,"ts":1767225600123}',
        )

    def test_ones_own_message_has_its_key(self) -> None:
        """So another session of the sender knows it again."""
        self.assertEqual(
            render(message(msg="hi", key="k"), Shape.OWN),
            b'{"from":"alice","to":"bob","msg":"hi","seq":1043,"ts":1767225600123,"key":"k"}',
        )
        self.assertEqual(
            render(message(msg="hi"), Shape.OWN), render(message(msg="hi"), Shape.FULL)
        )

    def test_what_is_replayed_is_marked(self) -> None:
        """A client must not take it for a new position."""
        self.assertEqual(
            render(message(Address("topic", "a/b"), msg="hi", key="k"), Shape.REPLAY),
            b'{"from":"alice","topic":"a/b","msg":"hi","seq":1043,"ts":1767225600123,"replay":true}',
        )

    def test_the_address_is_flat(self) -> None:
        """Exactly one of `to`, `group` and `topic`."""
        for address in (BOB, DEVS, Address("topic", "a/b")):
            self.assertEqual(
                render(message(address, msg="x"), Shape.BARE),
                f'{{"from":"alice","{address.kind}":"{address.name}","msg":"x"}}'.encode(),
            )

    def test_data_is_there_as_it_came(self) -> None:
        """In every shape, in place of a text or beside it."""
        data = b'{ "b":1.50,\n"a" : "\\u00e9"}'
        head = b'{"from":"alice","to":"bob",'
        tail = b',"seq":1043,"ts":1767225600123'
        for shape, end in (
            (Shape.BARE, b"}"),
            (Shape.FULL, tail + b"}"),
            (Shape.OWN, tail + b"}"),
            (Shape.REPLAY, tail + b',"replay":true}'),
        ):
            self.assertEqual(render(message(data=data), shape), head + b'"data":' + data + end)
            self.assertEqual(
                render(message(msg="m", data=data), shape),
                head + b'"msg":"m","data":' + data + end,
            )

    def test_an_empty_text_and_null_are_content(self) -> None:
        """They are not left out."""
        self.assertEqual(
            render(message(msg="", data=b"null"), Shape.BARE),
            b'{"from":"alice","to":"bob","msg":"","data":null}',
        )

    @settings(database=None, deadline=None, max_examples=150)
    @given(st.text(), st.sampled_from(list(Shape)))
    def test_any_text_comes_out_as_it_went_in(self, text: str, shape: Shape) -> None:
        """As JSON in UTF-8, on one line."""
        payload = render(message(msg=text), shape)
        assert payload is not None
        self.assertEqual(json.loads(payload)["msg"], text)
        self.assertNotIn(b"\n", payload)


class EventsOfGroups(SynchronousTestCase):
    """`joined`, `left` and `role`, which stand in the log too."""

    def entry(self, kind: Any, **fields: Any) -> Entry:
        """Something that alice did to bob in devs."""
        return Entry(12, TS, kind, "alice", DEVS, "c1", user="bob", **fields)

    def test_they_name_the_actor_the_group_and_the_user(self) -> None:
        """The same for all sessions, the actor's own too."""
        for kind, more in (("joined", b""), ("left", b""), ("role", b',"role":"owner"')):
            entry = self.entry(kind, role="owner" if more else None)
            for shape in (Shape.FULL, Shape.OWN):
                self.assertEqual(
                    render(entry, shape),
                    b'{"event":"%s","from":"alice","group":"devs","user":"bob",'
                    b'"seq":12,"ts":1767225600123%s}' % (kind.encode(), more),
                )

    def test_a_replayed_one_is_marked(self) -> None:
        """As a message is."""
        self.assertEqual(
            render(self.entry("joined"), Shape.REPLAY),
            b'{"event":"joined","from":"alice","group":"devs","user":"bob",'
            b'"seq":12,"ts":1767225600123,"replay":true}',
        )

    def test_a_plain_connection_is_not_shown_them(self) -> None:
        """It gets messages only."""
        for kind in ("joined", "left", "role"):
            self.assertIsNone(render(self.entry(kind, role="owner"), Shape.BARE))


class WhoSeesWhat(SynchronousTestCase):
    """Which shape is whose."""

    def test_the_sender_sees_its_own_shape(self) -> None:
        """Everybody else the full one."""
        entry = message(msg="hi")
        self.assertIs(shape_for(entry, "alice"), Shape.OWN)
        self.assertIs(shape_for(entry, "bob"), Shape.FULL)

    def test_an_entry_never_changes(self) -> None:
        """All who hear it see the same."""
        with self.assertRaises(AttributeError):
            message().msg = "other"  # type: ignore[misc]
