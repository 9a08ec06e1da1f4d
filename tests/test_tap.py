"""The options of ``twistd chat``: what they mean, and what is said of wrong ones."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from chatsvc import tap
from chatsvc.messages.events import MAX_FRAME
from chatsvc.store.memory import MemoryStore
from tests.server import CHAT_TAC

DAY = 24 * 60 * 60


def parsed(*arguments: str) -> tap.Options:
    """The options that ``arguments`` give."""
    options = tap.Options()
    options.parseOptions(arguments)
    return options


class Defaults(SynchronousTestCase):
    """What holds where nothing is said."""

    def test_it_listens_on_3030_of_this_machine(self) -> None:
        """One endpoint, on loopback."""
        options = parsed()
        self.assertEqual(options["port"], 3030)
        self.assertEqual(
            [text for text, _ in options["endpoints"]], ["tcp:3030:interface=127.0.0.1"]
        )

    def test_what_is_promised_is_kept(self) -> None:
        """30 days, 10,000 messages, 64 KiB a frame, 10,000 connections, on disk."""
        options = parsed()
        self.assertEqual(options["retention"], 30 * DAY)
        self.assertEqual(options["quota"], 10_000)
        self.assertEqual(options["max-message"], 64 * 1024)
        self.assertEqual(options["max-outbox"], 1024 * 1024)
        self.assertEqual(options["max-connections"], 10_000)
        self.assertEqual(options["place"], Path("chat.sqlite"))
        self.assertEqual(options["durability"], "full")


class GivenValues(SynchronousTestCase):
    """What can be said instead."""

    def test_a_port(self) -> None:
        """In both spellings; 0 is one that is free."""
        for arguments in (("--port", "0"), ("--port=0",), ("-p", "0"), ("-p0",)):
            self.assertEqual(parsed(*arguments)["listen"], ["tcp:0:interface=127.0.0.1"])
        self.assertEqual(parsed("--port", "65535")["port"], 65535)

    def test_endpoints_instead_of_the_port(self) -> None:
        """As many as are given, in that order."""
        texts = ["tcp:3031:interface=127.0.0.1", "unix:/run/chat.sock", "tcp6:0:interface=\\:\\:1"]
        options = parsed(*(part for text in texts for part in ("--listen", text)))
        self.assertEqual([text for text, _ in options["endpoints"]], texts)

    def test_one_set_of_options_leaves_the_next_alone(self) -> None:
        """The list of endpoints is each one's own."""
        parsed("--listen", "tcp:1")
        self.assertEqual(len(parsed()["endpoints"]), 1)

    def test_a_retention(self) -> None:
        """A number with a unit."""
        for text, value in (("90s", 90), ("15m", 900), ("12h", DAY / 2), ("30d", 30 * DAY)):
            self.assertEqual(parsed("--retention", text)["retention"], value)

    def test_a_store_in_memory_with_its_size(self) -> None:
        """In MiB."""
        self.assertEqual(parsed("--store", "memory:1")["place"], 1024 * 1024)
        self.assertEqual(parsed("--store", "memory:")["place"], 256 * 1024 * 1024)

    def test_a_store_in_a_file(self) -> None:
        """Relative to the directory that twistd runs in, or anywhere."""
        for name in ("chat.sqlite", "/var/lib/chat/chat.sqlite", "c:/chat"):
            self.assertEqual(parsed("--store", f"sqlite:{name}")["place"], Path(name))

    def test_a_durability(self) -> None:
        """One of two."""
        for value in ("full", "normal"):
            self.assertEqual(parsed("--durability", value)["durability"], value)

    def test_the_largest_message(self) -> None:
        """What becomes of it must fit into a frame from the server."""
        self.assertEqual(parsed("--max-message", "520192")["max-message"], 520_192)
        self.assertEqual(MAX_FRAME - 4096, 520_192)

    def test_the_outbox(self) -> None:
        """Where nothing is said, it has the room that the largest messages need."""
        self.assertEqual(parsed("--max-outbox", "2000000")["max-outbox"], 2_000_000)
        self.assertEqual(parsed("--max-message", "1000")["max-outbox"], 1024 * 1024)
        least = parsed("--max-message", "520192")["max-outbox"]
        self.assertGreater(least, 1024 * 1024)
        parsed("--max-message", "520192", "--max-outbox", str(least))
        with self.assertRaisesRegex(UsageError, f"must be at least {least}"):
            parsed("--max-message", "520192", "--max-outbox", str(least - 1))


class WrongValues(SynchronousTestCase):
    """What is said of them: which option, which value, and what it takes."""

    WRONG: ClassVar = {
        "--port": ("x", "-1", "65536", "3030.0", "", "³"),
        "--listen": ("", "nonsense", "tcp:x", "tcp", "unix", "no:1"),
        "--store": ("", "redis:", "sqlite", "sqlite:", "memory:0", "memory:-1", "memory:1.5"),
        "--durability": ("", "none", "FULL", "off"),
        "--retention": ("", "30", "d", "0d", "-1d", "1.5h", "30 d", "30w", "ever", "9" * 400 + "s"),
        "--quota": ("", "0", "-1", "many", "1e3", "²"),
        "--max-message": ("", "0", "-1", "64k", "520193"),
        "--max-outbox": ("", "0", "-1", "1m", "65536"),
        "--max-connections": ("", "0", "-1", "all"),
    }  # fmt: skip

    def test_each_is_a_usage_error(self) -> None:
        """Never another exception, which would be a traceback."""
        otherwise = []
        for option, values in self.WRONG.items():
            for value in values:
                try:
                    otherwise.append((option, value, parsed(f"{option}={value}")["endpoints"]))
                except UsageError:
                    continue
                except Exception as error:
                    otherwise.append((option, value, type(error)))
        self.assertEqual(otherwise, [])

    def test_the_message_names_the_option(self) -> None:
        """So that one finds it in a long command line or a unit file."""
        for option, values in self.WRONG.items():
            self.assertIn(option, self.said(f"{option}={values[0]}"))

    def test_the_message_says_what_it_takes(self) -> None:
        """In words, without the names of Python's types and functions."""
        for option, value, rule in (
            ("--port", "x", "a number from 0 to 65535"),
            ("--store", "redis:", "sqlite:FILE, memory: or memory:MIB"),
            ("--durability", "off", "full or normal"),
            ("--retention", "1 week", "like 30d, 12h, 15m or 90s"),
            ("--quota", "none", "a whole number above 0"),
            ("--max-message", "9999999", "at most 520192"),
            ("--max-connections", "-5", "a whole number above 0"),
        ):
            said = self.said(f"{option}={value}")
            self.assertIn(rule, said)
            self.assertNotRegex(said, r"invalid literal|int\(\)|argument|enforcement")

    def test_a_wrong_endpoint_is_explained(self) -> None:
        """Whatever the reason, without Python's words for it."""
        for value in self.WRONG["--listen"]:
            self.assertNotRegex(
                self.said(f"--listen={value}"), r"invalid literal|int\(\)|__init__|unpack|_parse"
            )

    def test_an_unknown_option_is_named(self) -> None:
        """As is an argument that has no place."""
        self.assertIn("--bogus", self.said("--bogus"))
        self.assertRaises(UsageError, parsed, "extra")

    def said(self, *arguments: str) -> str:
        """What is said of ``arguments``."""
        with self.assertRaises(UsageError) as caught:
            parsed(*arguments)
        return str(caught.exception)


class Help(SynchronousTestCase):
    """`twistd chat --help`."""

    def setUp(self) -> None:
        """Ask for it."""
        output = io.StringIO()
        with contextlib.redirect_stdout(output), self.assertRaises(SystemExit) as ended:
            parsed("--help")
        self.assertIn(ended.exception.code, (0, None))
        self.text = output.getvalue()

    def test_every_option_is_explained(self) -> None:
        """By at least a few words."""
        explained = dict(
            re.findall(r"^ {2}(?:-\w, | {4})--([a-z-]+)=?  +(\S.*)$", self.text, re.MULTILINE)
        )
        for option in (
            "port",
            "listen",
            "store",
            "durability",
            "retention",
            "quota",
            "max-message",
            "max-outbox",
            "max-connections",
        ):
            self.assertRegex(explained.get(option, ""), r"\w+ \w+ \w+", option)

    def test_defaults_are_shown(self) -> None:
        """As they would be typed."""
        joined = " ".join(self.text.split())
        for default in ("3030", "sqlite:chat.sqlite", "full", "30d", "10000", "65536"):
            self.assertIn(f"[default: {default}]", joined)

    def test_it_reads_well(self) -> None:
        """No holes in the middle of a sentence."""
        for line in self.text.splitlines():
            self.assertNotRegex(re.sub(r"^ *(?:-\w, )?(?:--\S+)? *", "", line), r"\S {2,}\S", line)

    def test_it_says_what_this_is_and_how_to_try_it(self) -> None:
        """With an address that can be copied."""
        self.assertIn("websocat ws://127.0.0.1:3030/ws", " ".join(self.text.split()))


class AnyValue(SynchronousTestCase):
    """Whatever is typed, it is a value or an explanation."""

    KINDS: ClassVar[dict[str, Callable[[str], Any]]] = {
        "seconds": tap.seconds,
        "count": tap.count,
        "port": tap.port,
        "message_size": tap.message_size,
        "memory_size": lambda text: tap.place(f"memory:{text.removeprefix('memory:')}"),
    }

    @settings(deadline=None, database=None, max_examples=300)
    @given(
        st.sampled_from(sorted(KINDS)),
        st.text(max_size=20)
        | st.from_regex(r"\A(memory:)?[0-9]{1,400}[smhd]?\Z")
        | st.from_regex(r"\A(memory:)?[-+ ]?\d{1,5}[smhd.]?\Z"),
    )
    def test_it_is_a_number_above_nothing_or_a_value_error(self, kind: str, text: str) -> None:
        """A port may be 0."""
        try:
            value = self.KINDS[kind](text)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertGreater(value, -1 if kind == "port" else 0)
            self.assertLess(value, float("inf"))

    @settings(deadline=None, database=None, max_examples=100)
    @given(st.text(max_size=30).filter(lambda text: "\0" not in text))
    def test_an_endpoint_is_taken_or_refused(self, text: str) -> None:
        """A description that Twisted cannot read is a usage error."""
        with contextlib.suppress(UsageError):
            self.assertEqual(parsed("--listen", text)["endpoints"][0][0], text)


class TheServer(SynchronousTestCase):
    """What is made of the options."""

    def test_each_option_arrives(self) -> None:
        """At the part that heeds it, and in what clients are told."""
        service = tap.makeService(
            parsed(
                *("--max-message", "1000", "--max-connections", "7", "--quota", "5"),
                *("--max-outbox", "2000000"),
                *("--retention", "90s", "--store", "memory:3", "--port", "0"),
            )
        )
        factory = service.factory
        self.assertEqual((factory.options.max_message, factory.options.max_connections), (1000, 7))
        self.assertEqual(factory.options.max_outbox, 2_000_000)
        self.assertEqual(
            {name: factory.limits[name] for name in ("max_message", "quota", "retention")},
            {"max_message": 1000, "quota": 5, "retention": 90},
        )
        store = factory.state.store
        assert isinstance(store, MemoryStore)
        self.assertEqual((store._rules._quota, store._retention), (5, 90))
        self.assertEqual(store._max_bytes, 3 * 1024 * 1024)

    def test_names_are_believed_on_this_machine_only(self) -> None:
        """The hosts that are answered, the pages that may connect."""
        options = tap.makeService(parsed()).factory.options
        self.assertEqual(options.hosts, frozenset({"localhost", "127.0.0.1", "[::1]"}))
        self.assertEqual(
            set(options.origins),
            {f"{s}://{h}:*" for s in ("http", "https") for h in options.hosts or ()},
        )

    def test_messages_are_compressed_unless_told_otherwise(self) -> None:
        """Where a client offers it."""
        for arguments, compression in (((), True), (("--no-compression",), False)):
            options = tap.makeService(parsed(*arguments)).factory.options
            self.assertEqual(options.compression, compression)

    def test_each_start_is_a_new_log(self) -> None:
        """What is kept in memory is gone, and its epoch says so."""
        epochs = {
            tap.makeService(parsed("--store", "memory:")).factory.state.store.epoch
            for _ in range(5)
        }
        self.assertEqual(len(epochs), 5)

    def test_making_it_listens_to_nothing(self) -> None:
        """That is for the start."""
        service = tap.makeService(parsed())
        self.assertEqual((service.ports, service.running), ([], 0))

    def test_chat_tac_is_the_same_service(self) -> None:
        """With the defaults, whatever the command line of twistd holds."""
        text = CHAT_TAC.read_text(encoding="utf-8")
        self.assertIn("makeService", text)
        self.assertIn("parseOptions([])", text)
