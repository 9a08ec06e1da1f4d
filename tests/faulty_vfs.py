"""A disk that notes what is done to it, fails when it is told to, and knows what a power cut takes.

:class:`Disk` is a way of SQLite's to the file system (a VFS): what is written goes to the real
files, and what is read comes from them. Only a sync is not passed on: that nothing outlasts a power
cut without it is seen by :class:`Platter`, which goes through the noted operations and tells what
would be left of the files after any of them.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Literal, NamedTuple

import apsw

__all__ = ["Disk", "Operation", "Platter", "contents", "put"]

SECTOR = 512
"""Bytes that a disk writes whole or not at all."""

_numbers = itertools.count()


class Operation(NamedTuple):
    """Something done to a file, in full or in part; ``file`` is its name without directories.

    ``at`` is the place of a write, the new size of a truncation. With ``directory`` the names in
    the directory are synced too, as SQLite does when a new journal is first synced.
    """

    kind: Literal["create", "write", "truncate", "sync", "failed sync", "delete"]
    file: str
    at: int = 0
    data: bytes = b""
    directory: bool = False


class _Fault(NamedTuple):
    """Which operations fail, and how: from the one with that number on, counted from 1."""

    number: int
    error: type[apsw.Error]
    lasting: bool
    short: bool
    blind: bool


class Disk(apsw.VFS):
    """See the module. ``name`` is what connections ask for.

    Writes, truncations, syncs and deletions are counted over all files, from the last :meth:`fail`
    or :meth:`count_anew` on; ``failures`` is how many have failed since.
    """

    def __init__(self) -> None:
        self.name = f"disk-{next(_numbers)}"
        self.operations: list[Operation] = []
        self.count = 0
        self.failures = 0
        self.reads = 0
        self._fault: _Fault | None = None
        self._read_fault = 0
        self._reads_stay_broken = True
        super().__init__(self.name, "")

    # --- what is to fail ---

    def count_anew(self) -> None:
        """Forget what was done."""
        self.operations.clear()
        self.count = self.failures = self.reads = 0

    def fail(
        self,
        number: int,
        error: type[apsw.Error] = apsw.IOError,
        *,
        lasting: bool = False,
        short: bool = False,
        blind: bool = False,
    ) -> None:
        """Let an operation fail, the ``number``-th from now on, or all from that one on.

        With ``short`` half of what a failing write brings is written. With ``blind`` nothing can be
        read either while the disk stays broken.
        """
        self.count = self.failures = 0
        self._fault = _Fault(number, error, lasting, short, blind)

    def fail_reads(self, number: int, *, lasting: bool = True) -> None:
        """Let a read fail, the ``number``-th from now on, or all from that one on."""
        self.reads = self.failures = 0
        self._read_fault = number
        self._reads_stay_broken = lasting

    def heal(self) -> None:
        """Let nothing fail any more."""
        self._fault = None
        self._read_fault = 0

    @property
    def broken(self) -> bool:
        """Whether something has failed, and will go on failing."""
        lasting = self._fault is not None and self._fault.lasting
        blind = self._read_fault > 0 and self._reads_stay_broken
        return self.failures > 0 and (lasting or blind)

    # --- what the files ask ---

    def begin(self) -> _Fault | None:
        """Count an operation; the fault that it has."""
        fault = self._fault
        self.count += 1
        if fault is None or self.count < fault.number:
            return None
        if self.count > fault.number and not fault.lasting:
            return None
        self.failures += 1
        return fault

    def read(self) -> None:
        """Count a read, which may fail."""
        self.reads += 1
        fails = self._fault is not None and self._fault.blind and self.broken
        if self._read_fault:
            past = self.reads - self._read_fault
            fails |= past == 0 or (past > 0 and self._reads_stay_broken)
        if fails:
            self.failures += 1
            raise apsw.IOError("this disk cannot be read")

    # --- SQLite's hooks ---

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        """Open a file, which may be new."""
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: FBT001 - SQLite's signature
        """Delete a file."""
        file = Path(filename).name
        fault = self.begin()
        if fault is not None:
            raise fault.error(f"this disk cannot delete {file}")
        super().xDelete(filename, syncdir)
        self.operations.append(Operation("delete", file, directory=syncdir))


class _File(apsw.VFSFile):
    """A file of a :class:`Disk`."""

    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        path = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._disk = disk
        self._file = Path(path or "").name
        journals = apsw.SQLITE_OPEN_WAL | apsw.SQLITE_OPEN_MAIN_JOURNAL
        creates = bool(flags[0] & apsw.SQLITE_OPEN_CREATE)
        self._directory_due = creates and bool(flags[0] & journals)
        new = path is not None and not Path(path).exists()
        super().__init__("", name, flags)
        if new:
            disk.operations.append(Operation("create", self._file))

    def xRead(self, amount: int, offset: int) -> bytes:
        """Read from the real file."""
        self._disk.read()
        return super().xRead(amount, offset)

    def xWrite(self, data: bytes, offset: int) -> None:
        """Write all, or half, or nothing."""
        fault = self._disk.begin()
        if fault is not None:
            data = bytes(data)[: len(data) // 2 if fault.short else 0]
        if data:
            super().xWrite(data, offset)
            self._disk.operations.append(Operation("write", self._file, offset, bytes(data)))
        if fault is not None:
            raise fault.error(f"this disk cannot write {self._file}")

    def xTruncate(self, newsize: int) -> None:
        """Give the file another size."""
        fault = self._disk.begin()
        if fault is not None:
            raise fault.error(f"this disk cannot truncate {self._file}")
        super().xTruncate(newsize)
        self._disk.operations.append(Operation("truncate", self._file, newsize))

    def xSync(self, flags: int) -> None:
        """Note that what was written is to be on the platter."""
        fault = self._disk.begin()
        if fault is not None:
            self._disk.operations.append(Operation("failed sync", self._file))
            raise fault.error(f"this disk cannot sync {self._file}")
        self._disk.operations.append(Operation("sync", self._file, directory=self._directory_due))
        self._directory_due = False


class _Blob:
    """A file's content: what is on the platter, and what is only written."""

    def __init__(self, content: bytes = b"") -> None:
        self.synced = bytearray(content)
        self.written: list[Operation] = []


class Platter:
    """What of ``files`` would be there after a power cut, operation for operation.

    A system may forget what it could not sync, and call the next sync a success; with
    ``forgetful`` it does.
    """

    def __init__(self, files: Mapping[str, bytes], *, forgetful: bool = False) -> None:
        self._files = {name: _Blob(content) for name, content in files.items()}
        self._synced = dict(self._files)
        self._forgetful = forgetful

    def do(self, operations: Sequence[Operation]) -> None:
        """Let these operations happen."""
        for operation in operations:
            self._do(operation)

    def _do(self, operation: Operation) -> None:
        if operation.kind == "create":
            self._files[operation.file] = _Blob()
        elif operation.kind == "delete":
            del self._files[operation.file]
        else:
            self._change(self._files[operation.file], operation)
        if operation.directory:
            self._synced = dict(self._files)

    def _change(self, blob: _Blob, operation: Operation) -> None:
        if operation.kind == "sync":
            for written in blob.written:
                _apply(blob.synced, written)
            blob.written.clear()
        elif operation.kind != "failed sync":
            blob.written.append(operation)
        elif self._forgetful:
            blob.written.clear()

    def after_cut(self, random: Random | None = None) -> dict[str, bytes]:
        """The files as they are found: with what was synced, and with ``random`` some of the rest.

        Of what was not synced, each write is there, or not, or in part.
        """
        names = self._synced if random is None or random.random() < 1 / 2 else self._files
        return {name: _left(blob, random) for name, blob in names.items()}

    def after_kill(self) -> dict[str, bytes]:
        """The files as they are found when only the process has ended."""
        found = {}
        for name, blob in self._files.items():
            content = bytearray(blob.synced)
            for operation in blob.written:
                _apply(content, operation)
            found[name] = bytes(content)
        return found


def _left(blob: _Blob, random: Random | None) -> bytes:
    content = bytearray(blob.synced)
    if random is not None:
        for operation in blob.written:
            fate = random.choice(("kept", "kept", "torn", "lost"))
            if fate == "torn" and operation.kind == "write":
                sectors = random.randrange(len(operation.data) // SECTOR + 1)
                _apply(content, operation._replace(data=operation.data[: sectors * SECTOR]))
            elif fate == "kept":
                _apply(content, operation)
    return bytes(content)


def _apply(content: bytearray, operation: Operation) -> None:
    """Do to ``content`` what the operation did to its file."""
    size = operation.at
    if operation.kind == "truncate":
        del content[size:]
    if len(content) < size:
        content.extend(bytes(size - len(content)))
    if operation.kind == "write":
        content[size : size + len(operation.data)] = operation.data


def contents(directory: Path, database: str) -> dict[str, bytes]:
    """A database and its journals as they are now, but for what only living processes share."""
    names = (database, f"{database}-wal", f"{database}-journal")
    return {name: (directory / name).read_bytes() for name in names if (directory / name).exists()}


def put(files: Mapping[str, bytes], directory: Path) -> None:
    """Write files into a new directory."""
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_bytes(content)
