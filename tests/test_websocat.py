"""The real websocat, as a person types into it, against the real server."""

from __future__ import annotations

import json
import os
import queue
import shutil
import subprocess
import threading
from typing import Final, Self
from unittest import SkipTest, TestCase

from tests.caller import TIMEOUT
from tests.server import Server

WEBSOCAT: Final = os.environ.get("CHATSVC_WEBSOCAT") or shutil.which("websocat")

LINE: Final = '{"from":"client-a","to":"client-b","msg":"Hello from A!"}'


class Terminal:
    """A websocat with lines typed into it, and those it prints; a context manager."""

    def __init__(self, url: str, *options: str) -> None:
        assert WEBSOCAT is not None
        self._process = subprocess.Popen(
            [WEBSOCAT, "--text", *options, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join(TIMEOUT)
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)

    def type(self, line: str) -> None:
        """Type a line and press Enter."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def printed(self, timeout: float = TIMEOUT) -> str:
        """The next line that it prints.

        :raises AssertionError: there is none in time.
        """
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError(f"nothing printed within {timeout} s") from None

    def silent_for(self, seconds: float) -> bool:
        """Whether it prints nothing."""
        try:
            self._lines.get(timeout=seconds)
        except queue.Empty:
            return True
        return False


class _WithWebsocat(TestCase):
    def setUp(self) -> None:
        """Start a server, if there is a websocat to try it with."""
        if WEBSOCAT is None:
            raise SkipTest("there is no websocat")
        self.server = self.enterContext(Server())

    def tearDown(self) -> None:
        """No complaint in the log."""
        self.assertNotIn("Traceback", self.server.log)

    def terminal(self, query: str = "") -> Terminal:
        """A websocat in a terminal of its own."""
        return self.enterContext(Terminal(self.server.url + query))

    def pipe(self, line: str, *options: str, query: str = "") -> tuple[str, int]:
        """What websocat prints, and its status, for ``echo line | websocat options``."""
        assert WEBSOCAT is not None
        done = subprocess.run(
            [WEBSOCAT, "--text", *options, self.server.url + query],
            input=f"{line}\n",
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            encoding="utf-8",
            timeout=TIMEOUT,
            check=False,
        )
        return done.stdout, done.returncode


class TwoTerminals(_WithWebsocat):
    """Two people at websocat."""

    def test_a_line_is_printed_as_it_was_typed(self) -> None:
        """To the letter, once, with nothing before or after."""
        a = self.terminal()
        a.type('{"op":"ping"}')
        self.assertIn('"pong"', a.printed())
        b = self.terminal()
        a.type(LINE)
        self.assertEqual(b.printed(), LINE + "\n")
        self.assertTrue(b.silent_for(0.5))
        self.assertTrue(a.silent_for(0.1))

    def test_a_line_typed_before_the_other_is_there_waits(self) -> None:
        """It is the first that the other prints."""
        a = self.terminal()
        a.type(LINE)
        a.type('{"op":"ping"}')
        self.assertIn('"pong"', a.printed())
        self.assertEqual(self.terminal().printed(), LINE + "\n")

    def test_they_can_answer_each_other(self) -> None:
        """Under names of their own."""
        a, b = self.terminal("?user=alice"), self.terminal("?user=bob")
        for number in range(5):
            a.type(f'{{"to":"bob","msg":"ping {number}"}}')
            self.assertEqual(b.printed(), f'{{"from":"alice","to":"bob","msg":"ping {number}"}}\n')
            b.type(f'{{"to":"alice","msg":"pong {number}"}}')
            self.assertEqual(a.printed(), f'{{"from":"bob","to":"alice","msg":"pong {number}"}}\n')

    def test_nonsense_is_explained(self) -> None:
        """And the next line works."""
        a = self.terminal()
        a.type("hello?")
        error = json.loads(a.printed())
        self.assertEqual((error["event"], error["code"]), ("error", "bad_request"))
        a.type('{"op":"help","about":"send"}')
        self.assertEqual(json.loads(a.printed())["event"], "help")

    def test_a_stopping_server_says_goodbye(self) -> None:
        """Websocat shows no close code, but it shows the frame; then it ends."""
        a = self.terminal()
        a.type('{"op":"ping"}')
        a.printed()
        self.server.terminate()
        self.assertEqual(json.loads(a.printed())["event"], "closing")
        self.server.wait(timeout=5.0)
        self.assertTrue(a.silent_for(0.1))


class OneLineFromAScript(_WithWebsocat):
    """`echo … | websocat …`."""

    def test_one_answer_is_printed(self) -> None:
        """`-n1`: the line is sent, its `ok` printed, and that is all."""
        printed, status = self.pipe('{"id":1,"to":"client-b","msg":"x"}', "-n1")
        ok = json.loads(printed)
        self.assertEqual((ok["event"], ok["id"], ok["seq"], status), ("ok", 1, 1, 0))

    def test_the_answer_comes_though_the_client_has_closed(self) -> None:
        """Without `-n` websocat closes at the end of its input; the reply is still printed."""
        printed, status = self.pipe('{"id":1,"to":"client-b","msg":"x"}')
        self.assertEqual((json.loads(printed)["event"], status), ("ok", 0))

    def test_several_lines_are_done_in_order(self) -> None:
        """Each with its reply, before the close is answered."""
        lines = "\n".join(f'{{"id":{number},"to":"bob","msg":"{number}"}}' for number in range(50))
        printed, status = self.pipe(lines)
        replies = [json.loads(line) for line in printed.splitlines()]
        self.assertEqual([reply["id"] for reply in replies], list(range(50)))
        self.assertEqual({reply["event"] for reply in replies}, {"ok"})
        self.assertEqual(status, 0)

    def test_what_was_sent_waits_for_its_receiver(self) -> None:
        """Though the script has long ended."""
        self.pipe('{"id":1,"to":"bob","msg":"backup done"}', "-n1", query="?user=cron")
        self.assertEqual(
            self.terminal("?user=bob").printed(),
            '{"from":"cron","to":"bob","msg":"backup done"}\n',
        )
