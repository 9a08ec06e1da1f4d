"""The database file: who may open it, in which format it is, how it is opened.

:class:`LogFile` lets one server at a time have the file, by a lock on a file beside it that the
kernel lets go of when its process ends, however it ends. It makes a new file, brings an older one
to the present format (after copying it), and refuses what it cannot be sure of: a newer format,
another program's database, a damaged file. Each refusal is an :class:`Unusable` that tells an
operator what is wrong; nothing has been changed then.

Every connection is in WAL mode: one writes while any number read, each from the last commit before
it began. One more is open all the time and does nothing: when the last connection closes and
another is opened, SQLite reads its log anew, and would find there again what a commit that failed
had written.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, Literal, TypeAlias

import apsw
from twisted.logger import Logger

from chatsvc.store.sqlite.schema import APPLICATION_ID, MIGRATIONS

__all__ = ["Durability", "LogFile", "Unusable", "copy_database", "explained", "sync"]

Durability: TypeAlias = Literal["full", "normal"]

BUSY: Final = 5000
"""Milliseconds to wait for another process, which holds the file for moments only."""
WRITER_CACHE: Final = 64 * 1024
READER_CACHE: Final = 8 * 1024
"""KiB of the file that a connection keeps in memory."""
CHECKPOINT: Final = 4000
"""Pages (4 KiB) after which the write-ahead log is brought into the file."""
LARGEST_LOG: Final = 64 * 1024 * 1024
"""Bytes to which the write-ahead log is cut when it could be brought into the file."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Unusable(Exception):
    """The file cannot be used, for a reason that an operator can read."""


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn what SQLite and the system say of a file into :class:`Unusable`."""
    try:
        yield
    except apsw.Error as error:
        raise Unusable(f"{path} {_in_words(error)}") from error
    except OSError as error:
        raise Unusable(f"{path} {_system_words(error)}") from error


def _in_words(error: apsw.Error) -> str:
    if isinstance(error, apsw.NotADBError):
        return "is not a database of chatsvc"
    if isinstance(error, apsw.CorruptError):
        return "is damaged; restore a backup"
    if isinstance(error, apsw.FullError):
        return "cannot grow: the disk is full"
    if isinstance(error, apsw.ReadOnlyError):
        return "cannot be written: it or its disk is read-only"
    if isinstance(error, apsw.BusyError):
        return "is in use by another program"
    return f"cannot be used: {error}"


def _system_words(error: OSError) -> str:
    if error.errno == errno.EROFS:
        return "cannot be written: it or its disk is read-only"
    if error.errno == errno.ENOSPC:
        return "cannot grow: the disk is full"
    return f"cannot be used: {error.strerror}"


def _boot() -> str:
    """The present boot of this machine; a name never seen before where that is not known."""
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return os.urandom(8).hex()


class LogFile:
    """See the module.

    ``new_epoch`` names a new log. With ``durability`` "full" a commit is on the disk when it is
    done; with "normal" it is with the operating system, and a power failure may take the last few.
    ``vfs`` is SQLite's way to the disk, for tests.
    """

    log = Logger()

    def __init__(
        self,
        path: Path,
        *,
        new_epoch: Callable[[], str],
        durability: Durability = "full",
        migrations: Sequence[str] = MIGRATIONS,
        vfs: str | None = None,
    ) -> None:
        self.path = path
        self.durability = durability
        self._new_epoch = new_epoch
        self._migrations = migrations
        self._vfs = vfs
        self._lock: int | None = None
        self._anchor: apsw.Connection | None = None

    # --- life ---

    def open(self) -> None:
        """Have the file for oneself, in the present format.

        :raises Unusable: it cannot be.
        """
        self.path = Path(os.path.realpath(self.path))  # however it is called, it is one file
        if self.path.is_dir():
            raise Unusable(f"{self.path} is a directory")
        if not self.path.parent.is_dir():
            raise Unusable(f"{self.path.parent} is not a directory")
        with explained(self.path):
            try:
                self._take_lock()
                if not self.path.exists():
                    self.path.touch(0o600)  # only its owner may read what people say
                self._prepare()
                self._anchor = self._connect(0)
                self._anchor.execute("SELECT head FROM log").fetchall()
            except BaseException:
                self.close()
                raise

    def close(self) -> None:
        """Let others have the file; connections are closed before."""
        if self._anchor is not None:
            with suppress(apsw.Error):  # it is closed all the same
                self._anchor.close()
            self._anchor = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _take_lock(self) -> None:
        name = f"{self.path}.lock"
        lock = self._lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode("ascii", "replace").strip()
            raise Unusable(f"{self.path} is in use by another server (process {holder})") from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode("ascii"), 0)

    # --- connections ---

    def connect(self) -> apsw.Connection:
        """The connection that writes."""
        return self._writing(self._connect(0))

    def _writing(self, connection: apsw.Connection) -> apsw.Connection:
        connection.pragma("synchronous", self.durability)
        connection.pragma("cache_size", -WRITER_CACHE)
        connection.pragma("wal_autocheckpoint", CHECKPOINT)
        connection.pragma("journal_size_limit", LARGEST_LOG)
        connection.pragma("fullfsync", True)  # noqa: FBT003 - a pragma's value; macOS needs it
        return connection

    def connect_reader(self) -> apsw.Connection:
        """A connection that only reads."""
        connection = self._connect(0)
        connection.pragma("query_only", True)  # noqa: FBT003 - a pragma's value
        connection.pragma("cache_size", -READER_CACHE)
        return connection

    def _connect(self, flags: int) -> apsw.Connection:
        flags |= apsw.SQLITE_OPEN_READWRITE
        connection = apsw.Connection(str(self.path), flags, self._vfs)
        connection.set_busy_timeout(BUSY)
        connection.pragma("trusted_schema", False)  # noqa: FBT003 - a pragma's value
        return connection

    # --- format ---

    def _prepare(self) -> None:
        """Bring the file into the present format, and look whether it is sound so far."""
        connection = self._writing(self._connect(apsw.SQLITE_OPEN_CREATE))
        connection.pragma("synchronous", "full")  # also for what tells that the rest is not
        try:
            version = self._format_of(connection)
            if connection.pragma("journal_mode", "wal") != "wal":
                raise Unusable(f"{self.path} is on a file system that SQLite cannot use safely")
            if version == 0:
                self._create(connection)
            elif version < len(self._migrations):
                self._migrate(connection, version)
            self._renew_epoch_if_unsafe(connection)
            for table in ("entries", "keys", "users", "devices", "hearings", "groups", "members"):
                connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchall()
        finally:
            connection.close()

    def _format_of(self, connection: apsw.Connection) -> int:
        """How many migrations the file has had, 0 when it is new.

        :raises Unusable: it is not ours, or newer than this program.
        """
        version = int(connection.pragma("user_version"))
        if connection.pragma("application_id") != APPLICATION_ID:
            if version or connection.execute("SELECT count(*) FROM sqlite_schema").get:
                raise Unusable(f"{self.path} is not a database of chatsvc")
            return 0
        if version > len(self._migrations):
            raise Unusable(
                f"{self.path} was written by a newer chatsvc (its format is {version}, "
                f"this one knows formats up to {len(self._migrations)})"
            )
        return version

    def _create(self, connection: apsw.Connection) -> None:
        with connection:
            for script in self._migrations:
                connection.execute(script)
            epoch = self._new_epoch()
            connection.execute("INSERT INTO log VALUES (1, ?, 0, 0, 0, NULL)", (epoch,))
            connection.pragma("application_id", APPLICATION_ID)
            connection.pragma("user_version", len(self._migrations))

    def _migrate(self, connection: apsw.Connection, version: int) -> None:
        target = self._free_name(f"{self.path}.format-{version}")
        self.log.info("copying {path} to {target} first", path=self.path, target=target)
        copy_database(connection, target)
        try:
            with connection:
                for script in self._migrations[version:]:
                    connection.execute(script)
                connection.pragma("user_version", len(self._migrations))
        except BaseException:
            target.unlink()  # nothing has changed
            raise
        self.log.info("{path} is in format {new} now", path=self.path, new=len(self._migrations))

    @staticmethod
    def _free_name(wanted: str) -> Path:
        number, path = 1, Path(wanted)
        while path.exists():
            number += 1
            path = Path(f"{wanted}-{number}")
        return path

    def _renew_epoch_if_unsafe(self, connection: apsw.Connection) -> None:
        """Name the log anew where a power failure may have taken its end.

        Then places are given again that readers have seen filled, and only another epoch tells
        them so.
        """
        boot = _boot()
        used = connection.execute("SELECT boot FROM log").get
        now = boot if self.durability == "normal" else None
        if used not in (None, boot):
            self.log.error("the machine went down before all was on its disk: a new epoch begins")
            connection.execute("UPDATE log SET epoch = ?", (self._new_epoch(),))
        if used != now:
            connection.execute("UPDATE log SET boot = ?", (now,))

    def leave_clean(self, connection: apsw.Connection) -> None:
        """Note that all is on the disk, at the end."""
        if self.durability == "normal":
            connection.pragma("synchronous", "full")
            connection.execute("UPDATE log SET boot = NULL")


def copy_database(
    source: apsw.Connection, target: Path, progress: Callable[[int, int], None] | None = None
) -> None:
    """Copy a database as it is now into a new file; it may be written to meanwhile.

    ``progress`` is told how many pages are done, and of how many. What was copied in part is
    removed again.

    :raises FileExistsError: ``target`` is there already.
    """
    os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    try:
        copy = apsw.Connection(str(target))
        try:
            with source:  # a transaction, so that all pages are of one moment
                source.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                with copy.backup("main", source, "main") as backup:
                    while not backup.done:
                        backup.step(256)
                        if progress is not None:
                            progress(backup.page_count - backup.remaining, backup.page_count)
            copy.pragma("journal_mode", "delete")  # one file, nothing beside it
        finally:
            copy.close()
        sync(target)
        sync(target.parent)
    except BaseException:
        target.unlink()
        raise


def sync(path: Path) -> None:
    """Have a file, or the names in a directory, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
