"""A scripted day of a store, over a disk that may fail, and what must be in the file then."""

from __future__ import annotations

import functools
import itertools
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import apsw
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append
from chatsvc.store.sqlite import SqliteStore
from chatsvc.store.sqlite.file import Durability, LogFile
from tests.fakes import ClockLane, appended, make_clock
from tests.faulty_vfs import Disk, contents, put
from tests.store_suite.driver import group, to, topic

OFTEN, NEVER = 12, 1000
"""Pages after which the write-ahead log is brought into the file, in so short a day."""
UNPLACED = 4
"""Entries that get their places at once, as seldom as in a long day."""
RETENTION = 1000.0
RENAMED = (
    """
    ALTER TABLE users ADD COLUMN colour TEXT;
    UPDATE entries SET sender = upper(sender);
    CREATE TABLE heights (seq INTEGER PRIMARY KEY) STRICT;
    INSERT INTO heights SELECT seq FROM entries;
    """,
)
"""A migration that changes much."""

Place = tuple[int, int]
"""A command of the day: its step, and its number in it."""
Tables = dict[str, list[Any]]


class Ask(NamedTuple):
    """A command: a method of the store, and what it is given."""

    method: str
    arguments: tuple[Any, ...]

    @property
    def optional(self) -> bool:
        """Whether it may be answered although nothing can be written."""
        return self.method in ("admit", "start_for")


class Step(NamedTuple):
    """Commands that come in one turn, and so in one batch, after some seconds."""

    asks: Sequence[Ask] = ()
    pause: float = 0.0


_keys = (f"key-{number}" for number in itertools.count())


def append(op: Any, user: str, address: Address, **content: Any) -> Ask:
    """Something to be added to the log, with a key."""
    key = next(_keys)
    command = Append(op=op, user=user, address=address, key=key, digest=key.encode(), **content)
    return Ask("append", (command,))


def send(user: str, address: Address, msg: str | None = "hi", **content: Any) -> Ask:
    """A message."""
    return append("send", user, address, msg=msg, **content)


FIRST = send("alice", to("bob"), "first")

DAY = (
    Step(
        (
            append("join", "alice", group("devs")),
            append("join", "bob", group("devs")),
            Ask("subscribe", ("carol", "a/+")),
            Ask("admit", ("bob",)),
            FIRST,
        )
    ),
    Step(
        (
            send("alice", to("dave")),
            send("bob", group("devs"), None, data=b'{"a":[1,2.50]}'),
            send("carol", topic("a/b"), "kept", retain=True),
            send("carol", topic("a/c"), "kept", retain=True),
        )
    ),
    Step((Ask("start_for", ("bob", "phone", None)),)),
    Step((send("bob", to("alice"), "x" * 9000), FIRST), 5.0),
    Step(
        (
            Ask("save_positions", ({("bob", "phone"): 3, ("alice", None): 2},)),
            append("join", "carol", group("devs")),
            append("leave", "bob", group("devs")),
            send("alice", group("devs"), reply_to=5),
        )
    ),
    Step(
        (
            send("bob", topic("a/b"), "", retain=True),
            Ask("unsubscribe", ("carol", "a/+")),
            Ask("subscribe", ("carol", "a/#")),
            Ask("admit", ("erin",)),
            append("leave", "alice", group("devs")),
        ),
        5.0,
    ),
    Step((), RETENTION - 8.0),
    Step((send("carol", group("devs")), send("carol", topic("a/b"), "y" * 5000)), 0.5),
    Step((send("alice", to("carol")), append("create", "alice", group("ops")))),
)
"""Something of everything; in the long pause what was sent before the short ones expires."""


class DayFile(LogFile):
    """A file with a small write-ahead log."""

    checkpoint = OFTEN

    def connect(self) -> apsw.Connection:
        """The connection that writes."""
        connection = super().connect()
        connection.pragma("wal_autocheckpoint", self.checkpoint)
        return connection


class Day:
    """A store on a disk, and what came of the commands it was given."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability = "full",
        epoch: str = "epoch-1",
        checkpoint: int = OFTEN,
    ) -> None:
        self.disk = Disk()
        self.clock = make_clock()
        self.directory = directory
        self.announced: list[Entry] = []
        self.results: dict[Place, Any] = {}
        self.failed_during: set[Place] = set()
        self.first_failed: set[Place] = set()
        self.has_failed = False
        self.answered: list[int] = []
        self.after_step: Callable[[], object] = lambda: None
        lane = ClockLane(self.clock)
        file = DayFile(
            directory / "log",
            new_epoch=lambda: epoch,
            vfs=self.disk.name,
            durability=durability,
        )
        file.checkpoint = checkpoint
        self.store = SqliteStore(
            file, self.clock, lane, lane, retention=RETENTION, quota=100, unplaced=UNPLACED
        )

    def start(self) -> Any:
        """Start the store; what came of that."""
        results: list[Any] = []
        self.store.start(self.announced.append).addBoth(results.append)
        return results[0]

    def stop(self) -> None:
        """Stop the store as it should be, and let go of the disk."""
        self.disk.heal()
        self.store.stop()
        self.clock.advance(0)
        self.disk.unregister()

    def play(
        self, *, without: frozenset[Place] = frozenset(), read: bool = False, broken: int = 1
    ) -> None:
        """Give all commands but some; a disk that stays broken is healed after so many steps."""
        steps_broken = 0
        for number, step in enumerate(DAY):
            if steps_broken == broken:
                self.disk.heal()
            places = [(number, index) for index in range(len(step.asks))]
            self.take(step.pause, [place for place in places if place not in without])
            steps_broken += self.disk.broken
            if read:
                self.ask(Ask("history", ("alice", to("bob"), None, None, 50)))
            self.answered.append(len(self.disk.operations))
            self.after_step()
        self.disk.heal()
        for _ in range(2):
            self.clock.advance(1.0)  # what could not expire before

    def take(self, pause: float, places: Sequence[Place]) -> None:
        """Give commands in one turn, and wait for their answers."""
        before = self.disk.failures
        self.clock.advance(pause)
        for step, index in places:
            answer = functools.partial(self.results.__setitem__, (step, index))
            self._call(DAY[step].asks[index]).addBoth(answer)
        self.clock.advance(0)
        if self.disk.failures > before:
            if not self.has_failed:
                self.first_failed.update(places)
            self.has_failed = True
            self.failed_during.update(places)

    def ask(self, ask: Ask) -> Any:
        """Give one command; its answer, or why it was refused."""
        results: list[Any] = []
        self._call(ask).addBoth(results.append)
        self.clock.advance(0)
        return results[0]

    def _call(self, ask: Ask) -> Deferred[Any]:
        called: Deferred[Any]
        if ask.method == "append":
            called = appended(self.store.append, *ask.arguments)
        else:
            called = getattr(self.store, ask.method)(*ask.arguments)
        return called.addErrback(refusal)

    def retry(self, places: Iterable[Place]) -> list[Any]:
        """Give those that have a key once more; what comes of it."""
        asks = [DAY[step].asks[index] for step, index in places]
        return [self.ask(ask) for ask in asks if ask.method == "append"]

    @property
    def refused(self) -> frozenset[Place]:
        """The commands that need not have left a trace."""
        return frozenset(
            place
            for place, result in self.results.items()
            if result is Code.UNAVAILABLE
            or (DAY[place[0]].asks[place[1]].optional and place in self.failed_during)
        )


def refusal(failure: Failure) -> Code:
    """Why a command was refused; any other failure is passed on."""
    failure.trap(Refused)
    refused = failure.value
    return refused.code if isinstance(refused, Refused) else Code.INTERNAL


class Expected(NamedTuple):
    """What a day without failures brings: announcements, results, tables before and after."""

    announced: list[Entry]
    results: dict[Place, Any]
    tables: Tables
    retried: list[Any]
    tables_after: Tables


class DayCase(SynchronousTestCase):
    """A test that plays days."""

    def setUp(self) -> None:
        """Nothing has been played yet."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.numbers = itertools.count()
        self.expected = functools.cache(self._expected)
        self.sound = Disk()
        self.addCleanup(self.sound.unregister)

    def place(self, files: dict[str, bytes] | None = None) -> Path:
        """A new directory, with these files."""
        directory = self.directory / str(next(self.numbers))
        put(files or {}, directory)
        return directory

    def clear(self) -> None:
        """Remove all files."""
        shutil.rmtree(self.directory)
        self.directory.mkdir()

    def started(self, **how: Any) -> Day:
        """A day that is about to begin."""
        day = Day(self.place(), **how)
        self.assertIsNone(day.start())
        day.disk.count_anew()
        return day

    def tables(self, files: dict[str, bytes]) -> Tables:
        """All that is in a file, which must be sound; it is opened as a new process would."""
        path = self.place(files) / "log"
        connection = apsw.Connection(str(path), vfs=self.sound.name)
        try:
            self.assertEqual(connection.pragma("integrity_check"), "ok")
            select = "SELECT name FROM sqlite_schema WHERE type = 'table'"
            names = [str(name) for (name,) in connection.execute(select)]
            found: Tables = {
                name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)
                for name in names
            }
            return {"": [connection.pragma("user_version")], **found}
        finally:
            connection.close()

    def check_one_of(self, found: Tables, states: Sequence[Tables], when: object = "") -> None:
        """Check that a file is as it may be; else tell in which tables it is not."""
        if found not in states:
            wrong = [{t for t in found if found[t] != state.get(t)} for state in states]
            self.fail(f"{when}: other rows than in each of the {len(states)} that may be: {wrong}")

    def killed(self, day: Day) -> Tables:
        """What is in the file of a day if the process is killed now."""
        return self.tables(contents(day.directory, "log"))

    def _expected(self, without: frozenset[Place], again: tuple[Place, ...]) -> Expected:
        day = self.started()
        day.play(without=without)
        before = self.killed(day)
        retried = day.retry(again)
        day.stop()
        return Expected(day.announced, day.results, before, retried, self.killed(day))

    def candidates(self, day: Day) -> list[Expected]:
        """What may have come of a day: what failed first may be done, as a whole, or not."""
        again = tuple(sorted(day.refused))
        withouts = (day.refused, day.refused - day.first_failed)
        return [self.expected(without, again) for without in withouts]

    def check(self, day: Day) -> None:
        """Check all that is promised, when the day is over and the disk is healed."""
        for result in day.results.values():
            self.assertNotIsInstance(result, Failure)
        candidates = self.candidates(day)
        found = self.killed(day)
        self.check_one_of(found, [each.tables for each in candidates])
        expected = next(each for each in candidates if each.tables == found)
        for place in expected.results.keys() - day.refused:
            self.assertEqual(day.results[place], expected.results[place])
        shown = [entry for entry in expected.announced if entry.seq <= day.store.head]
        self.assertEqual(day.announced, shown)
        retried = day.retry(sorted(day.refused))
        day.stop()
        after = self.killed(day)
        self.check_one_of(after, [each.tables_after for each in candidates])
        self.assertIn(retried, [each.retried for each in candidates if each.tables_after == after])
        self.assertEqual(self.flushLoggedErrors(), [])
