"""What the writer knows in memory is what is in the file, after every batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Refused
from chatsvc.store import Append, DeviceKey
from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.records import load_group, load_user
from chatsvc.store.sqlite.writer import STATEMENTS, Job, Task, Writer
from tests.fakes import make_clock
from tests.store_suite.driver import group, seqs, to, topic
from tests.test_records import told_of_group, told_of_user
from tests.test_unwritable import FickleFile

T = TypeVar("T")


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
        self.writer = Writer(self.file, self.clock, retention=100, quota=3, unplaced=4)
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
        case.assertEqual(writer._placed, connection.execute("SELECT placed FROM log").get)
        there = connection.execute(places.STATEMENTS["waiting"]).get
        case.assertGreaterEqual(writer._waiting, there)
        case.assertEqual((writer._rules.last, writer._rules.floor), stored)
        case.assertEqual(seqs(self.log), list(range(1, writer.head + 1)))
        left = connection.execute("SELECT seq FROM entries ORDER BY seq").fetchall()
        case.assertEqual([seq for (seq,) in left], list(range(stored[1] + 1, stored[0] + 1)))
        retained = connection.execute("SELECT count(*) FROM retained").get
        case.assertEqual(writer._retained_count, retained)
        for name, (above, count) in writer._received.items():
            values = (name, above, 3, writer._placed)
            waiting = connection.execute(STATEMENTS["received"], values).get
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
