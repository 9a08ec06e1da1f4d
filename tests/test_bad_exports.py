"""What is not whole and good stays out of every log; the line with the fault is named."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from chatsvc.store.sqlite.file import Unusable
from chatsvc.store.sqlite.soundness import problems
from chatsvc.store.sqlite.transfer import BadLine, import_log
from tests.logbook import exported, imported, written
from tests.store_suite.driver import topic
from tests.test_importing import LINES, Importing
from tests.test_transfer import GOLDEN


class BadExports(Importing):
    """Nothing comes in of what is not whole and good; the line with the fault is named."""

    def refuse(self, export: bytes, *words: str, line: int | None = None) -> None:
        """It comes neither into a log, one time, nor where there is none, the next time."""
        if self.path.exists():
            self.path.unlink()
        else:
            with written(self.path) as log:
                log.send("zoe", topic("a"))
        self.assert_refused(export, *words, line=line)

    def change(self, line: int, old: str, new: str) -> bytes:
        """The export with something else in a line."""
        lines = LINES.copy()
        self.assertIn(old.encode(), lines[line - 1])
        lines[line - 1] = lines[line - 1].replace(old.encode(), new.encode(), 1)
        return b"".join(lines)

    def test_an_end_that_is_missing_is_noticed(self) -> None:
        """Between any two lines, and within any; but for the last line break."""
        for number in range(len(LINES)):
            before = b"".join(LINES[:number])
            self.refuse(before, line=number + 1)
            for cut in (1, len(LINES[number]) // 2, len(LINES[number]) - 2):
                self.refuse(before + LINES[number][:cut], line=number + 1)
        imported(self.source, GOLDEN[:-1])
        self.assertEqual(exported(self.source), GOLDEN)

    def test_a_line_that_is_missing_or_there_twice_is_noticed(self) -> None:
        """Any."""
        for number in range(len(LINES)):
            self.refuse(b"".join(LINES[:number] + LINES[number + 1 :]))
            for more in (LINES[number], b"\n"):
                self.refuse(b"".join([*LINES[:number], more, *LINES[number:]]))

    def test_a_line_in_place_of_another_is_noticed(self) -> None:
        """The same number of lines, or of lines of a type, is not enough."""
        self.refuse(self.change(1, '"user":3,"device":1', '"user":2,"device":2'), line=19)
        for first, last in ((2, 14), (14, 16), (17, 20), (22, 27), (29, 31)):
            for number in range(first, last - 1):
                self.refuse(b"".join([*LINES[: number - 1], LINES[number], *LINES[number:]]))

    def test_the_first_line_must_be_understood(self) -> None:
        """It is an export, in a format that is known, of a log that can be."""
        for export, *words in (
            (b"", "JSON"),
            (b"{}\n", "no export of chatsvc"),
            (b"SQLite format 3\0", "JSON"),
            (self.change(1, '"chatsvc":1', '"chatsvc":2'), "in format 2, only 1 can be read"),
            (self.change(1, '"chatsvc":1', '"chatsvc":"1"'), "no export of chatsvc"),
            (self.change(1, '"floor":1', '"floor":14'), "`floor` is above `head`"),
            (self.change(1, '"floor":1', '"floor":-1'), "floor"),
            (self.change(1, '"head":13,', ""), "head"),
            (self.change(1, '"epoch-1"', '""'), "epoch"),
            (self.change(1, '"mark":1', '"mork":1'), "`counts`"),
            (self.change(1, '"mark":1,', ""), "`counts`"),
        ):
            self.refuse(export, *words, line=1)

    def test_every_field_must_be_what_it_should_be(self) -> None:
        """Its type, its limits, what it has to do with the others."""
        for line, old, new, word in (
            (2, '"seq":2', '"seq":"2"', "seq"),
            (2, '"seq":2', '"seq":1', "floor"),
            (2, '"seq":2', '"seq":14', "head"),
            (3, '"seq":3', '"seq":2', "does not come after"),
            (2, '"ts":', '"t":', "t"),
            (2, '"kind":"message"', '"kind":"news"', "news"),
            (2, '"from":"alice"', '"from":"a|b"', "from"),
            (2, '"to":"bob"', '"to":"bob","topic":"a"', "exactly one"),
            (2, '"to":"bob",', "", "exactly one"),
            (2, '{"a" : [1, "é"]}', "{a}", "JSON"),
            (2, '{"a" : [1, "é"]}', '{"a":"\\ud800"}', "JSON"),
            (2, '{"a" : [1, "é"]}', "1e999", "JSON"),
            (2, '"key":"k2"', '"data_base64":"MQ=="', "one too many"),
            (2, '"key":"k2"', '"role":"owner"', "`role`"),
            (4, ',"msg":"hi"', "", "`msg` or `data`"),
            (5, ',"user":"alice"', "", "`user`"),
            (5, '"group":"devs"', '"to":"bob"', "`group`"),
            (13, '"role":"owner"', '"role":"king"', "role"),
            (13, ',"role":"owner"', "", "`role`"),
            (8, "WwoxXQ==", "WwoxXQ=", "base64"),
            (8, "WwoxXQ==", "Wwox", "the data is not sound JSON"),
            (14, '"01ff"', '"01f"', "digest"),
            (14, '"01ff"', '"01 ff"', "digest"),
            (15, '"seq":2', '"seq":14', "head"),
            (16, '"topic":"a/b"', '"to":"bob"', "retained"),
            (16, '"msg":"hi"', '"msg":"ho"', "another entry"),
            (17, '"name":"alice"', '"name":""', "name"),
            (18, '"seen":true', '"seen":1', "seen"),
            (18, '"position":2', '"position":14', "head"),
            (20, "3678400.0", "null", "used"),
            (22, '"group":"devs"', '"topic":"a//b"', "topic"),
            (22, '"group":"devs",', "", "exactly one"),
            (22, '"until":12', '"until":14', "head"),
            (27, '"to":"alice"', '"to":"alice","group":"devs"', "exactly one"),
            (28, '"public":true', '"public":true,"open":true', "open"),
            (29, '"type":"member"', '"type":"guest"', "guest"),
            (30, '"since":11', '"since":-11', "since"),
        ):
            self.refuse(self.change(line, old, new), word, line=line)

    def test_a_line_must_be_utf_8(self) -> None:
        """All of it, also what is passed on untouched."""
        lines = LINES.copy()
        lines[1] = lines[1].replace("é".encode(), b"\xe9")
        self.refuse(b"".join(lines), "not UTF-8", line=2)

    def test_a_line_has_an_end(self) -> None:
        """One that has none takes no memory."""
        with (
            Path("/dev/zero").open("rb") as endless,
            self.assertRaisesRegex(BadLine, "line 1: it is too long"),
        ):
            import_log(self.path, endless, new_epoch=str)

    def test_depth_is_no_danger(self) -> None:
        """Of what is nested without an end."""
        self.refuse(self.change(2, '{"a" : [1, "é"]}', "[" * 100_000 + "]" * 100_000), line=2)

    def test_whatever_is_damaged_nothing_comes_in_or_what_is_written_there(self) -> None:
        """Any bytes anywhere."""

        @settings(deadline=None, database=None, max_examples=200)
        @given(
            at=st.integers(0, len(GOLDEN) - 1),
            length=st.integers(0, 3),
            put=st.binary(max_size=2) | st.sampled_from([b"0", b'"', b"\n", b"},{"]),
        )
        def hold(at: int, length: int, put: bytes) -> None:
            export = GOLDEN[:at] + put + GOLDEN[at + length :]
            self.source.unlink(missing_ok=True)
            try:
                imported(self.source, export)
            except (BadLine, Unusable):
                self.assertFalse(self.source.exists())
            else:
                self.assertEqual(told(exported(self.source)), told(export))
                self.assertEqual(list(problems(self.source)), [])

        hold()


def told(export: bytes) -> list[str]:
    """What an export tells, however it is written and in whatever order."""
    found = [json.loads(line) for line in export.split(b"\n") if line]
    for each in found:
        if "data_base64" in each:
            each["data_base64"] = base64.b64decode(each["data_base64"]).decode()
    return sorted(json.dumps(each, sort_keys=True) for each in found)


def number(text: str) -> float:
    """A number: 1.0 and 1 are one in JSON."""
    value = float(text)
    return int(value) if value.is_integer() else value
