"""Logs go from one place to another, and nothing of them is lost or made up on the way."""

from __future__ import annotations

import io
import json
import stat
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import apsw
from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store import Append
from chatsvc.store.sqlite.file import Unusable
from chatsvc.store.sqlite.soundness import problems
from chatsvc.store.sqlite.transfer import back_up, export_log, import_log, new_file
from tests.logbook import Log, exported, imported, sample, steps, tables, written
from tests.store_suite.driver import group, to, topic

GOLDEN = (Path(__file__).parent / "export-1.ndjson").read_bytes()
"""The export of :func:`~tests.logbook.sample` in format 1, which must be readable for ever."""


class _Places(SynchronousTestCase):
    """Tests with a directory of their own, in which a log is, and where another may come."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "chat.sqlite"
        self.other = self.directory / "other.sqlite"

    def hold(self, *happenings: Callable[[Log], None]) -> bytes:
        """What happens to a log goes to another by an export, all of it; the export."""
        for path in (self.path, self.other):
            path.unlink(missing_ok=True)
        with written(self.path) as log:
            for happen in happenings:
                happen(log)
        export = exported(self.path)
        imported(self.other, export)
        self.assertEqual(tables(self.other), tables(self.path))
        self.assertEqual(exported(self.other), export)
        self.assertEqual(list(problems(self.other)), [])
        return export


class RoundTrips(_Places):
    """An import of an export, where there was no log, makes the log that was exported."""

    def test_an_export_is_what_one_can_read(self) -> None:
        """A line for each thing, in the words of the protocol."""
        self.assertEqual(self.hold(sample), GOLDEN)

    def test_whatever_has_happened_goes_over(self) -> None:
        """Every table, to the last character."""

        @settings(deadline=None, database=None, max_examples=60)
        @given(happen=steps())
        def hold(happen: Callable[[Log], None]) -> None:
            self.hold(happen)

        hold()

    def test_what_is_hard_to_write_down_goes_over(self) -> None:
        """Text that ends strings elsewhere, large data, and data that is more than a line."""
        texts = ("\0", "a\0b", "\"'\\", "\u2028\x85\x0b", "\U0001f600\ud7ff\uffff", "\n", "")
        values = (
            b"null",
            b'["' + b"x" * 500_000 + b'"]',
            b"[" * 100 + b"]" * 100,
            b'{"a" :  123456789012345678901234567890, "a":-0.10e-400}',
            b'{\r\n\t"a": 1}',
            b" 1",
            b'"\\u0000 \\n"',
            '"\U0001f600 \u2028"'.encode(),
        )

        def happen(log: Log) -> None:
            for text in texts:
                log.send("alice", to("bob"), text, origin=text, key=f"k{text}", digest=b"1")
            for data in values:
                log.send("alice", to("bob"), None, data=data)

        lines = self.hold(happen).splitlines()
        self.assertEqual(len([line for line in lines if b'"data":' in line]), 6)
        self.assertEqual(len([line for line in lines if b'"data_base64":' in line]), 2)
        for line in lines:
            json.loads(line)

    def test_who_hears_of_a_crowd_goes_over(self) -> None:
        """In the order in which it was written down."""

        def happen(log: Log) -> None:
            for number in range(60):
                log.join(f"u{number}", "crowd")
            log.leave("u0", "crowd")

        audiences = [
            json.loads(line).get("audience") for line in self.hold(happen).splitlines()[1:]
        ]
        self.assertEqual(
            [sorted(names) for names in audiences if names][-2:], [["u0", "u59"], ["u0"]]
        )

    def test_an_empty_log_goes_over(self) -> None:
        """With its name."""
        self.assertEqual(len(self.hold().splitlines()), 1)

    def test_a_log_goes_on_where_the_exported_one_was(self) -> None:
        """The next place, the keys and the groups are those it would have had."""
        self.hold(sample)
        again = Append(
            op="send", user="alice", address=to("bob"), msg="hi", key="k1", digest=b"\1\xff"
        )
        for path in (self.path, self.other):
            with written(path, days=32) as log:
                retry, new, join = log.do(
                    again,
                    Append(op="send", user="bob", address=group("devs"), msg="on"),
                    Append(op="join", user="carol", address=group("devs")),
                )
            self.assertEqual((retry.seq, retry.dup), (1, True))
            self.assertEqual((new.seq, join.seq), (14, 11))
        self.assertEqual(tables(self.other), tables(self.path))

    def test_it_is_of_one_moment(self) -> None:
        """Whatever is written while it is being read."""
        with written(self.path) as log:
            sample(log)
            lines = export_log(self.path)
            export = next(lines)
            sample(log)
            log.wait(31)
            export += b"".join(lines)
        self.assertEqual(export, GOLDEN)

    def test_it_takes_little_memory(self) -> None:
        """However much there is."""
        with written(self.path) as log:
            data = b'"' + b"x" * 100_000 + b'"'
            for _ in range(300):
                log.send("alice", topic("a"), None, data=data)
        file = self.directory / "export"
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        with file.open("wb") as output:
            output.writelines(export_log(self.path))
        with file.open("rb") as source:
            import_log(self.other, source, new_epoch=str)
        _, peak = tracemalloc.get_traced_memory()
        self.assertGreater(file.stat().st_size, 30_000_000)
        self.assertLess(peak, 3_000_000)

    def test_progress_is_told(self) -> None:
        """Up to the end, of how much there is."""
        with written(self.path) as log:
            log.do(*(Append(op="send", user="a", address=topic("a"), msg="hi"),) * 999)
        told: list[tuple[int, int]] = []
        export = b"".join(export_log(self.path, lambda *progress: told.append(progress)))
        self.assertEqual(told, [(0, 999), (500, 999), (999, 999)])
        told.clear()
        import_log(
            self.other,
            io.BytesIO(export),
            new_epoch=str,
            progress=lambda *progress: told.append(progress),
        )
        self.assertEqual(told, [(500, 999), (999, 999)])


class Backups(_Places):
    """A backup is another log with the same content."""

    def back_up(self) -> None:
        """Make one."""
        back_up(self.path, self.other, new_epoch=lambda: "copied")

    def test_it_has_all_but_the_epoch(self) -> None:
        """And nothing lies beside it; only its owner may read it."""
        with written(self.path) as log:
            sample(log)
            self.back_up()
            expected = tables(self.path)
        before = {path.name for path in self.directory.iterdir()}
        self.assertEqual(before, {"chat.sqlite", "chat.sqlite.lock", "other.sqlite"})
        self.assertEqual(stat.S_IMODE(self.other.stat().st_mode), 0o600)
        self.assertEqual(expected["log"], [(1, "epoch-1", 13, 1)])
        expected["log"] = [(1, "copied", 13, 1)]
        self.assertEqual(tables(self.other), expected)
        self.assertEqual(list(problems(self.other)), [])

    def test_it_does_not_count_as_lost_in_a_power_cut(self) -> None:
        """It is on the disk, also where the log itself need not be."""
        with written(self.path) as log:
            sample(log)
            self.back_up()
        connection = apsw.Connection(str(self.other))
        self.addCleanup(connection.close)
        self.assertIsNone(connection.execute("SELECT boot FROM log").get)

    def test_it_goes_on_by_itself(self) -> None:
        """A server can be started on it, and it is what it was."""
        with written(self.path) as log:
            sample(log)
        self.back_up()
        with written(self.other) as log:
            self.assertEqual(log.send("alice", to("bob")).seq, 14)
        self.assertEqual(tables(self.path)["log"], [(1, "epoch-1", 13, 1)])

    def test_nothing_is_overwritten(self) -> None:
        """Not even by an error."""
        with written(self.path) as log:
            sample(log)
        self.other.write_text("precious")
        with self.assertRaisesRegex(Unusable, r"other\.sqlite is there already"):
            self.back_up()
        self.assertEqual(self.other.read_text(), "precious")

    def test_nothing_is_left_when_it_is_interrupted(self) -> None:
        """At any time."""
        with written(self.path) as log:
            for _ in range(20):
                log.send("alice", topic("a"), "x" * 100_000)
        before = {path.name for path in self.directory.iterdir()}

        def interrupt(done: int, total: int) -> None:
            if done >= total // 2:
                raise SystemExit

        def fail() -> str:
            raise SystemExit

        for arguments in ({"progress": interrupt, "new_epoch": str}, {"new_epoch": fail}):
            self.assertRaises(SystemExit, back_up, self.path, self.other, **arguments)
            self.assertEqual({path.name for path in self.directory.iterdir()}, before)

    def test_what_cannot_be_written_is_told(self) -> None:
        """With the name of what should have been made."""
        with written(self.path):
            pass
        with self.assertRaisesRegex(Unusable, "nowhere.* cannot be used: No such file"):
            back_up(self.path, self.directory / "nowhere" / "x", new_epoch=str)


class NewFiles(_Places):
    """A file has its name when it is whole."""

    def test_it_is_not_there_before(self) -> None:
        """Nor after a failure."""
        with new_file(self.other) as partial:
            partial.write_text("whole")
            self.assertFalse(self.other.exists())
        self.assertEqual([path.name for path in self.directory.iterdir()], ["other.sqlite"])
        with self.assertRaises(ZeroDivisionError), new_file(self.path) as partial:
            partial.write_text(str(1 // 0))
        self.assertEqual([path.name for path in self.directory.iterdir()], ["other.sqlite"])

    def test_what_came_meanwhile_is_not_overwritten(self) -> None:
        """The first stays."""
        with self.assertRaises(Unusable), new_file(self.other) as partial:
            partial.write_text("second")
            self.other.write_text("first")
        self.assertEqual([path.name for path in self.directory.iterdir()], ["other.sqlite"])
        self.assertEqual(self.other.read_text(), "first")
