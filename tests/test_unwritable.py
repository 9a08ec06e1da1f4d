"""The store while nothing can be written: who is refused, who is served, and how it goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import apsw
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, Receipt, Start, Store
from chatsvc.store.sqlite import SqliteStore
from chatsvc.store.sqlite.file import Durability, LogFile
from tests.fakes import ClockLane, appended
from tests.faulty_vfs import Disk
from tests.store_suite.driver import StoreCase, group, seqs, to, topic
from tests.test_group_commit import message

T = TypeVar("T")


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
                appended(store.append, append)
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
        lost = appended(self.store.append, message())
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
        self.unavailable(appended(self.store.append, message()))
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
        self.unavailable(appended(self.store.append, large))
        self.assertEqual(self.send("alice", to("bob"), "x" * 100_000), self.kept + 1)


class AnythingElse(_OnAFickleDisk):
    """What else may go wrong in a batch."""

    def test_a_bug_in_one_job_is_logged_and_the_store_goes_on(self) -> None:
        """Its batch is refused as a whole, since it is not known how far it got."""
        assert isinstance(self.store, SqliteStore)

        def fail(_: object) -> None:
            raise RuntimeError("a bug")

        first = appended(self.store.append, message())
        wrong = self.store._do(fail)
        last = appended(self.store.append, message())
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
        self.unavailable(appended(self.store.append, message("refused")))
        self.assertGreater(disk.failures, 0)
        disk.heal()
        self.send("alice", topic("a"))
        self.assertEqual(seqs(self.announced), [1, 2, 3, 4])
        self.assertEqual(self.matching("a"), self.announced)
