"""Group commit: which jobs go together, and in which order they are told of."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code
from chatsvc.store import Append, Receipt
from chatsvc.store.sqlite import MOST_BYTES, MOST_JOBS, SqliteStore
from chatsvc.store.sqlite.file import LogFile
from tests.fakes import ClockLane, appended, make_clock
from tests.store_suite.driver import group, topic

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
            appended(self.store.append, message(text)).addCallback(self.fired)
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
        appended(self.store.append, message()).addCallback(lambda _: self.send())
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
        appended(self.store.append, message()).addCallback(lambda _: self.send(2))
        self.clock.advance(0)
        while self.lane.waiting:
            self.lane.do()
        self.assertEqual(self.told, [("fired", seq) for seq in range(2, 7)])

    def test_an_answer_that_fails_takes_no_other_with_it(self) -> None:
        """It is noted, and those after it are told."""

        def fail(_: object) -> None:
            raise RuntimeError("a bug")

        self.store.append(message(), fail)
        self.send()
        self.lane.do()
        self.assertEqual(self.take(), [("announced", 1), *self.expected(2, 2)])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_a_refused_job_leaves_the_others_alone(self) -> None:
        """Those before and those after it are committed, and told in order."""
        wrong = Append(op="send", user="alice", address=group("devs"), msg="hi")
        for append in (message(), message(), wrong, message(), message()):
            appended(self.store.append, append).addCallbacks(
                self.fired, lambda failure: self.told.append(failure.value.code)
            )
        self.clock.advance(0)
        self.lane.do()
        expected = [*self.expected(1, 2), Code.NOT_MEMBER, *self.expected(3, 4)]
        self.assertEqual(self.told, expected)
