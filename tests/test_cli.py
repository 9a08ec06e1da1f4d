"""The real ``chatsvc``: by itself, interrupted, and as the documents say."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw

import chatsvc
from tests.caller import Caller
from tests.calls import Calls
from tests.logbook import exported, sample, tables, written
from tests.server import Server, until
from tests.store_suite.driver import topic
from tests.test_transfer import GOLDEN

ROOT = Path(__file__).parent.parent
COMMANDS = ("backup", "export", "import", "check")


class TheCommandLine(Calls):
    """How it is called."""

    def test_help_tells_all(self) -> None:
        """Every command, and of each what can be given to it."""
        text = self.do("--help").decode()
        for command in COMMANDS:
            self.assertRegex(text, rf"\n +{command} +[A-Z]")
            help_of_it = self.do(command, "--help").decode()
            self.assertRegex(help_of_it, rf"\AUsage: chatsvc {command} ")
            self.assertIn("sqlite:chat.sqlite", help_of_it)

    def test_the_version_is_the_programs(self) -> None:
        """Wherever it is asked for."""
        for arguments in (["--version"], ["check", "--version"]):
            self.assertEqual(self.do(*arguments).decode(), f"chatsvc {chatsvc.__version__}\n")

    def test_a_wrong_call_has_status_2(self) -> None:
        """With what is wrong about it."""
        for words, *arguments in (
            ("backup, export, import, check",),
            ("Unknown command: restore", "restore"),
            ("number of files", "backup"),
            ("number of files", "backup", "a", "b"),
            ("number of files", "check", "a"),
            ("--fast", "export", "--fast"),
            ("--store", "export", "--store"),
            ("must be sqlite:FILE", "export", "--store", "memory:"),
            ("must be sqlite:FILE", "export", "--store", "sqlite:"),
            ("must be sqlite:FILE", "export", "x", "--store=chat.sqlite"),
        ):
            self.refuse(2, words, *arguments)

    def test_where_there_is_no_log_none_is_made(self) -> None:
        """But by an import."""
        for arguments in (["backup", "copy"], ["export"], ["export", "lines"], ["check"]):
            self.refuse(1, "chat.sqlite is not there", *arguments)
        self.refuse(1, "nothing.ndjson: No such file", "import", "nothing.ndjson")

    def test_a_log_has_any_name(self) -> None:
        """An option may stand before the file or after it."""
        with written(self.directory / "other") as log:
            sample(log)
        self.do("export", "--store", "sqlite:other", "one")
        self.do("export", "two", "-s", "sqlite:other")
        self.do("import", "--", "one")
        for path in (self.directory / "one", self.directory / "two"):
            self.assertEqual((path.read_bytes(), path.stat().st_mode & 0o777), (GOLDEN, 0o600))
        self.assertEqual(exported(self.path), GOLDEN)

    def test_it_loads_neither_the_reactor_nor_autobahn(self) -> None:
        """They would take longer than most that it does."""
        with written(self.path) as log:
            sample(log)
        for arguments in (["backup", "copy"], ["export"], ["import", "-"], ["check"]):
            script = (
                "import sys, chatsvc.cli\n"
                f"sys.argv[1:] = {arguments}\n"
                "status = chatsvc.cli.main()\n"
                "print(status, [n for n in ('twisted.internet.reactor', 'autobahn', 'tqdm')"
                " if n in sys.modules], file=sys.stderr)"
            )
            done = subprocess.run(
                [sys.executable, "-c", script],
                cwd=self.directory,
                input=GOLDEN,
                capture_output=True,
                check=True,
            )
            self.assertEqual(done.stderr.decode(), "0 []\n")

    def test_standard_output_and_input_are_meant_by_a_dash_or_nothing(self) -> None:
        """Nothing but the lines is written there."""
        with written(self.path) as log:
            sample(log)
        for dash in ([], ["-"]):
            self.assertEqual(self.do("export", *dash), GOLDEN)
            self.path.unlink()
            with self.start("import", *dash, stdin=subprocess.PIPE) as process:
                process.communicate(GOLDEN, timeout=60)
            self.assertEqual(process.returncode, 0)

    def test_nothing_is_overwritten(self) -> None:
        """Neither by a backup nor by an export."""
        with written(self.path) as log:
            sample(log)
        (self.directory / "precious").write_text("precious")
        for command in ("backup", "export"):
            self.refuse(1, "precious is there already", command, "precious")
        self.assertEqual((self.directory / "precious").read_text(), "precious")

    def test_a_bad_line_is_named(self) -> None:
        """With the file, and nothing is changed."""
        (self.directory / "bad").write_bytes(GOLDEN.replace(b'"seq":5', b'"seq":"5"'))
        self.refuse(1, "bad: line 5: .*seq", "import", "bad")
        self.assertFalse(self.path.exists())

    def test_a_check_says_ok_or_what_is_wrong(self) -> None:
        """With its status, too."""
        with written(self.path) as log:
            sample(log)
        self.assertEqual(self.do("check"), b"ok\n")
        with closing(apsw.Connection(str(self.path))) as connection:
            connection.execute("UPDATE log SET head = 12")
        words = b"there is an entry 13, but the log ends with 12\n"
        self.assertEqual(self.call("check"), (1, words, ""))

    def test_progress_is_shown_on_a_terminal_only(self) -> None:
        """On standard error; otherwise there is nothing."""
        with written(self.path) as log:
            sample(log)
        for arguments in (["backup", "copy"], ["export", "lines"], ["import", "lines"]):
            terminal, other_end = os.openpty()
            termios.tcsetwinsize(other_end, (24, 80))
            with open(terminal, "rb", buffering=0) as shown:  # noqa: PTH123
                with self.start(*arguments, stderr=other_end) as process:
                    os.close(other_end)
                    text = b"".join(_until_closed(shown))
                self.assertEqual(process.returncode, 0, text)
                self.assertRegex(text.decode(), rf"{arguments[0]}: 100%.*\|")


def _until_closed(terminal: Any) -> Iterator[bytes]:
    """What is written to a terminal until nobody has it open any more."""
    try:
        while text := terminal.read(4096):
            yield text
    except OSError:
        return  # as Linux tells of that


class WhenItCannot(Calls):
    """Nobody reads, nobody waits, or there is no room: it ends quietly and leaves nothing."""

    def setUp(self) -> None:
        """Write a log that no pipe holds."""
        super().setUp()
        with written(self.path) as log:
            for _ in range(40):
                log.send("alice", topic("a"), "x" * 50_000)

    def test_who_has_read_enough_may_go(self) -> None:
        """As `head` does."""
        status, output, errors = self.shell("chatsvc export | head -n 1")
        self.assertEqual((status, errors), (128 + signal.SIGPIPE, ""))
        self.assertEqual(json.loads(output)["head"], 40)

    def test_an_output_that_takes_nothing_is_told(self) -> None:
        """A full disk, say."""
        for command in ("export", "check"):
            status, _, errors = self.shell(f"chatsvc {command} > /dev/full")
            self.assertEqual(
                (status, errors), (1, "chatsvc: standard output: No space left on device\n")
            )

    def test_no_part_of_a_file_is_left_where_there_is_no_room(self) -> None:
        """A file may have 500 KB here."""
        before = self.names()
        (self.directory / "lines").write_bytes(exported(self.path))
        for command in ("backup copy", "export copy", "import lines -s sqlite:copy"):
            status, _, errors = self.shell(f"ulimit -f 500; chatsvc {command}")
            self.assertEqual(status, 1, errors)
            self.assertRegex(errors, r"\Achatsvc: [^\n]*copy[^\n]*\n\Z")
            self.assertEqual(self.names() - {"lines", "copy.lock"}, before)

    def test_an_import_that_is_interrupted_changes_nothing(self) -> None:
        """By the keyboard, by a shutdown, or by the end of the terminal."""
        lines = exported(self.path)
        before, expected = self.names(), tables(self.path)
        for name in ("chat", "new"):
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                store = f"sqlite:{name}.sqlite"
                with self.start("import", "-s", store, stdin=subprocess.PIPE) as process:
                    assert process.stdin is not None
                    assert process.stderr is not None
                    process.stdin.write(lines[:1_000_000])
                    process.stdin.flush()
                    self.wait_for_more(process)
                    process.send_signal(number)
                    self.assertEqual(process.wait(10), 128 + number)
                    self.assertEqual(process.stderr.read(), b"")
                self.assertEqual(self.names() - {"new.sqlite.lock"}, before)
                self.assertEqual(tables(self.path), expected)

    def wait_for_more(self, process: subprocess.Popen[bytes]) -> None:
        """Until a process has read all that it was given, and sleeps."""
        pipe = process.stdin
        assert pipe is not None
        stat = Path(f"/proc/{process.pid}/stat")

        def sleeps() -> bool:
            left = fcntl.ioctl(pipe, termios.FIONREAD, bytes(4))
            return not any(left) and stat.read_text().rpartition(")")[2].split()[0] == "S"

        until(sleeps, "all is read")

    def test_an_export_that_is_interrupted_ends_quietly(self) -> None:
        """While it waits for somebody who does not read."""
        with self.start("export") as process:
            assert process.stdout is not None
            assert process.stderr is not None
            self.assertEqual(json.loads(process.stdout.readline())["head"], 40)
            process.send_signal(signal.SIGINT)
            self.assertEqual(process.wait(10), 128 + signal.SIGINT)
            self.assertEqual(process.stderr.read(), b"")


class TheDocument(Calls):
    """What `docs/operating.md` says to type works, in its order."""

    def setUp(self) -> None:
        """Have a log, and the blocks of the document at hand."""
        super().setUp()
        with written(self.path) as log:
            sample(log)
        text = (ROOT / "docs" / "operating.md").read_text(encoding="utf-8")
        self.blocks = re.findall(r"^```console\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)

    def type(self) -> bytes:
        """Type the next block; what is shown."""
        status, output, errors = self.shell(self.blocks.pop(0))
        self.assertEqual((status, errors), (0, ""))
        return output

    def test_it_goes_as_it_says(self) -> None:
        """Backup, restore, export, import, pipes, check."""
        before = tables(self.path)
        with Server(directory=self.directory) as server:
            self.type()
            with Caller(server.url, "zoe") as zoe:
                self.assertEqual(zoe.ask(id=1, to="bob", msg="lost")["seq"], 14)
            server.kill()  # so that something lies beside the database
        self.assertIn("chat.sqlite-wal", self.names())
        self.type()
        restored = tables(self.path)
        self.assertNotEqual(restored["log"], before["log"])
        self.assertEqual({**restored, "log": before["log"]}, before)
        self.type()
        self.type()
        self.type()
        for name in ("elsewhere", "again"):
            self.assertEqual(tables(self.directory / f"{name}.sqlite"), restored)
        self.assertEqual(self.type(), b"ok\n")
        self.assertEqual(self.blocks, [])
        with Server(directory=self.directory) as server, Caller(server.url, "zoe") as zoe:
            self.assertEqual(zoe.ask(id=1, to="bob", msg="on")["seq"], 14)
