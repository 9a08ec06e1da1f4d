"""What the operating system is asked, and when: an ``ok`` leaves after its batch is on the disk.

The real server runs under ``strace``, which writes down its system calls in their order, those of
the thread that writes the log and those of the one that has the sockets.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple
from unittest import SkipTest, TestCase

from tests.caller import Caller
from tests.server import Server, until

CALLS = "openat,pwrite64,write,writev,fdatasync,fsync,sendto,sendmsg"
LOG = "chat.sqlite-wal"

_LINE = re.compile(r"(\d+) +(?:<\.\.\. )?(\w+)(?:\((\d+)(?:<([^>]*)>)?| resumed>)")
_FAILED = re.compile(r"\) += -1 ")
_MARK = re.compile(r"<<(\d+)>>")
_OK = re.compile(r'\\"event\\":\\"ok\\",\\"id\\":(\d+)')


class Event(NamedTuple):
    """A step of the server: ``write`` and ``sync`` of the log, or ``ok`` to a client.

    ``began`` and ``ended`` are its places in the trace. ``numbers`` are those of the messages that
    are in what was written, or that are acknowledged.
    """

    kind: str
    began: int
    ended: int
    numbers: frozenset[int]


def events(trace: str) -> list[Event]:
    """What a trace tells, in the order in which it began; failed calls count for nothing."""
    found: list[Event] = []
    open_calls: dict[str, tuple[int, str]] = {}
    for place, line in enumerate(trace.splitlines()):
        thread = line.partition(" ")[0]
        if line.endswith("<unfinished ...>"):
            open_calls[thread] = (place, line)
            continue
        began, text = place, line
        if " resumed>" in line:
            began, text = open_calls.pop(thread)
        call = _LINE.match(text)
        if call is None or _FAILED.search(line):
            continue
        name, target = call[2], call[4] or ""
        if name == "pwrite64" and target.endswith(LOG):
            found.append(Event("write", began, place, _numbers(_MARK, text)))
        elif name in ("fdatasync", "fsync") and target.endswith(LOG):
            found.append(Event("sync", began, place, frozenset()))
        elif name.startswith(("send", "write")) and _OK.search(text):
            found.append(Event("ok", began, place, _numbers(_OK, text)))
    return sorted(found, key=lambda event: event.began)


def _numbers(pattern: re.Pattern[str], text: str) -> frozenset[int]:
    return frozenset(int(number) for number in pattern.findall(text))


class Tracing(TestCase):
    """A server whose system calls are written down."""

    durability = "full"

    @classmethod
    def setUpClass(cls) -> None:
        """It takes ``strace``."""
        if shutil.which("strace") is None:
            raise SkipTest("there is no strace here")

    def setUp(self) -> None:
        """Start a server."""
        directory = Path(self.enterContext(TemporaryDirectory(prefix="chatsvc-")))
        self._trace = directory / "trace"
        strace = f"strace -D -f -y -s 70000 -e trace={CALLS} -o {self._trace}".split()
        options = ("--durability", self.durability)
        self.server = self.enterContext(Server(*options, under=strace))
        self.assertIn(f"(durability {self.durability})", self.server.log)

    def stop(self) -> list[Event]:
        """End the server; what it did."""
        end = re.compile(rf"^{self.server.pid} +\+\+\+ ", re.MULTILINE)
        self.server.stop()
        until(lambda: end.search(self._text) is not None, "the trace is whole")
        return events(self._text)

    @property
    def _text(self) -> str:
        return self._trace.read_text(encoding="ascii")

    def send_one_by_one(self, count: int) -> None:
        """Send messages, each when the one before is acknowledged."""
        with Caller(self.server.url, "ann") as caller:
            for number in range(count):
                reply = caller.ask(id=number, to="ben", msg=f"<<{number}>>")
                self.assertEqual(reply["event"], "ok")

    def send_at_once(self, clients: int, each: int) -> None:
        """Send messages over many connections, and wait for no answer before all are sent."""
        callers = [self.enterContext(Caller(self.server.url, f"u{n}")) for n in range(clients)]
        for number in range(clients * each):
            callers[number % clients].say(id=number, to="ben", msg=f"<<{number}>>")
        for caller in callers:
            for _ in range(each):
                self.assertEqual(caller.take()["event"], "ok")


def first_written(found: list[Event]) -> Iterator[tuple[int, Event, Event]]:
    """Each message with the write that first had it, and the ``ok`` for it."""
    written: dict[int, Event] = {}
    for event in found:
        for number in event.numbers:
            if event.kind == "write":
                written.setdefault(number, event)
            else:
                yield number, written[number], event


class Full(Tracing):
    """As it is when nothing else is asked for."""

    def test_an_ok_leaves_after_the_sync_that_follows_the_last_write(self) -> None:
        """One message at a time: written, then synced, then acknowledged, and nothing between."""
        self.send_one_by_one(20)
        found = self.stop()
        oks = [event for event in found if event.kind == "ok"]
        self.assertEqual([set(ok.numbers) for ok in oks], [{number} for number in range(20)])
        begin = 0
        for ok in oks:
            before = [event for event in found if begin < event.began < ok.began]
            writes = [event for event in before if event.kind == "write"]
            self.assertTrue(any(ok.numbers & write.numbers for write in writes))
            synced = before[-1]
            self.assertEqual(synced.kind, "sync")
            self.assertGreater(synced.began, max(write.ended for write in writes))
            self.assertLess(synced.ended, ok.began)
            begin = ok.began

    def test_each_of_a_thousand_at_once_is_synced_first_by_far_fewer_syncs(self) -> None:
        """What comes while a batch is being committed makes the next."""
        self.send_at_once(20, 50)
        found = self.stop()
        syncs = [event for event in found if event.kind == "sync"]
        acknowledged = set()
        for number, write, ok in first_written(found):
            sync = next(sync for sync in syncs if sync.began > write.ended)
            self.assertLess(sync.ended, ok.began)
            acknowledged.add(number)
        self.assertEqual(acknowledged, set(range(1000)))
        self.assertLess(len(syncs), 500)


class Normal(Tracing):
    """``--durability normal``: the disk is not waited for."""

    durability = "normal"

    def test_nothing_is_synced_between_a_write_and_its_ok(self) -> None:
        """What was written is with the operating system, and outlives the process alone."""
        self.send_one_by_one(20)
        found = self.stop()
        acknowledged = set()
        for number, write, ok in first_written(found):
            between = [each for each in found if write.began < each.began < ok.began]
            self.assertNotIn("sync", [event.kind for event in between])
            acknowledged.add(number)
        self.assertEqual(acknowledged, set(range(20)))
