"""The one who writes: batches, what becomes of them when they fail, and what is counted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import apsw
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, DeviceKey, Receipt, Start, Store
from chatsvc.store.sqlite import MOST_BYTES, MOST_JOBS, SqliteStore
from chatsvc.store.sqlite.file import Durability, LogFile
from chatsvc.store.sqlite.records import load_group, load_user
from chatsvc.store.sqlite.writer import STATEMENTS, Job, Task, Writer
from tests.fakes import ClockLane, make_clock
from tests.faulty_vfs import Disk
from tests.store_suite.driver import StoreCase, group, seqs, to, topic
from tests.test_records import told_of_group, told_of_user

T = TypeVar("T")


def message(text: str = "hi") -> Append:
    """A message of alice's."""
    return Append(op="send", user="alice", address=topic("a"), msg=text)


class HandLane:
    """A lane whose work is done, and told, when the test says so."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], None]] = deque()

    def start(self) -> None:
        """Nothing to begin."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Have ``work`` wait."""
        answer: Deferred[T] = Deferred()
        self.waiting.append(lambda: answer.callback(work()))
        return answer

    def do(self) -> None:
        """Do the next, and tell what became of it."""
        self.waiting.popleft()()

    def stop(self) -> None:
        """Nothing to end."""


class GroupCommit(SynchronousTestCase):
    """What comes in while a batch is being committed is the next batch."""

    def setUp(self) -> None:
        """Start a store whose batches the test has committed."""
        self.clock = make_clock()
        self.lane = HandLane()
        self.told: list[Any] = []
        file = LogFile(Path(self.mktemp()), new_epoch=lambda: "e", durability="normal")
        reading = ClockLane(self.clock)
        self.store = SqliteStore(file, self.clock, self.lane, reading, retention=1e6, quota=10_000)
        self.successResultOf(self.store.start(self.hear))
        self.stopped = False
        self.addCleanup(self.finish)

    def finish(self) -> None:
        """Let the store stop, if it has not."""
        if not self.stopped:
            self.stop()
        while self.lane.waiting:
            self.lane.do()

    def stop(self) -> None:
        """Ask the store to stop."""
        self.stopped = True
        self.store.stop().addCallbacks(
            lambda _: self.told.append("stopped"), lambda failure: self.told.append(failure.value)
        )
        self.clock.advance(0)

    def hear(self, entry: Entry) -> None:
        """Note what is announced."""
        self.told.append(("announced", entry.seq))

    def fired(self, receipt: Receipt) -> None:
        """Note what is answered."""
        self.told.append(("fired", receipt.seq))

    def send(self, count: int = 1, text: str = "hi") -> None:
        """Give the store so many messages."""
        for _ in range(count):
            self.store.append(message(text)).addCallback(self.fired)
        self.clock.advance(0)

    def expected(self, first: int, last: int) -> list[tuple[str, int]]:
        """What is told of these messages."""
        return [(what, seq) for seq in range(first, last + 1) for what in ("announced", "fired")]

    def take(self) -> list[Any]:
        """What was told since the last time."""
        told, self.told = self.told, []
        return told

    def test_what_comes_in_one_turn_is_one_batch(self) -> None:
        """Nothing is told before it is committed; then all is, in the order of the log."""
        self.send(20)
        self.assertEqual((self.told, self.store.head, len(self.lane.waiting)), ([], 0, 1))
        self.lane.do()
        self.assertEqual(self.told, self.expected(1, 20))
        self.assertEqual(len(self.lane.waiting), 0)

    def test_what_comes_meanwhile_is_one_batch_too(self) -> None:
        """However many turns it took to come."""
        self.send()
        for _ in range(5):
            self.send(3)
        self.assertEqual(len(self.lane.waiting), 1)
        self.lane.do()
        self.assertEqual(self.take(), self.expected(1, 1))
        self.assertEqual(len(self.lane.waiting), 1)
        self.lane.do()
        self.assertEqual(self.take(), self.expected(2, 16))
        self.assertEqual(len(self.lane.waiting), 0)

    def test_the_next_begins_before_the_last_is_told(self) -> None:
        """The disk is not idle while clients are being told."""
        waiting: list[int] = []
        self.store._announce = lambda _: waiting.append(len(self.lane.waiting))
        self.send(2)
        self.send(2)
        self.lane.do()
        self.assertEqual(waiting, [1, 1])
        self.lane.do()
        self.assertEqual(waiting, [1, 1, 0, 0])

    def test_a_batch_has_so_many_jobs_at_most(self) -> None:
        """The rest is for the next ones, in order."""
        self.send(2 * MOST_JOBS + 5)
        for first, last in ((1, MOST_JOBS), (MOST_JOBS + 1, 2 * MOST_JOBS)):
            self.lane.do()
            self.assertEqual(self.take(), self.expected(first, last))
        self.lane.do()
        self.assertEqual(self.take(), self.expected(2 * MOST_JOBS + 1, 2 * MOST_JOBS + 5))

    def test_a_batch_brings_so_many_bytes_at_most(self) -> None:
        """It ends with the message by which it has them; one that is larger comes alone."""
        self.send(5, "x" * (MOST_BYTES // 2))
        for first, last in ((1, 2), (3, 4), (5, 5)):
            self.lane.do()
            self.assertEqual(self.take(), self.expected(first, last))
        self.send(2, "x" * (MOST_BYTES + 1))
        for seq in (6, 7):
            self.lane.do()
            self.assertEqual(self.take(), self.expected(seq, seq))

    def test_stopping_waits_for_all_that_was_accepted(self) -> None:
        """The batch under way, and those that wait behind it; only then it is told."""
        self.send()
        self.send(MOST_JOBS + 1)
        self.stop()
        for first, last in ((1, 1), (2, MOST_JOBS + 1)):
            self.lane.do()
            self.assertEqual(self.take(), self.expected(first, last))
        self.lane.do()
        self.assertEqual(self.take(), [*self.expected(MOST_JOBS + 2, MOST_JOBS + 2), "stopped"])

    def test_stopping_waits_for_what_an_answer_brings(self) -> None:
        """As when somebody answers while the last messages are told."""
        self.store.append(message()).addCallback(lambda _: self.send())
        self.stop()
        self.lane.do()
        self.clock.advance(0)
        self.assertEqual(self.take(), [("announced", 1)])
        self.lane.do()
        self.assertEqual(self.take(), [*self.expected(2, 2), "stopped"])

    def test_an_idle_store_stops_at_once(self) -> None:
        """And no timer is left."""
        self.stop()
        self.assertEqual(self.take(), ["stopped"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_may_be_asked_to_stop_twice(self) -> None:
        """While it has something to do, and when it has stopped."""
        self.send()
        self.stop()
        self.stop()
        self.assertEqual(self.take(), [])
        self.lane.do()
        self.assertEqual(self.take(), [*self.expected(1, 1), "stopped", "stopped"])
        self.stop()
        self.assertEqual(self.take(), ["stopped"])

    def test_what_is_told_may_bring_more(self) -> None:
        """From an answer, or while something is announced: it is done in a later batch."""
        self.store._announce = lambda entry: self.send() if entry.seq % 2 else None
        self.store.append(message()).addCallback(lambda _: self.send(2))
        self.clock.advance(0)
        while self.lane.waiting:
            self.lane.do()
        self.assertEqual(self.told, [("fired", seq) for seq in range(2, 7)])

    def test_a_refused_job_leaves_the_others_alone(self) -> None:
        """Those before and those after it are committed, and told in order."""
        wrong = Append(op="send", user="alice", address=group("devs"), msg="hi")
        for append in (message(), message(), wrong, message(), message()):
            self.store.append(append).addCallbacks(
                self.fired, lambda failure: self.told.append(failure.value.code)
            )
        self.clock.advance(0)
        self.lane.do()
        expected = [*self.expected(1, 2), Code.NOT_MEMBER, *self.expected(3, 4)]
        self.assertEqual(self.told, expected)


class FickleFile(LogFile):
    """A file whose writer finds the disk full at each commit, while ``full``."""

    full = False

    def connect(self) -> apsw.Connection:
        """Connect, to fail later."""
        connection = super().connect()
        connection.set_commit_hook(self._fail_if_full)
        return connection

    def _fail_if_full(self) -> bool:
        if self.full:
            raise apsw.FullError("database or disk is full")
        return False


@implementer(ILogObserver)
class Lines(list[str]):
    """What the store says in the log for people."""

    def __call__(self, event: LogEvent) -> None:
        """Keep it, if it is the store that says something."""
        if str(event.get("log_namespace")).startswith("chatsvc.store"):
            self.append(formatEvent(event))


class _OnAFickleDisk(StoreCase, SynchronousTestCase):
    """A store over a file that the test has fail, and what it says in the log for people."""

    file: FickleFile
    durability: Durability = "full"
    vfs: str | None = None

    def setUp(self) -> None:
        """Open the store, and listen."""
        super().setUp()
        self.lines = Lines()
        globalLogPublisher.addObserver(self.lines)
        self.addCleanup(globalLogPublisher.removeObserver, self.lines)

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store without threads."""
        self.file = FickleFile(
            Path(self.mktemp()), new_epoch=lambda: "e", durability=self.durability, vfs=self.vfs
        )
        lane = ClockLane(clock)
        return SqliteStore(self.file, clock, lane, lane, retention=retention, quota=quota)

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with, in this turn of the clock."""
        self.clock.advance(0)
        return super().result(deferred)

    def unavailable(self, *pending: Deferred[Any]) -> None:
        """Check that all of these are refused because nothing can be stored."""
        for deferred in pending:
            with self.assertRaises(Refused) as caught:
                self.result(deferred)
            self.assertEqual(caught.exception.code, Code.UNAVAILABLE)


class AFullDisk(_OnAFickleDisk):
    """Nothing can be written; what is stored can be read, and it goes on when there is room."""

    def setUp(self) -> None:
        """Have something stored, then no room."""
        super().setUp()
        self.admit("alice", "bob")
        self.join("devs", "alice", "bob")
        self.start_for("bob", "phone")
        self.kept = self.send("alice", to("bob"))
        self.file.full = True
        self.addCleanup(self.make_room)

    def make_room(self) -> None:
        """Let it be written again, so that the test can end."""
        self.file.full = False

    def fail_all(self) -> None:
        """Have all kinds of things refused."""
        store = self.store
        self.unavailable(
            *[
                store.append(append)
                for append in (
                    Append(op="send", user="alice", address=to("bob"), msg="x", key="k"),
                    Append(op="send", user="alice", address=to("zed"), msg="x"),
                    Append(op="send", user="alice", address=topic("a"), msg="x", retain=True),
                    Append(op="join", user="carol", address=group("devs")),
                    Append(op="leave", user="alice", address=group("devs")),
                    Append(op="create", user="bob", address=group("ops")),
                )
            ],
            store.subscribe("bob", "#"),
            store.unsubscribe("bob", "#"),
            store.save_positions({("bob", None): 3, ("bob", "phone"): 3}),
            store.mark_read("bob", to("alice"), self.kept),
            store.start_for("bob", "tablet", None),
        )

    def test_what_was_to_be_kept_is_refused(self) -> None:
        """All of it as `unavailable`, and nothing is announced."""
        announced = list(self.announced)
        for _ in range(3):
            self.fail_all()
        self.assertEqual((self.announced, self.store.head), (announced, self.kept))

    def test_people_can_come_and_read(self) -> None:
        """Whoever, on a device that is known; also beside what is refused, in one batch."""
        lost = self.store.append(message())
        standing = self.result(self.store.admit("bob"))
        self.assertEqual((standing.seq, standing.groups), (self.kept, {"devs": "member"}))
        self.unavailable(lost)
        self.assertEqual(self.result(self.store.admit("newcomer")).groups, {})
        self.assertEqual(self.start_for("bob"), Start(0, 0))
        self.assertEqual(self.start_for("bob", "phone"), Start(0, 0))
        self.assertEqual(self.start_for("newcomer"), Start(0, 0))
        self.assertEqual(len(self.feed("bob")), 2)
        self.assertEqual(seqs(self.history("bob", to("alice")).entries), [self.kept])
        self.assertEqual(self.roles("bob", "devs"), {"alice": "owner", "bob": "member"})

    def test_nothing_of_it_has_happened(self) -> None:
        """When there is room again: no entry, no membership, no filter, position, mark or key."""
        before = self.feed("bob")
        self.fail_all()
        self.file.full = False
        self.assertEqual(self.feed("bob"), before)
        self.assertEqual(self.roles("bob", "devs"), {"alice": "owner", "bob": "member"})
        self.assertEqual(self.result(self.store.admit("bob")).groups, {"devs": "member"})
        self.assertEqual(self.result(self.store.admit("bob")).filters, ())
        self.assertEqual(
            (self.start_for("bob").after, self.start_for("bob", "phone").after), (0, 0)
        )
        self.assertEqual(self.retained("#"), [])
        self.assertTrue(self.result(self.store.mark_read("bob", to("alice"), self.kept)))
        receipt = self.append("send", "alice", to("bob"), msg="y", key="k", digest=b"other")
        self.assertEqual(receipt, Receipt(self.kept + 1, receipt.ts))
        self.assertEqual(self.feed("bob"), [*before, self.announced[-1]])

    def test_it_is_said_once(self) -> None:
        """And once that it is over, however many batches were refused."""
        for _ in range(2):
            self.lines.clear()
            self.file.full = True
            for _ in range(5):
                self.fail_all()
            self.assertEqual(len(self.lines), 1)
            self.assertIn("the log cannot be written", self.lines[0])
            self.file.full = False
            self.send("alice", to("bob"))
            self.send("alice", to("bob"))
            self.assertEqual(self.lines[1:], ["the log can be written again"])

    def test_expiry_waits(self) -> None:
        """It goes on when there is room, and nothing has been lost meanwhile."""
        self.file.full = False
        self.open(retention=100)
        self.admit("bob")
        self.send("alice", to("bob"))
        self.file.full = True
        self.let_pass(200)
        self.assertEqual(len(self.feed("bob")), 1)
        self.file.full = False
        self.let_pass(2)
        self.assertEqual(self.feed("bob"), [])

    def check_stopping(self) -> None:
        """Stop the store; the file is let go of, and opens again."""
        self.file.full = True
        self.unavailable(self.store.append(message()))
        self.close()
        again = LogFile(self.file.path, new_epoch=lambda: "e")
        again.open()
        again.close()

    def test_it_can_be_stopped(self) -> None:
        """The file is let go of."""
        self.check_stopping()

    def test_it_can_be_stopped_in_normal_durability_too(self) -> None:
        """Though it cannot be noted that all is on the disk."""
        self.file.full = False
        self.durability = "normal"
        self.open()
        self.check_stopping()

    def test_a_file_that_cannot_grow_is_a_full_disk(self) -> None:
        """As SQLite itself finds it out, while it writes."""
        self.file.full = False
        assert isinstance(self.store, SqliteStore)
        connection = self.store._writer._connected()
        connection.pragma("max_page_count", connection.pragma("page_count"))
        large = Append(op="send", user="alice", address=to("bob"), msg="x" * 100_000)
        self.unavailable(self.store.append(large))
        self.assertEqual(self.send("alice", to("bob"), "x" * 100_000), self.kept + 1)


class AnythingElse(_OnAFickleDisk):
    """What else may go wrong in a batch."""

    def test_a_bug_in_one_job_is_logged_and_the_store_goes_on(self) -> None:
        """Its batch is refused as a whole, since it is not known how far it got."""
        assert isinstance(self.store, SqliteStore)

        def fail(_: object) -> None:
            raise RuntimeError("a bug")

        first = self.store.append(message())
        wrong = self.store._submit(Task(fail))
        last = self.store.append(message())
        self.unavailable(first, wrong, last)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.announced, [])
        self.assertEqual(self.send("alice", topic("a")), 1)

    def test_what_was_refused_does_not_come_back(self) -> None:
        """A batch that was written but not synced is none, also where nobody else reads."""
        disk = Disk()
        self.vfs = disk.name
        self.open()
        for _ in range(3):
            disk.count_anew()
            self.send("alice", topic("a"))
        self.assertEqual(disk.operations[-1].kind, "sync")
        disk.fail(disk.count, lasting=True)
        self.unavailable(self.store.append(message("refused")))
        self.assertGreater(disk.failures, 0)
        disk.heal()
        self.send("alice", topic("a"))
        self.assertEqual(seqs(self.announced), [1, 2, 3, 4])
        self.assertEqual(self.matching("a"), self.announced)


NAMES = ("alice", "bob", "carol")
TOPICS = ("a", "b")
names = st.sampled_from(NAMES)
topics = st.sampled_from(TOPICS)
appends = st.one_of(
    st.builds(lambda user, name: ("send", user, to(name), "hi", False), names, names),
    st.builds(
        lambda name, text: ("send", "alice", topic(name), text, True),
        topics,
        st.sampled_from(("", "x")),
    ),
    st.builds(
        lambda op, user: (op, user, group("devs"), None, False),
        st.sampled_from(("send", "join", "leave", "create")),
        names,
    ),
)


class WhatIsKnownInMemory(RuleBasedStateMachine):
    """A writer that is given batches, some of which fail."""

    case: SynchronousTestCase

    def __init__(self) -> None:
        super().__init__()
        self.clock = make_clock()
        self.log: list[Entry] = []

    @initialize()
    def open(self) -> None:
        """Begin with a new file."""
        self.file = FickleFile(Path(self.case.mktemp()), new_epoch=lambda: "e", durability="normal")
        self.file.open()
        self.writer = Writer(self.file, self.clock, retention=100, quota=3)
        self.writer.open()

    def teardown(self) -> None:
        """End with the file."""
        self.file.full = False
        self.writer.close()
        self.file.close()

    @rule(
        given=st.lists(appends, max_size=8),
        seen=st.none() | names,
        proven=st.none() | names,
        expires=st.booleans(),
        full=st.sampled_from((False, False, True)),
    )
    def commit(
        self,
        given: list[Any],
        seen: str | None,
        proven: str | None,
        *,
        expires: bool,
        full: bool,
    ) -> None:
        """A batch of anything."""
        jobs: list[Job] = [
            Append(op=op, user=user, address=address, msg=text, retain=retain)
            for op, user, address, text, retain in given
        ]
        if seen is not None:
            jobs.insert(len(jobs) // 2, Task(lambda rules: rules.admit(seen), lambda _: True))
        if proven is not None:
            position: dict[DeviceKey, int] = {(proven, None): self.writer.head}
            jobs.insert(len(jobs) // 3, Task(lambda rules: rules.save_positions(position)))
        if expires:
            jobs.insert(len(jobs) // 2, Task(lambda _: self.writer.expire()))
        self.file.full = full
        outcomes = self.writer.commit(jobs)
        self.case.assertEqual(len(outcomes), len(jobs))
        self.log += [entry for outcome in outcomes for entry in outcome.entries]
        if full:
            for job, outcome in zip(jobs, outcomes, strict=True):
                kept = isinstance(job, Task) and job.optional(self.writer._rules)
                self.case.assertIs(isinstance(outcome.result, Refused), not kept)

    @rule(seconds=st.integers(1, 60))
    def wait(self, seconds: int) -> None:
        """Things become older."""
        self.clock.advance(seconds)

    @invariant()
    def it_is_what_is_stored(self) -> None:
        """Heads, counters and records alike."""
        if not hasattr(self, "writer"):
            return
        case, writer, tables = self.case, self.writer, self.writer._tables
        connection = writer._connected()
        stored = connection.execute("SELECT head, floor FROM log").get
        case.assertEqual(writer._stored, stored)
        case.assertEqual((writer._rules.last, writer._rules.floor), stored)
        case.assertEqual(seqs(self.log), list(range(1, writer.head + 1)))
        left = connection.execute("SELECT seq FROM entries ORDER BY seq").fetchall()
        case.assertEqual([seq for (seq,) in left], list(range(stored[1] + 1, stored[0] + 1)))
        retained = connection.execute("SELECT count(*) FROM retained").get
        case.assertEqual(writer._retained_count, retained)
        for name, (above, count) in writer._received.items():
            waiting = connection.execute(STATEMENTS["received"], (name, above, 3)).get
            case.assertEqual(min(count, 3), waiting)
        case.assertEqual(tables._touched, {})
        for name, user in tables._users.items():
            case.assertEqual(told_of_user(load_user(connection, name)), told_of_user(user))
        for name, crowd in tables._groups.items():
            case.assertEqual(told_of_group(load_group(connection, name)), told_of_group(crowd))


class Memory(SynchronousTestCase):
    """What the writer knows without asking the file."""

    def test_it_is_what_is_stored_whatever_fails(self) -> None:
        """After each batch, committed or refused: places, counters, users and groups."""
        case = self

        class Machine(WhatIsKnownInMemory):
            def __init__(self) -> None:
                super().__init__()
                self.case = case

        options = settings(deadline=None, database=None, max_examples=80, stateful_step_count=20)
        run_state_machine_as_test(Machine, settings=options)
