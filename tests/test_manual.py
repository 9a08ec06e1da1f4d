"""The manual that `help` shows, made from the definitions of the commands."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.commands import COMMANDS
from chatsvc.messages.decoding import decode
from chatsvc.messages.errors import Code, Refused
from chatsvc.messages.events import MAX_FRAME, HelpPage, encode
from chatsvc.messages.manual import describe


class TheManual(SynchronousTestCase):
    """What `help` tells."""

    def test_it_has_a_page_for_each_command(self) -> None:
        """In the order of the definitions; none besides."""
        self.assertEqual([page["op"] for page in describe(None)], list(COMMANDS))

    def test_about_shows_that_page_alone(self) -> None:
        """The same as in the whole."""
        for page in describe(None):
            self.assertEqual(describe(page["op"]), [page])

    def test_each_page_tells_what_the_command_is_for(self) -> None:
        """In a sentence, which is the first paragraph of the class's docstring."""
        for page in describe(None):
            self.assertTrue(page["about"].endswith("."), page)
            self.assertTrue((COMMANDS[page["op"]].__doc__ or "").startswith(page["about"]), page)

    def test_each_example_is_that_command(self) -> None:
        """So it can be copied."""
        for page in describe(None):
            self.assertIs(type(decode(page["example"].encode())), COMMANDS[page["op"]])

    def test_fields_are_called_as_on_the_wire(self) -> None:
        """`from`, not what the code calls it."""
        self.assertEqual(
            set(describe("history")[0]["fields"]),
            {"id", "from", "to", "group", "topic", "before", "after", "limit"},
        )

    def test_fields_have_their_rules(self) -> None:
        """Type, bounds, default."""
        fields = describe("members")[0]["fields"]
        self.assertEqual(
            fields["limit"], {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
        )
        self.assertEqual((fields["group"]["minLength"], fields["group"]["maxLength"]), (1, 64))

    def test_what_is_required_is_said(self) -> None:
        """And nothing else is."""
        required = {page["op"]: page["required"] for page in describe(None) if page["required"]}
        self.assertEqual(
            required,
            {
                **{op: ["group"] for op in ("join", "leave", "create", "members")},
                **{op: ["topic"] for op in ("subscribe", "unsubscribe")},
                "read": ["seq"],
                "ack": ["seq"],
                "signal": ["to", "data"],
            },
        )

    def test_the_whole_fits_into_a_frame(self) -> None:
        """As JSON that says the same."""
        frame = encode(HelpPage(commands=describe(None)))
        self.assertLess(len(frame), MAX_FRAME)
        self.assertEqual(json.loads(frame)["commands"], describe(None))

    def test_there_is_no_page_about_what_there_is_not(self) -> None:
        """`not_found`, and a hint that lists what there is."""
        for op in ("dance", "", "SEND", "x" * 64):
            with self.assertRaises(Refused) as caught:
                describe(op)
            self.assertEqual(caught.exception.code, Code.NOT_FOUND)
            self.assertEqual(caught.exception.hint, '{"op":"help"}')
