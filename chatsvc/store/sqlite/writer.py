"""The one who writes: batches of jobs in, transactions out.

A :class:`Writer` belongs to one thread. It is given the jobs that came in while the last batch was
being committed, does them in order by the rules, writes what follows from all of them, and commits
once (group commit): then all of it is on the disk, or nothing. What the rules must know of keys is
asked for the whole batch at once; records of groups and users are kept in memory
(:mod:`chatsvc.store.sqlite.records`).

When a batch fails, because the disk is full or broken, nothing of it has happened: every job that
had to be kept is refused as ``unavailable``, and what was known in memory is read anew, over a new
connection. Where it was the commit that failed, that connection tells whether it was done all the
same. Jobs that only *would* have left a trace, such as that somebody was seen, are answered
from what is stored, so that people can come and read while nothing can be written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeAlias

import apsw
import msgspec
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from chatsvc.messages.entries import Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, Receipt
from chatsvc.store.rules import Rules, first_receipt
from chatsvc.store.spans import talk_of
from chatsvc.store.sqlite import places
from chatsvc.store.sqlite.expiry import expire_oldest
from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.records import ROOM, CachedTables
from chatsvc.store.sqlite.schema import columns_of
from chatsvc.store.sqlite.statements import Insert

__all__ = ["Job", "Outcome", "Task", "Writer"]

MAX_RETAINED: Final = 100_000
"""The most topics with a retained message: whoever subscribes for all has them looked through."""
COUNTED: Final = 10_000
"""Receivers of whom it is remembered how much waits for them."""

_encode = msgspec.json.Encoder().encode
_keys = msgspec.json.Decoder(list[tuple[str, str, str, int, int]]).decode
_entries = msgspec.json.Decoder(list[Entry]).decode

INSERT_ENTRIES: Final = Insert("entries", 7)
INSERT_KEYS: Final = Insert("keys", 5)
PUT_RETAINED: Final = Insert("retained", 3, replace=True)
STATEMENTS: Final = {
    "keys": """
        SELECT json_group_array(json_array(k.user, k.key, hex(digest), seq, ts))
        FROM json_each(?) AS asked CROSS JOIN keys AS k
        ON k.user = asked.value ->> 0 AND k.key = asked.value ->> 1""",
    "received": """
        SELECT count(*) FROM (
            SELECT 1 FROM places WHERE run = 'r/' || ?1 AND seq > ?2
            UNION ALL SELECT 1 FROM entries
            WHERE seq > max(?2, ?4) AND receiver = ?1 AND receiver <> sender LIMIT ?3)""",
    "message": "SELECT talk = ? FROM entries WHERE seq = ?",
    "any": """
        SELECT 1 FROM places WHERE run = ?1
        UNION ALL SELECT 1 FROM entries WHERE seq > ?2 AND talk = ?1 LIMIT 1""",
    "retained": "SELECT 1 FROM retained WHERE topic = ?",
    "clear": "DELETE FROM retained WHERE topic = ?",
    "above": """
        SELECT '[' || group_concat(body, ',' ORDER BY seq) || ']' FROM entries WHERE seq > ?""",
    "stored": "SELECT head, floor FROM log",
    "bounds": "UPDATE log SET head = ?, floor = ?, placed = ?",
}
"""By name, so that a test can ask how SQLite would go about each."""


class Task(Struct, frozen=True):
    """Something to be done by the rules that is no append.

    ``optional`` says whether its answer holds although nothing can be written.
    """

    work: Callable[[Rules], Any]
    optional: Callable[[Rules], bool] = lambda _: False


Job: TypeAlias = Append | Task


class Outcome(Struct, frozen=True):
    """What became of a job: what it gives or raises, and the entries it brought."""

    result: Any
    entries: Sequence[Entry] = ()


class Writer:
    """See the module. ``retention`` is in seconds, ``quota`` in messages, ``room`` in rows.

    ``unplaced`` is how many entries are given their places at once.
    """

    log = Logger()

    def __init__(
        self,
        file: LogFile,
        clock: IReactorTime,
        *,
        retention: float,
        quota: int,
        room: int = ROOM,
        unplaced: int = places.MANY,
    ) -> None:
        self.epoch = ""
        self._file = file
        self._clock = clock
        self._retention = retention
        self._quota = quota
        self._connection: apsw.Connection | None = None
        self._tables = CachedTables(self._connected, room)
        self._rules = Rules(self, self._tables, clock, retention=retention, quota=quota)
        self._stored = (0, 0)
        self._unplaced = unplaced
        self._placed = 0
        self._waiting = (0, 0)
        self._failing = False
        self._found: list[Entry] = []
        self._received: dict[str, tuple[int, int]] = {}
        self._retained_count = 0
        self._entries: list[Entry] = []
        self._bound: dict[tuple[str, str], tuple[bytes, Receipt]] = {}
        self._new_keys: list[tuple[str, str]] = []
        self._retained: dict[str, Entry | None] = {}

    # --- life ---

    def open(self) -> None:
        """Begin, with what is stored."""
        self._stored = self._connected().execute(STATEMENTS["stored"]).get
        self._begin_anew()

    def close(self) -> None:
        """End, with all that was committed in the file."""
        if self._connection is None:
            return
        try:
            self._file.leave_clean(self._connection)
        except apsw.Error as error:
            self._note(error)
        self._disconnect()

    @property
    def head(self) -> int:
        """The last entry that is committed, and given out as such."""
        return self._stored[0]

    def _connected(self) -> apsw.Connection:
        if self._connection is None:
            self._connection = self._file.connect()
        return self._connection

    def _disconnect(self) -> None:
        """Let go of the file, and with it of a transaction that is not committed."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(apsw.Error):  # it is closed all the same
                connection.close()

    def _begin_anew(self) -> None:
        """Forget what is not stored, and know what is.

        Entries above those that were given out were refused as ``unavailable``, by a commit that
        was done although it failed. They are in the log, so everybody is to see them.
        """
        connection = self._connected()
        found = _entries(connection.execute(STATEMENTS["above"], (self.head,)).get or "[]")
        head, floor, self._placed, self.epoch = connection.execute(
            "SELECT head, floor, placed, epoch FROM log"
        ).get
        self._waiting = connection.execute(places.STATEMENTS["waiting"]).get
        self._retained_count = connection.execute("SELECT count(*) FROM retained").get
        self._stored = self._rules.last, self._rules.floor = head, floor
        self._found += found
        self._tables.forget()
        self._received.clear()
        self._forget_batch()

    def _forget_batch(self) -> None:
        self._entries.clear()
        self._bound.clear()
        self._new_keys.clear()
        self._retained.clear()

    # --- batches ---

    def commit(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Do all of ``jobs``, and have what follows from them on the disk.

        Raises nothing: what could not be done is in the outcomes.
        """
        outcomes: list[Outcome] = []
        try:
            if self._connection is None:
                self._begin_anew()
            connection = self._connected()
            changes = connection.total_changes()
            connection.execute("BEGIN IMMEDIATE")
            self._look_up_keys(jobs)
            outcomes = [self._do(job) for job in jobs]
            self._write()
            connection.execute("COMMIT")
        except Exception as error:
            self._note(error)
            outcomes = self._after_failure(jobs, outcomes)
        else:
            self._stored = (self._rules.last, self._rules.floor)
            self._forget_batch()
            self._tables.trim()
            if len(self._received) > COUNTED:
                self._received.clear()
            if self._failing and connection.total_changes() != changes:
                self._failing = False
                self.log.info("the log can be written again")
        if self._found:
            outcomes[0] = Outcome(outcomes[0].result, [*self._found, *outcomes[0].entries])
            self._found = []
        return outcomes

    def _note(self, error: Exception) -> None:
        if not isinstance(error, apsw.Error) or isinstance(error, apsw.SQLError):
            self.log.failure("a batch failed")
        elif not self._failing:
            self.log.error("the log cannot be written: {error}", error=error)
        self._failing = True

    def _after_failure(self, jobs: Sequence[Job], outcomes: list[Outcome]) -> list[Outcome]:
        """What came of a batch that failed: nothing, unless it was its commit and that was done."""
        intended = (self._rules.last, self._rules.floor)
        try:
            self._disconnect()
            connection = self._connected()
            bounds = connection.execute(STATEMENTS["stored"]).get
            done = outcomes and self._stored != bounds == intended
            known = len(self._found)
            self._begin_anew()
            if done:
                del self._found[known:]  # the outcomes have them
                return outcomes
            return [self._do_without_writing(job) for job in jobs]
        except Exception as error:
            self._note(error)
            self._disconnect()
            return [Outcome(_unavailable()) for _ in jobs]
        finally:
            self._tables.forget()

    def _do_without_writing(self, job: Job) -> Outcome:
        if isinstance(job, Task) and job.optional(self._rules):
            return self._do(job)
        return Outcome(_unavailable())

    def _do(self, job: Job) -> Outcome:
        before = len(self._entries)
        try:
            result = self._append(job) if isinstance(job, Append) else job.work(self._rules)
        except Refused as refused:
            result = refused
        return Outcome(result, self._entries[before:])

    # --- appending ---

    def _append(self, append: Append) -> Receipt:
        binding = None if append.key is None else (append.user, append.key)
        if binding is not None and (bound := self._bound.get(binding)) is not None:
            return first_receipt(append, *bound)
        receipt, entries = self._rules.decide(append)
        if append.retain:
            self._retain(entries[0])
        if binding is not None and entries:
            self._bound[binding] = (append.digest, receipt)
            self._new_keys.append(binding)
        for entry in entries:
            self._rules.last = entry.seq
            self._entries.append(entry)
            self._count(entry)
        return receipt

    def _look_up_keys(self, jobs: Sequence[Job]) -> None:
        asked = [
            (job.user, job.key) for job in jobs if isinstance(job, Append) and job.key is not None
        ]
        if asked:
            found = self._connected().execute(STATEMENTS["keys"], (_text(asked),)).get
            for user, key, digest, seq, ts in _keys(found):
                self._bound[user, key] = (bytes.fromhex(digest), Receipt(seq, ts))

    def _retain(self, entry: Entry) -> None:
        topic = entry.address.name
        if topic in self._retained:
            known = self._retained[topic] is not None
        else:
            known = bool(self._connected().execute(STATEMENTS["retained"], (topic,)).get)
        if entry.clears_retained:
            self._retained_count -= known
            self._retained[topic] = None
            return
        if self._retained_count >= MAX_RETAINED and not known:
            raise Refused(Code.QUOTA_EXCEEDED, "there is no room for another retained message")
        self._retained_count += not known
        self._retained[topic] = entry

    # --- what the rules ask ---

    def has_message(self, run: str, seq: int) -> bool:
        """Whether ``seq`` is a message of a run that is still stored."""
        if seq > self.head:
            index = seq - self.head - 1
            return index < len(self._entries) and talk_of(self._entries[index]) == run
        return bool(self._connected().execute(STATEMENTS["message"], (run, seq)).get)

    def has_any(self, run: str) -> bool:
        """Whether anything is stored of a run, which is a conversation's."""
        stored = self._connected().execute(STATEMENTS["any"], (run, self._placed)).get
        return bool(stored) or any(talk_of(entry) == run for entry in self._entries)

    def count_received(self, user: str, above: int) -> int:
        """How many direct messages of others to ``user`` are above ``above``; up to the quota."""
        counted = self._received.get(user)
        if counted is None or counted[0] != above:
            values = (user, above, self._quota, self._placed)
            stored = self._connected().execute(STATEMENTS["received"], values).get
            new = sum(
                1
                for entry in self._entries
                if entry.address.kind == "to"
                and entry.address.name == user != entry.sender
                and entry.seq > above
            )
            counted = self._received[user] = (above, stored + new)
        return counted[1]

    def _count(self, entry: Entry) -> None:
        """Keep the number that :meth:`count_received` remembers true."""
        name = entry.address.name
        if entry.address.kind == "to" and name != entry.sender and name in self._received:
            above, count = self._received[name]
            self._received[name] = (above, count + 1)

    # --- writing ---

    def _write(self) -> None:
        """Write what the batch has brought."""
        connection = self._connected()
        entries = [(*columns_of(entry), _text(entry)) for entry in self._entries]
        INSERT_ENTRIES.run(connection, entries)
        INSERT_KEYS.run(
            connection,
            [
                (*binding, digest, receipt.seq, receipt.ts)
                for binding in self._new_keys
                for digest, receipt in (self._bound[binding],)
            ],
        )
        kept = [(topic, e.seq, _text(e)) for topic, e in self._retained.items() if e is not None]
        PUT_RETAINED.run(connection, kept)
        for topic, entry in self._retained.items():
            if entry is None:
                connection.execute(STATEMENTS["clear"], (topic,))
        self._tables.flush()
        self._place(len(entries), sum(len(entry[-1]) for entry in entries))
        if self._stored != (now := (self._rules.last, self._rules.floor)):
            connection.execute(STATEMENTS["bounds"], (*now, self._placed))

    def _place(self, count: int, size: int) -> None:
        """Give the newest entries their places, if there are many that have none."""
        self._waiting = (self._waiting[0] + count, self._waiting[1] + size)
        if self._waiting[0] >= self._unplaced or self._waiting[1] >= places.MUCH:
            span = (self._placed, self._rules.last)
            self._connected().execute(places.STATEMENTS["place"], span)
            self._placed = self._rules.last
            self._waiting = (0, 0)

    # --- expiry ---

    def expire(self) -> bool:
        """One step of expiry, as a task; whether there is more to do."""
        self._tables.flush()  # what waits for whom is asked of the file
        before = int((self._clock.seconds() - self._retention) * 1000)
        floor = self._rules.floor
        more = expire_oldest(self._connected(), self._rules, before)
        if self._rules.floor != floor:
            self._received.clear()
        return more


def _text(value: object) -> str:
    return _encode(value).decode()


def _unavailable() -> Refused:
    return Refused(Code.UNAVAILABLE, "nothing can be stored at the moment")
