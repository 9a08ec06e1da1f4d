"""Threads for the store."""

from __future__ import annotations

import functools
import threading
from queue import SimpleQueue

from twisted.internet import reactor
from twisted.internet.defer import gatherResults
from twisted.trial.unittest import TestCase

from chatsvc.store.sqlite.lanes import ThreadLane


class ALaneOfThreads(TestCase):
    """`ThreadLane` on the real reactor."""

    timeout = 30

    def lane(self, threads: int = 1) -> ThreadLane:
        """A lane that has begun, and is ended with the test."""
        lane = ThreadLane(reactor, "tried", threads)  # type: ignore[arg-type]
        lane.start()
        self.addCleanup(lane.stop)
        return lane

    async def test_work_is_done_in_a_thread_and_told_in_the_reactors(self) -> None:
        """Never before `call` returns, and never in another thread."""
        told: list[threading.Thread] = []

        def note(worked: threading.Thread) -> threading.Thread:
            told.append(threading.current_thread())
            return worked

        done = self.lane().call(threading.current_thread).addCallback(note)
        self.assertEqual(told, [])
        worked = await done
        self.assertIsNot(worked, threading.current_thread())
        self.assertEqual(told, [threading.current_thread()])

    async def test_one_thread_does_one_thing_after_another(self) -> None:
        """In the order in which they were asked for, and they are told in that order."""
        lane = self.lane()
        done: list[int] = []
        told: list[int] = []

        def work(number: int) -> int:
            done.append(number)
            return number

        for number in range(200):
            answer = lane.call(functools.partial(work, number))
            answer.addCallback(lambda number: told.append(number))  # noqa: PLW0108 - mypy needs it
        await lane.call(lambda: None)
        self.assertEqual(done, list(range(200)))
        self.assertEqual(told, done)

    async def test_several_threads_do_several_things_at_a_time(self) -> None:
        """As many as there are threads: each waits here for the others."""
        meeting = threading.Barrier(3, timeout=20)
        lane = self.lane(3)
        await gatherResults([lane.call(meeting.wait) for _ in range(3)])

    async def test_a_failure_is_told_and_the_next_is_done(self) -> None:
        """The thread outlives it."""
        lane = self.lane()
        failed = lane.call(lambda: 1 // 0)
        after = lane.call(lambda: "done")
        with self.assertRaises(ZeroDivisionError):
            await failed
        self.assertEqual(await after, "done")

    async def test_stopping_finishes_what_is_under_way_and_leaves_no_thread(self) -> None:
        """What waits behind it too; its answers come afterwards."""
        before = set(threading.enumerate())
        lane = ThreadLane(reactor, "tried", 2)  # type: ignore[arg-type]
        lane.start()
        gate: SimpleQueue[int] = SimpleQueue()
        answers = [lane.call(lambda: gate.get(timeout=20)) for _ in range(4)]
        for number in range(4):
            gate.put(number)
        lane.stop()
        self.assertEqual(set(threading.enumerate()) - before, set())
        self.assertTrue(gate.empty())
        self.assertEqual(sorted(await gatherResults(answers)), [0, 1, 2, 3])
