"""The log from one place to another: backups, exports as lines of JSON, and imports of these.

What reads does so from one moment of the file, whatever a server writes meanwhile, and in little
memory. What makes a file makes it under another name, and gives it its own when all is on the disk;
an import is one transaction. So there is never half of anything.

An export (:mod:`chatsvc.store.sqlite.lines`) has everything but what concerns the file alone. The
same log makes the same export, and an import of it the same log.

A copy that lives on is another log: a backup gets a new epoch as it is made, and so does a log that
has had entries by an import. Only a log that has had none takes over the epoch of the export.
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple, TypeAlias

import apsw
import msgspec

from chatsvc.messages.entries import Entry
from chatsvc.store.sqlite import lines, places
from chatsvc.store.sqlite.file import LogFile, Unusable, copy_database, explained, sync
from chatsvc.store.sqlite.lines import FORMAT, Header, Line, header_of, line_of
from chatsvc.store.sqlite.soundness import contradictions, snapshot

__all__ = ["BadLine", "Progress", "back_up", "export_log", "import_log", "new_file"]

Progress: TypeAlias = Callable[[int, int], None]
"""Told how much is done, and of how much."""

LONGEST: Final = 64 * 1024 * 1024
"""Bytes of a line; what a server stores makes a few million at most."""
STEP: Final = 500
"""Lines after which progress is told."""

_encode = msgspec.json.Encoder().encode
_decode_entry = msgspec.json.Decoder(Entry).decode


class BadLine(Exception):
    """An export cannot be imported because of one of its lines; ``number`` says which."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(f"line {number}: {reason}")
        self.number = number


class _Kind(NamedTuple):
    """A kind of lines, with the statements that read its table and write a line's row.

    Rows are in the order of the first columns of what is written, as many as ``order`` says. What
    is known in the log already, by ``known_users`` and ``known_groups``, is left as it is.
    """

    line: type[Line]
    table: str
    order: int
    read: str
    write: str


_KINDS: Final = {
    kind.line.label(): kind
    for kind in (
        _Kind(
            lines.EntryLine,
            "entries",
            1,
            "SELECT body FROM entries ORDER BY seq",
            "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (seq) DO NOTHING",
        ),
        _Kind(
            lines.KeyLine,
            "keys",
            2,
            "SELECT user, key, lower(hex(digest)), seq, ts FROM keys ORDER BY user, key",
            "INSERT INTO keys VALUES (?, ?, unhex(?), ?, ?) ON CONFLICT (user, key) DO NOTHING",
        ),
        _Kind(
            lines.RetainedLine,
            "retained",
            1,
            "SELECT body FROM retained ORDER BY topic",
            """INSERT INTO retained VALUES (?, ?, ?) ON CONFLICT (topic) DO
               UPDATE SET seq = excluded.seq, body = excluded.body WHERE excluded.seq > seq""",
        ),
        _Kind(
            lines.UserLine,
            "users",
            1,
            "SELECT name, created, seen, position FROM users ORDER BY name",
            "INSERT INTO users SELECT ?1, ?2, ?3, ?4 WHERE ?1 NOT IN known_users",
        ),
        _Kind(
            lines.DeviceLine,
            "devices",
            2,
            "SELECT user, name, position, used FROM devices ORDER BY user, name",
            "INSERT INTO devices SELECT ?1, ?2, ?3, ?4 WHERE ?1 NOT IN known_users",
        ),
        _Kind(
            lines.UnseenLine,
            "unseen",
            2,
            "SELECT receiver, sender, waiting FROM unseen ORDER BY receiver, sender",
            "INSERT INTO unseen SELECT ?1, ?2, ?3 WHERE ?1 NOT IN known_users",
        ),
        _Kind(
            lines.HearingLine,
            "hearings",
            4,
            "SELECT user, kind, what, after, until FROM hearings ORDER BY user, kind, what, after",
            """INSERT INTO hearings SELECT ?1, ?2, ?3, ?4, ?5 WHERE
               CASE ?2 WHEN 'topic' THEN ?1 NOT IN known_users ELSE ?3 NOT IN known_groups END""",
        ),
        _Kind(
            lines.MarkLine,
            "marks",
            2,
            "SELECT user, talk, read FROM marks ORDER BY user, talk",
            """INSERT INTO marks SELECT ?1, ?2, ?3 WHERE ?1 NOT IN known_users
               ON CONFLICT (user, talk) DO NOTHING""",  # who has one need not be a user
        ),
        _Kind(
            lines.GroupLine,
            "groups",
            1,
            "SELECT name, born, public FROM groups ORDER BY name",
            "INSERT INTO groups SELECT ?1, ?2, ?3 WHERE ?1 NOT IN known_groups",
        ),
        _Kind(
            lines.MemberLine,
            "members",
            2,
            "SELECT name, user, role, since FROM members ORDER BY name, user",
            "INSERT INTO members SELECT ?1, ?2, ?3, ?4 WHERE ?1 NOT IN known_groups",
        ),
    )
}
"""By the ``type`` of their lines, in the order in which an export has them."""


# --- new files ---


@contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """A name to write to, for a file that is to be ``target`` when it is whole and on the disk.

    Nothing is overwritten, and nothing left behind when it fails.

    :raises Unusable: ``target`` is there already.
    """
    if os.path.lexists(target):
        raise Unusable(f"{target} is there already")
    partial = target.with_name(f"{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield partial
        sync(partial)
        try:
            os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            raise Unusable(f"{target} is there already") from None
        partial.replace(target)
    except BaseException:
        for suffix in ("", "-journal"):
            Path(f"{partial}{suffix}").unlink(missing_ok=True)
        raise
    sync(target.parent)


# --- backup ---


def back_up(
    path: Path, target: Path, *, new_epoch: Callable[[], str], progress: Progress | None = None
) -> None:
    """Copy a log as it is now into the new file ``target``, as a log with an epoch of its own.

    :raises Unusable: it cannot be done; there is no ``target`` then.
    """
    with snapshot(path) as source, explained(target), new_file(target) as partial:
        copy_database(source, partial, progress)
        with closing(apsw.Connection(str(partial))) as copy:
            copy.execute("UPDATE log SET epoch = ?, boot = NULL", (new_epoch(),))


# --- export ---


def export_log(path: Path, progress: Progress | None = None) -> Generator[bytes, None, None]:
    """The lines of an export of a log as it is now.

    :raises Unusable: it cannot be read.
    """
    with snapshot(path) as connection:
        epoch, head, floor = connection.execute("SELECT epoch, head, floor FROM log").get
        counts = {
            name: connection.execute(f"SELECT count(*) FROM {kind.table}").get
            for name, kind in _KINDS.items()
        }
        yield _encode(Header(FORMAT, epoch, head, floor, counts)) + b"\n"
        done, total = 0, sum(counts.values())
        for kind in _KINDS.values():
            for row in connection.execute(kind.read):
                if progress is not None and done % STEP == 0:
                    progress(done, total)
                yield _encode(_line(kind, row)) + b"\n"
                done += 1
        if progress is not None:
            progress(done, total)


def _line(kind: _Kind, row: tuple[Any, ...]) -> Line:
    try:
        return kind.line.of(*row)
    except msgspec.DecodeError:
        raise Unusable(f"a row of {kind.table} cannot be read; chatsvc check tells which") from None


# --- import ---


def import_log(
    path: Path,
    source: BinaryIO,
    *,
    new_epoch: Callable[[], str],
    progress: Progress | None = None,
) -> None:
    """Add an export to a log, or make a log of it where there is none or one without entries.

    :raises BadLine: because of the export; nothing is changed then.
    :raises Unusable: because of the log; nothing is changed then.
    """
    export = _Export(source, progress)
    file = LogFile(path, new_epoch=new_epoch)
    to_remove = not path.exists()
    file.open()
    try:
        with explained(file.path), closing(file.connect()) as connection:
            target = _Target(connection)
            to_remove = to_remove and not target.head
            with connection:
                target.begin()
                for number, label, row in export:
                    try:
                        target.take(label, row)
                    except ValueError as error:
                        raise BadLine(number, str(error)) from None
                target.end(export.header, new_epoch)
        to_remove = False
    finally:
        if to_remove:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{file.path}{suffix}").unlink(missing_ok=True)
        file.close()


class _Export:
    """An export as it is read: its rows with the numbers of their lines, each good for itself."""

    def __init__(self, source: BinaryIO, progress: Progress | None) -> None:
        self._source = source
        self._progress = progress
        try:
            self.header = header_of(self._read(1))
        except ValueError as error:
            raise BadLine(1, str(error)) from None
        if self.header.counts.keys() != _KINDS.keys():
            raise BadLine(1, "`counts` must tell of each type of lines, and of no other")
        self._last: dict[str, tuple[Any, ...]] = {}

    def _read(self, number: int) -> bytes:
        try:
            text = self._source.readline(LONGEST)
        except OSError as error:
            raise BadLine(number, f"it cannot be read: {error.strerror}") from None
        if len(text) == LONGEST:
            raise BadLine(number, "it is too long")
        return text

    def __iter__(self) -> Iterator[tuple[int, str, tuple[Any, ...]]]:
        left = Counter(self.header.counts)
        total = left.total()
        number = 1
        while text := self._read(number := number + 1):
            try:
                line = line_of(text)
                label, row = line.label(), line.row()
                self._check(line, row)
            except ValueError as error:
                raise BadLine(number, str(error)) from None
            left[label] -= 1
            if left[label] < 0:
                raise BadLine(number, f"line 1 promises no further line of type {label}")
            if self._progress is not None and number % STEP == 1:
                self._progress(number - 1, total)
            yield number, label, row
        if missing := left.total():
            raise BadLine(number, f"the file ends here, but {missing} of {total} lines are missing")
        if self._progress is not None:
            self._progress(total, total)

    def _check(self, line: Line, row: tuple[Any, ...]) -> None:
        """What the header says holds for every line, and nothing comes twice."""
        for field in line.places:
            if (getattr(line, field) or 0) > self.header.head:
                raise ValueError(f"`{field}` is above the head, {self.header.head}")
        label = line.label()
        if label == "entry" and row[0] <= self.header.floor:
            raise ValueError(f"`seq` is not above the floor, {self.header.floor}")
        place = row[: _KINDS[label].order]
        if place <= self._last.get(label, ()):
            raise ValueError(f"this does not come after the last line of type {label}")
        self._last[label] = place


class _Target:
    """The log to which an export is added, within one transaction."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.head, self._floor = connection.execute("SELECT head, floor FROM log").get

    def begin(self) -> None:
        """Note what is known; a log that has had no entries becomes that of the export, wholly."""
        run = self._connection.execute
        run("CREATE TEMP TABLE known_users (name TEXT PRIMARY KEY) WITHOUT ROWID")
        run("CREATE TEMP TABLE known_groups (name TEXT PRIMARY KEY) WITHOUT ROWID")
        if not self.head:
            for kind in _KINDS.values():
                run(f"DELETE FROM {kind.table}")
            return
        run("INSERT INTO known_users SELECT name FROM users")
        run("""INSERT INTO known_groups SELECT name FROM groups
               UNION SELECT what FROM hearings WHERE kind = 'group'""")  # those that ended too

    def take(self, label: str, row: tuple[Any, ...]) -> None:
        """Write a row, where what it says is not known already.

        :raises ValueError: it contradicts what is there.
        """
        self._connection.execute(_KINDS[label].write, row)
        if label == "retained" or (label == "entry" and not self._is_new(row[0])):
            self._compare_entry(row)
        elif label == "key" and not self._connection.changes():
            self._compare_key(row)

    def _is_new(self, seq: int) -> bool:
        """Whether the entry that was written last was not there before."""
        if seq <= self._floor:
            raise ValueError(f"the log has expired up to {self._floor}, `seq` is not above that")
        return self._connection.changes() > 0

    def _compare_entry(self, row: tuple[Any, ...]) -> None:
        """An entry, or a retained message, is what stands at its place, if anything does."""
        entry = _decode_entry(row[-1])
        there = self._connection.execute("SELECT body FROM entries WHERE seq = ?", (entry.seq,)).get
        if there not in (None, row[-1]) and _decode_entry(there) != entry:
            raise ValueError(f"another entry has the `seq` {entry.seq}")

    def _compare_key(self, row: tuple[Any, ...]) -> None:
        """A key is bound to the same."""
        there = self._connection.execute(
            "SELECT lower(hex(digest)), seq, ts FROM keys WHERE user = ? AND key = ?", row[:2]
        ).get
        if there != row[2:]:
            raise ValueError(f"this key of {row[0]} is bound to something else")

    def end(self, header: Header, new_epoch: Callable[[], str]) -> None:
        """Set the bounds and the name of the log.

        :raises Unusable: what is there now does not agree with itself.
        """
        for found in contradictions(self._connection):
            raise Unusable(f"with this import {found}")
        if self.head:
            bounds = (max(self.head, header.head), self._floor, new_epoch())
        else:
            bounds = (header.head, header.floor, header.epoch)
        run = self._connection.execute
        run("UPDATE log SET head = ?1, floor = ?2, epoch = ?3, placed = ?1", bounds)
        run("DELETE FROM places")
        run(places.STATEMENTS["place"], (0, bounds[0]))
