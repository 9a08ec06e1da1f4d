"""A disk that fails anywhere, and a power cut at any moment: what was acknowledged is kept.

A scripted day of a store is played over a disk that fails at the n-th thing done to it, once or
from then on until it is healed, for every n. What must be in the file then is what a day brings in
which nothing failed and the refused commands were never given.

The disk is harsher than real ones: what SQLite passes over in silence, such as a checkpoint that
fails after a commit, reaches the store as an error too. So a commit may be done though it seems to
have failed, and the store must stand that.
"""

from __future__ import annotations

import functools
import itertools
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import apsw
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, Receipt
from chatsvc.store.sqlite import SqliteStore
from chatsvc.store.sqlite.file import Durability, LogFile, Unusable
from chatsvc.store.sqlite.schema import MIGRATIONS
from tests.fakes import ClockLane, make_clock
from tests.faulty_vfs import Disk, Platter, contents, put
from tests.store_suite.driver import group, to, topic

OFTEN, NEVER = 12, 1000
"""Pages after which the write-ahead log is brought into the file, in so short a day."""
RETENTION = 1000.0
RENAMED = (
    """
    ALTER TABLE users ADD COLUMN colour TEXT;
    UPDATE entries SET sender = upper(sender);
    CREATE TABLE places (seq INTEGER PRIMARY KEY) STRICT;
    INSERT INTO places SELECT seq FROM entries;
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
        self.store = SqliteStore(file, self.clock, lane, lane, retention=RETENTION, quota=100)

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
        called: Deferred[Any] = getattr(self.store, ask.method)(*ask.arguments)
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


class AFailingDisk(DayCase):
    """Whatever fails, and whenever: no false `ok`, no lost one, and a sound file.

    All of the log is announced, in order, also what was committed though it was refused.
    """

    def run_all(self, step: int = 1, *, read: bool = False, broken: int = 1, **how: Any) -> None:
        """Play days in which the first operation fails, or another one, up to the last."""
        for number in itertools.count(1, step):
            day = self.started()
            day.disk.fail(number, **how)
            day.play(read=read, broken=broken)
            if not day.disk.failures:
                self.assertGreater(number, 150)
                day.stop()
                return
            self._check(day, number, how)

    def _check(self, day: Day, number: int, how: object) -> None:
        try:
            self.check(day)
        except BaseException as error:
            error.add_note(f"when operation {number} failed: {how}")
            raise
        self.clear()

    def test_it_fails_once(self) -> None:
        """At each operation in turn."""
        self.run_all()

    def test_it_fails_once_while_others_read(self) -> None:
        """Connections that read keep open what the one that writes opens anew."""
        self.run_all(read=True, error=apsw.FullError, short=True)

    def test_it_stays_broken(self) -> None:
        """Until it is healed, one batch later."""
        self.run_all(lasting=True, short=True)

    def test_it_stays_full_while_others_read(self) -> None:
        """They are served, and writing goes on when there is room."""
        self.run_all(2, read=True, lasting=True, error=apsw.FullError)

    def test_it_stays_broken_for_long(self) -> None:
        """Several batches are refused."""
        self.run_all(3, lasting=True, broken=3)

    def test_it_can_be_neither_written_nor_read(self) -> None:
        """Nothing at all is served, until it is healed."""
        self.run_all(3, lasting=True, blind=True, broken=2)

    def test_it_cannot_be_read(self) -> None:
        """From any read of a day on, for one batch, those of the one that writes included."""
        for number in itertools.count(1):
            day = self.started()
            day.disk.fail_reads(number)
            day.play(read=True)
            if not day.disk.failures:
                self.assertGreater(number, 20)
                day.stop()
                return
            self._check(day, number, "reads")

    def test_it_breaks_after_a_commit_and_once_more_when_it_is_healed(self) -> None:
        """What was committed though it was refused is announced, however often it must be read."""
        for number, read in itertools.product(range(2, 120, 8), range(1, 12)):
            day = self.started()
            day.disk.fail(number, lasting=True, blind=True)
            day.take(0.0, [(0, index) for index in range(5)])
            day.take(0.0, [(1, index) for index in range(4)])
            day.disk.heal()
            day.disk.fail_reads(read, lasting=False)
            day.take(0.0, [(2, 0)])
            day.take(0.0, [(3, 0)])
            there = [seq for seq, *_ in self.killed(day)["entries"]]
            told = [entry.seq for entry in day.announced]
            self.assertEqual(sorted(told), sorted(there), (number, read))
            self.assertEqual(told, sorted(told))
            day.stop()
            self.clear()

    def test_who_reads_is_told_and_served_again(self) -> None:
        """Whichever read fails, `unavailable` and nothing else; afterwards it is as before."""
        asks = (
            Ask("history", ("alice", to("bob"), None, None, 50)),
            Ask("feed", ("carol", 0, 0, [], 50)),
            Ask("members", ("carol", "devs", None, 50)),
        )
        for ask in asks:
            for number in itertools.count(1):
                if not self.reads_failed(ask, number):
                    self.assertGreater(number, 3)
                    break

    def reads_failed(self, ask: Ask, number: int) -> int:
        """How many reads failed, when all do from the ``number``-th on, for this command."""
        day = self.started()
        day.play()
        day.disk.fail_reads(number)
        result = day.ask(ask)
        failed = day.disk.failures
        day.disk.heal()
        expected = day.ask(ask)
        self.assertNotIsInstance(expected, Failure | Code)
        self.assertEqual(result, Code.UNAVAILABLE if failed else expected)
        self.assertIsInstance(day.ask(send("alice", to("bob"))), Receipt)
        day.stop()
        self.clear()
        return failed


class APowerCut(DayCase):
    """At any moment, with any part of what was not synced on the disk."""

    def recorded(self, durability: Durability) -> tuple[Day, Platter, list[Tables]]:
        """A day, the disk as it was before, and what was in the file before and after each step."""
        day = self.started(durability=durability)
        platter = Platter(contents(day.directory, "log"))
        states = [self.killed(day)]
        day.after_step = lambda: states.append(self.killed(day))
        day.play()
        self.assertEqual(day.disk.count, len(day.disk.operations))
        return day, platter, states

    def opened(self, files: dict[str, bytes], *, boot: str | None = None) -> Tables:
        """What is in the file once the next server has opened it, perhaps in another boot."""
        directory = self.place(files)
        if boot is not None:
            connection = apsw.Connection(str(directory / "log"), vfs=self.sound.name)
            connection.execute("UPDATE log SET boot = ? WHERE boot IS NOT NULL", (boot,))
            connection.close()
        file = LogFile(directory / "log", new_epoch=lambda: "epoch-2", vfs=self.sound.name)
        file.open()
        file.close()
        return self.tables(contents(directory, "log"))

    def test_the_platter_knows_the_files(self) -> None:
        """What the operations make of them is what they are."""
        day, platter, _ = self.recorded("full")
        platter.do(day.disk.operations)
        self.assertEqual(platter.after_kill(), contents(day.directory, "log"))
        day.stop()

    def test_what_was_acknowledged_is_there(self) -> None:
        """And of what was under way all or nothing; the log keeps its name."""
        day, platter, states = self.recorded("full")
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            for random in (None, Random(number)):
                found = self.opened(platter.after_cut(random))
                self.check_one_of(found, states[answered : answered + 2], number)
            self.clear()
        day.directory.mkdir(parents=True)
        day.stop()

    def test_without_a_sync_the_end_may_be_gone_and_the_log_has_another_name(self) -> None:
        """With durability "normal" the beginning of the log is there, and it is a new epoch."""
        day, platter, states = self.recorded("normal")
        lost = 0
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            for random in (None, Random(number)):
                found = self.opened(platter.after_cut(random), boot="an earlier one")
                self.assertEqual(found["log"][0][1], "epoch-2")
                where = self.where(found, states)
                self.assertLessEqual(where, answered + 1)
                lost += where < answered
            self.clear()
        self.assertGreater(lost, 0)
        day.directory.mkdir(parents=True)
        day.stop()

    def where(self, found: Tables, states: list[Tables]) -> int:
        """After which step a file is as it is found, whatever the log is called."""
        for number, state in reversed(list(enumerate(states))):
            (_, _, *rest, _), (_, _, *known, _) = found["log"][0], state["log"][0]
            if {**found, "log": rest} == {**state, "log": known}:
                return number
        self.fail("it is as it never was")
        return -1

    def test_a_killed_process_loses_nothing_without_a_sync(self) -> None:
        """With durability "normal" too all is there, and in the same boot it is the same log."""
        day, platter, states = self.recorded("normal")
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            answered = bisect_right(day.answered, number)
            found = self.opened(platter.after_kill())
            self.assertEqual(found["log"][0][1], "epoch-1")
            self.assertIn(self.where(found, states), (answered, answered + 1))
            self.clear()
        day.directory.mkdir(parents=True)
        day.stop()

    def test_a_system_may_forget_what_it_could_not_sync(self) -> None:
        """Then the next sync says nothing of it; what is acknowledged after that is kept."""
        day = self.started(checkpoint=NEVER)
        day.play()
        syncs = [n for n, op in enumerate(day.disk.operations, 1) if op.kind == "sync"]
        self.assertGreater(len(syncs), len(DAY))
        day.stop()
        for number, lasting in itertools.product(syncs, (False, True)):
            day = self.started(checkpoint=NEVER)
            platter = Platter(contents(day.directory, "log"), forgetful=True)
            day.after_step = functools.partial(self.check_acknowledged, day, platter, number)
            day.disk.fail(number, lasting=lasting)
            day.play()
            day.stop()
            self.clear()

    def check_acknowledged(self, day: Day, platter: Platter, number: int) -> None:
        """Check that all that was acknowledged so far is there after a power cut now."""
        platter.do(day.disk.operations)
        day.disk.operations.clear()
        found = self.opened(platter.after_cut())
        floor = found["log"][0][3]
        there = {seq for seq, *_ in found["entries"]}
        for place, result in day.results.items():
            if isinstance(result, Receipt) and result.seq > floor:
                self.assertIn(result.seq, there, f"{place}, when sync {number} failed")


class FailingToStart(DayCase):
    """A disk that fails, or loses its power, while the file is made or migrated."""

    def begin(self, day: Day) -> None:
        """Start a store, which works or says why not."""
        result = day.start()
        if result is not None:
            self.assertIsInstance(result.value, Unusable)
            self.assertGreater(day.disk.failures, 0)
            day.disk.heal()
            day.disk.unregister()
            return
        day.stop()

    def check_start(self, directory: Path) -> None:
        """A store starts in this directory, empty, and works."""
        day = Day(directory, epoch="epoch-2")
        self.assertIsNone(day.start())
        self.assertEqual(day.ask(FIRST).seq, 1)
        self.assertIn(day.store.epoch, ("epoch-1", "epoch-2"))
        day.stop()
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_a_new_file(self) -> None:
        """It says what is wrong; the next start makes it, or finds it made."""
        for how in ({}, {"lasting": True, "error": apsw.FullError}, {"short": True}):
            for number in itertools.count(1):
                day = Day(self.place())
                day.disk.fail(number, **how)
                self.begin(day)
                self.check_start(day.directory)
                if not day.disk.failures:
                    self.assertGreater(number, 50)
                    break

    def test_a_file_that_cannot_be_read(self) -> None:
        """Whichever read fails."""
        day = self.started()
        day.stop()
        for number in itertools.count(1):
            again = Day(self.place(contents(day.directory, "log")))
            again.disk.fail_reads(number)
            self.begin(again)
            self.check_start(again.directory)
            if not again.disk.failures:
                self.assertGreater(number, 3)
                return

    def test_a_new_file_and_a_power_cut(self) -> None:
        """It is opened well, or made anew."""
        day = Day(self.place())
        self.assertIsNone(day.start())
        platter = Platter({"log": b""})
        for number, operation in enumerate(day.disk.operations, 1):
            platter.do([operation])
            for random in (None, Random(number)):
                self.check_start(self.place(platter.after_cut(random)))
        day.stop()

    def migrate(self, directory: Path, disk: Disk) -> None:
        """Open a file with one migration more."""
        file = LogFile(
            directory / "log",
            new_epoch=lambda: "epoch-2",
            migrations=MIGRATIONS + RENAMED,
            vfs=disk.name,
        )
        file.open()
        file.close()

    def migrated(self) -> tuple[dict[str, bytes], Disk, list[Tables]]:
        """An old file, the disk that it was migrated on, and what is in it before and after."""
        day = self.started()
        day.play()
        day.stop()
        old = contents(day.directory, "log")
        disk = Disk()
        self.addCleanup(disk.unregister)
        directory = self.place(old)
        self.migrate(directory, disk)
        return old, disk, [self.tables(old), self.tables(contents(directory, "log"))]

    def test_a_migration(self) -> None:
        """It says what is wrong, and leaves the old file or the new one; the next start goes on."""
        old, disk, states = self.migrated()
        self.assertNotEqual(*states)
        failed = 0
        for number, lasting in itertools.product(range(1, disk.count + 1), (False, True)):
            directory = self.place(old)
            faulty = Disk()
            faulty.fail(number, lasting=lasting, short=lasting)
            try:
                self.migrate(directory, faulty)
            except Unusable:
                failed += 1
            faulty.unregister()
            self.check_one_of(self.tables(contents(directory, "log")), states, number)
            self.migrate(directory, self.sound)
            self.assertEqual(self.tables(contents(directory, "log")), states[1])
        self.assertGreater(failed, disk.count)

    def test_a_migration_and_a_power_cut(self) -> None:
        """The old file is there, or the new one."""
        old, disk, states = self.migrated()
        platter = Platter(old)
        for number, operation in enumerate(disk.operations, 1):
            platter.do([operation])
            for random in (None, Random(number)):
                directory = self.place(platter.after_cut(random))
                self.check_one_of(self.tables(contents(directory, "log")), states, number)
                self.migrate(directory, self.sound)
                self.assertEqual(self.tables(contents(directory, "log")), states[1])
