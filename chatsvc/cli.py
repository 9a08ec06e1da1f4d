"""``chatsvc``: what operators do with a log beside the server.

It backs up, exports, imports and checks; :mod:`chatsvc.store.sqlite.transfer` and
:mod:`chatsvc.store.sqlite.soundness` know how. It ends with status 0, with 1 and one line that
tells what is wrong, with 2 where it was called wrongly, or as a shell tells of a signal, quietly.
No reactor runs here, and none is loaded.
"""

from __future__ import annotations

import getopt
import os
import secrets
import signal
import sys
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, BinaryIO, ClassVar, Final, cast

from twisted.python import usage

from chatsvc import __version__
from chatsvc.store.sqlite.file import Unusable, explained
from chatsvc.store.sqlite.soundness import problems
from chatsvc.store.sqlite.transfer import (
    BadLine,
    Progress,
    back_up,
    export_log,
    import_log,
    new_file,
)

__all__ = ["main"]

STANDARD: Final = "-"
"""The name of standard input and standard output."""


class _Options(usage.Options):
    """What can be given to every command."""

    def opt_version(self) -> None:
        """Display the version and exit."""
        sys.stdout.write(f"chatsvc {__version__}\n")
        sys.exit(0)


class _Command(_Options):
    """A command, and what can be given to it: from ``fewest`` to ``most`` files."""

    fewest = 0
    most = 0
    optParameters: ClassVar = [
        ["store", "s", "sqlite:chat.sqlite", "Where the log is kept: sqlite:FILE."],
    ]

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """As usual, but options can stand behind a file as well."""
        try:
            given, files = getopt.gnu_getopt(list(options or ()), self.shortOpt, self.longOpt)
        except getopt.GetoptError as error:
            raise usage.UsageError(str(error)) from None
        takes_value = {f"--{name}" for name in self.longOpt}
        words = [
            f"{name}={value}" if f"{name}=" in takes_value else f"{name}{value}"
            for name, value in given
        ]
        super().parseOptions([*words, "--", *files])

    def parseArgs(self, *files: str) -> None:
        """The file that it is about."""
        if not self.fewest <= len(files) <= self.most:
            raise usage.UsageError("wrong number of files")
        self["file"] = files[0] if files else STANDARD

    def postOptions(self) -> None:
        """Where the log is."""
        kind, _, name = self["store"].partition(":")
        if kind != "sqlite" or not name:
            raise usage.UsageError(f"--store {self['store']}: must be sqlite:FILE")
        self["place"] = Path(name)

    @abstractmethod
    def run(self) -> int:
        """Do it; the exit status."""


class Backup(_Command):
    """``chatsvc backup``."""

    fewest = most = 1
    synopsis = "FILE [options]"
    longdesc = (
        "Copies the log as it is now into FILE, which must not exist. A server may run meanwhile. "
        "The copy is a database that a server can be started on, as a log with an epoch of its own."
    )

    def run(self) -> int:
        """Do it."""
        with _bar("backup") as progress:
            target = Path(self["file"])
            back_up(self["place"], target, new_epoch=_new_epoch, progress=progress)
        return 0


class Export(_Command):
    """``chatsvc export``."""

    most = 1
    synopsis = "[FILE] [options]"
    longdesc = (
        "Writes the log as it is now as lines of JSON, into FILE, which must not exist, or to "
        "standard output. A server may run meanwhile."
    )

    def run(self) -> int:
        """Do it."""
        to_terminal = self["file"] == STANDARD and os.isatty(1)
        with (
            _bar("export", hidden=to_terminal) as progress,
            closing(export_log(self["place"], progress)) as lines,
        ):
            header = next(lines)  # before a file is made
            with _output(self["file"]) as output:
                output.write(header)
                output.writelines(lines)
        return 0


class Import(_Command):
    """``chatsvc import``."""

    most = 1
    synopsis = "[FILE] [options]"
    longdesc = (
        "Adds what was exported to the log, or makes one of it, from FILE or standard input. "
        "The server must be stopped. Either all of it is added or, if anything is wrong, nothing."
    )

    def run(self) -> int:
        """Do it."""
        name = "standard input" if self["file"] == STANDARD else self["file"]
        with _input(self["file"]) as source, _bar("import") as progress:
            try:
                import_log(self["place"], source, new_epoch=_new_epoch, progress=progress)
            except BadLine as error:
                raise Unusable(f"{name}: {error}") from None
        return 0


class Check(_Command):
    """``chatsvc check``."""

    synopsis = "[options]"
    longdesc = "Looks whether the log is sound. A server may run meanwhile; nothing is changed."

    def run(self) -> int:
        """Do it."""
        status = 0
        with closing(problems(self["place"])) as found, _output(STANDARD) as output:
            for problem in found:
                status = 1
                output.write(f"{problem}\n".encode())
            if status == 0:
                output.write(b"ok\n")
        return status


class Options(_Options):
    """What can be given to ``chatsvc``."""

    longdesc = "For the operator of a chat server. Each COMMAND has a --help of its own."
    subCommands: ClassVar[list[list[Any]]] = [
        ["backup", None, Backup, "Copy the log into a file, while a server runs or not."],
        ["export", None, Export, "Write the log as lines of JSON, while a server runs or not."],
        ["import", None, Import, "Add lines of JSON to the log, while no server runs."],
        ["check", None, Check, "Look whether the log is sound, while a server runs or not."],
    ]

    def getSynopsis(self) -> str:
        """How to call it."""
        return "Usage: chatsvc" if self.subCommand else "Usage: chatsvc COMMAND [options]"

    def postOptions(self) -> None:
        """There must be something to do."""
        if self.subCommand is None:
            names = ", ".join(str(each[0]) for each in self.subCommands)
            raise usage.UsageError(f"one of the commands {names} is needed")


def main() -> int:
    """Do what the command line says; the exit status."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        options = Options()
        options.parseOptions()
        return cast("_Command", options.subOptions).run()
    except usage.UsageError as error:
        return _complain(f"{error} (see chatsvc --help)", 2)
    except Unusable as error:
        return _complain(str(error), 1)
    except BrokenPipeError:
        return 128 + signal.SIGPIPE
    except OSError as error:
        where = "" if error.filename is None else f"{error.filename}: "
        return _complain(f"{where}{error.strerror or error}", 1)


def _end(number: int, _: FrameType | None) -> None:
    """End as a signal wants it, after whatever was begun has been taken back."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def _complain(text: str, status: int) -> int:
    sys.stderr.write(f"chatsvc: {text.replace(chr(10), ' ')}\n")
    return status


def _new_epoch() -> str:
    return secrets.token_hex(8)


@contextmanager
def _output(name: str) -> Iterator[BinaryIO]:
    """A new file, which is there when it is whole; or standard output."""
    if name == STANDARD:
        try:
            with open(1, "wb", closefd=False) as output:
                yield output
        except BrokenPipeError:
            raise
        except OSError as error:
            raise Unusable(f"standard output: {error.strerror}") from None
        return
    target = Path(name)
    with (
        explained(target),
        new_file(target) as partial,
        open(partial, "xb", opener=_private) as output,
    ):
        yield output


def _private(name: str, flags: int) -> int:
    return os.open(name, flags, 0o600)  # only its owner may read what people say


@contextmanager
def _input(name: str) -> Iterator[BinaryIO]:
    """A file, or standard input."""
    if name == STANDARD:
        yield sys.stdin.buffer
        return
    with Path(name).open("rb") as source:
        yield source


@contextmanager
def _bar(what: str, *, hidden: bool = False) -> Iterator[Progress | None]:
    """What shows progress on standard error, None where nobody would see it."""
    if hidden or not sys.stderr.isatty():
        yield None
        return
    from tqdm import tqdm  # noqa: PLC0415 - it takes time to load

    with tqdm(desc=what, unit_scale=True, file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress
