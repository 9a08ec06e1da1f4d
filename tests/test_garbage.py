"""Garbage of every kind, sent to the real server while two others chat undisturbed."""

from __future__ import annotations

import itertools
from typing import Final
from unittest import TestCase

from tests.caller import Caller
from tests.server import Server

SECRET: Final = "sesame"
"""Stands in everything that is sent here, and must not be found in the log."""

DEEP: Final = 10_000

# What it is, the frame, the code of the error.
REFUSED: Final = [
    ("no JSON", SECRET, "bad_request"),
    ("nothing", "", "bad_request"),
    ("an array", f'["{SECRET}"]', "bad_request"),
    ("a number", "7", "bad_request"),
    ("cut short", f'{{"to":"bob","msg":"{SECRET}', "bad_request"),
    ("two objects", f'{{"to":"bob","msg":"{SECRET}"}}{{}}', "bad_request"),
    ("a number too large for anything", '{"to":"bob","data":1e999}', "bad_request"),
    ("no number at all", '{"to":"bob","data":NaN}', "bad_request"),
    ("an array nested deeply", "[" * DEEP + "]" * DEEP, "bad_request"),
    ("an array nested deeply and never closed", "[" * DEEP, "bad_request"),
    ("an object nested deeply", '{"a":' * DEEP + "1" + "}" * DEEP, "bad_request"),
    (
        "data nested deeply",
        f'{{"to":"bob","msg":"{SECRET}","data":{"[" * DEEP}{"]" * DEEP}}}',
        "bad_request",
    ),
    ("half a surrogate pair", f'{{"to":"bob","msg":"{SECRET}\\ud800"}}', "bad_request"),
    ("the other half", f'{{"to":"bob","data":["{SECRET}\\udc00"]}}', "bad_request"),
    ("a raw control character", f'{{"to":"bob","msg":"{SECRET}\x01"}}', "bad_request"),
    ("a control character in a name", f'{{"to":"bob\\u0007{SECRET}","msg":"x"}}', "bad_request"),
    ("a line break after a name", '{"to":"bob\\n","msg":"x"}', "bad_request"),
    ("a name of 10 KB", f'{{"to":"{SECRET * 1700}","msg":"x"}}', "too_large"),
    ("a group of 10 KB", f'{{"op":"join","group":"{SECRET * 1700}"}}', "too_large"),
    ("a device of 10 KB", f'{{"op":"hello","device":"{SECRET * 1700}"}}', "too_large"),
    ("a topic of 10 KB", f'{{"topic":"{f"{SECRET}/" * 1500}x","msg":"x"}}', "too_large"),
    ("an empty level", f'{{"topic":"{SECRET}//x","msg":"x"}}', "bad_request"),
    ("an unknown op", f'{{"op":"{SECRET}"}}', "unknown_op"),
    ("an op of 10 KB", f'{{"op":"{SECRET * 1700}"}}', "unknown_op"),
    ("a text that is a number", '{"to":"bob","msg":7}', "bad_request"),
    ("an address of two parts", f'{{"to":"bob","group":"g","msg":"{SECRET}"}}', "bad_request"),
    ("no address", f'{{"msg":"{SECRET}"}}', "bad_request"),
    ("a seq below nothing", '{"op":"ack","seq":-1}', "bad_request"),
    ("a limit that is none", '{"op":"history","to":"bob","limit":1000000}', "bad_request"),
]


class _WithOthersChatting(TestCase):
    def setUp(self) -> None:
        """Start a server, and two who are not to be disturbed."""
        self.server = self.enterContext(Server("--max-message", "70000"))
        self.alice = self.enterContext(Caller(self.server.url, "alice"))
        self.bob = self.enterContext(Caller(self.server.url, "bob"))
        self.vandal = self.enterContext(Caller(self.server.url, "vandal"))
        self._numbers = itertools.count(1)

    def tearDown(self) -> None:
        """Neither was disturbed, and the log has no word of what was said."""
        self.assert_chatting()
        self.server.stop()
        self.assertNotIn("Traceback", self.server.log)
        self.assertNotIn("Unhandled", self.server.log)
        self.assertNotIn(SECRET, self.server.log)
        self.assertNotIn("undisturbed", self.server.log)

    def assert_chatting(self) -> None:
        """What alice says reaches bob, and nothing but that."""
        text = f"undisturbed {next(self._numbers)}"
        self.assertEqual(self.alice.ask(id=text, to="bob", msg=text)["event"], "ok")
        self.assertEqual(self.bob.text(), f'{{"from":"alice","to":"bob","msg":"{text}"}}')

    def assert_closed(self, code: int) -> None:
        """The vandal is told why in a frame of its own, then closed with ``code``."""
        frames, closed_with, _ = self.vandal.rest()
        self.assertEqual([frame["event"] for frame in frames], ["closing"])
        self.assertRegex(frames[0]["reason"], "[a-z]")
        self.assertNotIn("Traceback", frames[0]["reason"])
        self.assertEqual(closed_with, code)


class SendingGarbage(_WithOthersChatting):
    """What is no command is an error, and the connection stays open."""

    def test_each_kind_is_refused_with_its_code(self) -> None:
        """One error a frame, short, with a frame that would work; the next command is done."""
        for number, (what, frame, code) in enumerate(REFUSED):
            error = self.vandal.say(frame).take()
            self.assertEqual((error["event"], error.get("code")), ("error", code), (what, error))
            self.assertLess(len(error["reason"]), 300, what)
            self.assertEqual(error["hint"][:1], "{", what)
            self.assertEqual(self.vandal.ask(op="ping", id=number)["event"], "pong", what)
        self.assertEqual(self.vandal.heard_within(0.1), [])

    def test_control_characters_in_a_text_go_through(self) -> None:
        """Escaped, they are a text as any other; so is what looks like a frame."""
        for text in ("\x00\x07\x1b[31m", "\u2028\u202e\ufeff", '"}{"op":"leave"', "\U0001f600"):
            self.vandal.ask(id=1, to="carol", msg=text)
            with Caller(self.server.url, "carol") as carol:
                self.assertEqual(carol.take(), {"from": "vandal", "to": "carol", "msg": text})

    def test_a_binary_frame_is_read_as_text(self) -> None:
        """The same command, the same answer; what is not UTF-8 in it is an error."""
        self.vandal.say(b'{"id":1,"op":"ping"}')
        self.assertEqual(self.vandal.take()["event"], "pong")
        self.vandal.say(b'{"to":"bob","msg":"\xff\xfe"}')
        self.assertEqual(self.vandal.take()["code"], "bad_request")
        self.vandal.say(b"\x00" * 1000)
        self.assertEqual(self.vandal.take()["code"], "bad_request")

    def test_a_text_frame_that_is_not_utf_8_ends_the_connection(self) -> None:
        """With 1007, and before that a frame that says why."""
        self.vandal.say_text(f'{{"to":"bob","msg":"{SECRET}\xff"}}'.encode("latin-1"))
        self.assert_closed(1007)

    def test_a_frame_as_large_as_is_allowed_is_read(self) -> None:
        """The limit is that of --max-message, in bytes."""
        frame = f'{{"id":1,"to":"carol","msg":"{SECRET}"}}'
        self.vandal.say(frame.replace(SECRET, SECRET + "x" * (70_000 - len(frame))))
        self.assertEqual(self.vandal.take()["event"], "ok")

    def test_a_frame_beyond_the_limit_ends_the_connection(self) -> None:
        """With 1009, and before that a frame that says why."""
        self.vandal.say(SECRET * 12_000)
        self.assert_closed(1009)

    def test_a_message_of_many_fragments_counts_as_a_whole(self) -> None:
        """Else the limit would be none."""
        self.vandal.websocket.send([SECRET * 1000] * 12)
        self.assert_closed(1009)

    def test_a_flood_of_garbage_is_answered_to_the_last(self) -> None:
        """While the others chat on."""
        for number in range(1000):
            self.vandal.say(f'{{"id":{number},"op":"{SECRET}"}}')
            if number % 100 == 0:
                self.assert_chatting()
        answers = [self.vandal.take() for _ in range(1000)]
        self.assertEqual([answer["id"] for answer in answers], list(range(1000)))
