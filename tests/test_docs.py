"""The documents: every frame they show is one, and the README's tour goes as it says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import TestCase

import msgspec
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.commands import COMMANDS
from chatsvc.messages.decoding import decode
from chatsvc.messages.errors import CloseCode, Code
from chatsvc.messages.events import Event, Message
from tests.fakes import FakeConnection, House

ROOT = Path(__file__).parent.parent
ARROW = "→ "


def frames(path: str) -> Iterator[str]:
    """The lines of the JSON blocks of a document."""
    for block in re.findall(
        r"^```json\n(.*?)^```$", (ROOT / path).read_text(), re.DOTALL | re.MULTILINE
    ):
        yield from block.splitlines()


def kinds(of: type[Event]) -> Iterator[type[Event]]:
    """All events, by subclass."""
    for kind in of.__subclasses__():
        yield kind
        yield from kinds(kind)


class Frames(SynchronousTestCase):
    """Each JSON line is a frame of the protocol, with no field that it does not have."""

    def check_said(self, line: str) -> None:
        """A frame that the server says: its type has all the fields, and nothing is lost."""
        shown = json.loads(line)
        events = {kind.__struct_config__.tag: kind for kind in kinds(Event)}
        kind = events[shown["event"]] if "event" in shown else Message
        again = msgspec.json.encode(msgspec.json.decode(line.encode(), type=kind))
        self.assertEqual(json.loads(again), shown)

    def test_those_of_the_protocol_page_are_what_they_look_like(self) -> None:
        """What begins with an arrow is a command, all else what the server says."""
        lines = list(frames("docs/protocol.md"))
        self.assertGreater(len(lines), 25)
        for line in lines:
            if line.startswith(ARROW) or '"op":' in line:
                decode(line.removeprefix(ARROW).encode())
            else:
                self.check_said(line)

    def test_those_of_the_readme_are_commands(self) -> None:
        """A person can type every one."""
        lines = list(frames("README.md"))
        self.assertGreater(len(lines), 8)
        for line in lines:
            decode(line.encode())

    def test_the_protocol_page_names_every_command_field_and_code(self) -> None:
        """What is not on the page is not there."""
        text = (ROOT / "docs/protocol.md").read_text()
        for op, kind in COMMANDS.items():
            self.assertIn(f"`{op}`", text)
            for field in msgspec.structs.fields(kind):
                self.assertRegex(
                    text, rf"[`{{ ]{field.encode_name}\b", f"{op}: {field.encode_name}"
                )
        for code in Code:
            self.assertIn(f"`{code}`", text)
        for close_code in CloseCode:
            self.assertRegex(text, rf"\b{close_code:d}\b")
        for event in kinds(Event):
            self.assertRegex(text, rf"\b{event.__struct_config__.tag}\b")


class TheTour(TestCase):
    """The README's tour, line by line, by two people at plain connections."""

    def setUp(self) -> None:
        """Two people connect, as client-a and client-b."""
        self.house = House()
        self.a, self.b = self.house.plain(), self.house.plain()
        self.lines = iter(frames("README.md"))

    def type_into(self, *connections: FakeConnection) -> None:
        """Type the next line of the README."""
        line = next(self.lines)
        for connection in connections:
            connection.say(line.encode())
        self.house.clock.advance(1)

    def seen(self, connection: FakeConnection) -> list[dict[str, Any]]:
        """What somebody saw since the last time; their WebSocket library answers pings."""
        if connection.pings:
            connection.echo()
        return connection.take()

    def test_it_goes_as_the_readme_says(self) -> None:
        """1-to-1, a group, a topic, a message that waits, and an answered command."""
        self.type_into(self.a)
        self.assertEqual(
            self.seen(self.b), [{"from": "client-a", "to": "client-b", "msg": "Hello from A!"}]
        )
        self.type_into(self.a, self.b)
        self.type_into(self.a)
        self.assertEqual(
            self.seen(self.b), [{"from": "client-a", "group": "devs", "msg": "Lunch?"}]
        )
        self.type_into(self.a)
        self.type_into(self.b)
        self.assertEqual(
            self.seen(self.a), [{"from": "client-b", "topic": "builds/linux", "msg": "green"}]
        )
        self.type_into(self.a)
        alice = self.house.plain("alice")
        self.assertEqual(
            self.seen(alice),
            [{"from": "client-a", "to": "alice", "msg": "Call me when you are back"}],
        )
        self.type_into(self.a)
        (reply,) = self.seen(self.a)
        self.assertEqual((reply["id"], [m["msg"] for m in reply["messages"]]), (1, ["Lunch?"]))


class Links(SynchronousTestCase):
    """The documents refer to what is there."""

    def test_every_relative_link_leads_somewhere(self) -> None:
        """From each document, by its own folder."""
        documents = [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]
        if (ROOT / "pyproject.toml").exists():
            self.assertEqual(len(documents), 7)
        for document in documents:
            for target in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
                self.assertTrue((document.parent / target).exists(), f"{document}: {target}")
