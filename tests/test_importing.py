"""Exports come into logs that have something already, each thing once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from hypothesis import given, settings
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite.file import Unusable
from chatsvc.store.sqlite.soundness import problems
from chatsvc.store.sqlite.transfer import BadLine
from tests.logbook import Log, exported, imported, sample, steps, tables, written
from tests.store_suite.driver import to, topic
from tests.test_transfer import GOLDEN

__all__ = ["LINES", "Importing"]

LINES = GOLDEN.splitlines(keepends=True)


class Importing(SynchronousTestCase):
    """Tests with an export and a log into which it comes."""

    def setUp(self) -> None:
        """Make a directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "chat.sqlite"
        self.source = self.directory / "source.sqlite"

    def assert_refused(self, export: bytes, *words: str, line: int | None = None) -> None:
        """It is not imported, for a reason in so many words, and nothing is changed."""
        before = tables(self.path) if self.path.exists() else None
        with self.assertRaises(BadLine) as caught:
            imported(self.path, export)
        reason = str(caught.exception)
        if line is not None:
            self.assertEqual(caught.exception.number, line, reason)
        for word in (f"line {caught.exception.number}: ", *words):
            self.assertIn(word, reason)
        self.assertNotIn("\n", reason)
        self.assertEqual(tables(self.path) if self.path.exists() else None, before)


class IntoALogWithEntries(Importing):
    """What is new comes in, what is there stays as it is, and the log gets another name."""

    def fork(self, *, old: Callable[[Log], None]) -> None:
        """Two logs with the same past, as when a copy of the files was put into use."""
        with written(self.path) as log:
            old(log)
        shutil.copy(self.path, self.source)

    def merge(self) -> None:
        """One's export comes into the other."""
        imported(self.path, exported(self.source))
        self.assertEqual(list(problems(self.path)), [])

    def test_what_is_there_already_is_passed_over(self) -> None:
        """Only the epoch is another one."""
        self.fork(old=sample)
        expected = tables(self.path)
        self.merge()
        expected["log"] = [(1, "imported", 13, 1)]
        self.assertEqual(tables(self.path), expected)

    def test_whatever_has_happened_comes_in_once(self) -> None:
        """Every entry and every key of both; importing it again changes the epoch alone."""

        @settings(deadline=None, database=None, max_examples=30)
        @given(past=steps(), future=steps())
        def hold(past: Callable[[Log], None], future: Callable[[Log], None]) -> None:
            self.path.unlink(missing_ok=True)
            self.fork(old=past)
            with written(self.source) as log:
                future(log)
            here, there = tables(self.path), tables(self.source)
            self.merge()
            merged = tables(self.path)
            for table in ("entries", "keys"):
                self.assertEqual(set(merged[table]), {*here[table], *there[table]})
            self.assertEqual(merged["log"][0][2], there["log"][0][2])
            imported(self.path, exported(self.source), "again")
            self.assertEqual({**tables(self.path), "log": merged["log"]}, merged)

        hold()

    def test_new_entries_come_in_at_their_places(self) -> None:
        """Above the head, which is theirs then, with their keys."""
        self.fork(old=sample)
        with written(self.source) as log:
            log.send("alice", to("bob"), "new", key="k3", digest=b"3")
        self.merge()
        expected, now = tables(self.source), tables(self.path)
        self.assertEqual(now["entries"], expected["entries"])
        self.assertEqual(now["keys"], expected["keys"])
        self.assertEqual(now["log"], [(1, "imported", 14, 1)])

    def test_the_higher_head_stays(self) -> None:
        """The next place is one that nobody has seen."""
        self.fork(old=sample)
        with written(self.path) as log:
            log.send("alice", to("bob"), "newer")
        self.merge()
        self.assertEqual(tables(self.path)["log"], [(1, "imported", 14, 1)])

    def test_a_place_is_had_once(self) -> None:
        """Another entry there, and nothing is imported."""
        self.fork(old=sample)
        for path, text in ((self.path, "one"), (self.source, "other")):
            with written(path) as log:
                log.send("alice", to("bob"), text)
        self.assert_refused(exported(self.source), "another entry has the `seq` 14", line=14)

    def test_what_has_expired_does_not_come_back(self) -> None:
        """Its place is at or below the floor, and nothing is imported."""
        self.fork(old=sample)
        with written(self.path, days=31) as log:
            log.wait(31)
        self.assert_refused(exported(self.source), "expired up to 13", line=2)

    def test_a_key_is_bound_once(self) -> None:
        """To other content, and nothing is imported."""
        self.fork(old=sample)
        with written(self.path) as log:
            log.send("alice", to("bob"), key="k3", digest=b"3")
        with written(self.source, days=31) as log:
            log.send("alice", to("bob"), key="k3", digest=b"4")
            log.wait(31)
        export = exported(self.source)
        number = next(n for n, line in enumerate(export.splitlines(), 1) if b'"key":"k3"' in line)
        self.assert_refused(export, "this key of alice is bound to something else", line=number)

    def test_the_newer_of_two_retained_messages_stays(self) -> None:
        """Whichever log it is in."""
        self.fork(old=sample)
        with written(self.source) as log:
            log.send("carol", topic("a/b"), "newest", retain=True)
        expected = tables(self.source)["retained"]
        self.merge()
        self.assertEqual(tables(self.path)["retained"], expected)
        imported(self.path, GOLDEN)
        self.assertEqual(tables(self.path)["retained"], expected)

    def test_a_retained_message_stands_at_no_others_place(self) -> None:
        """It would be taken for it."""
        with written(self.path) as log:
            for _ in range(4):
                log.send("alice", to("bob"))
        header = LINES[0].replace(b'"entry":12,"key":2', b'"entry":0,"key":0')
        export = header + b"".join(LINES[15:])
        self.assert_refused(export, "another entry has the `seq` 4", line=2)

    def test_known_users_are_left_as_they_are(self) -> None:
        """Positions, devices, filters, marks: whatever they have done since."""
        self.fork(old=sample)
        with written(self.path) as log:
            log.task(lambda rules: rules.save_positions({("bob", "phone"): 9, ("bob", None): 8}))
            log.task(lambda rules: rules.subscribe("bob", "new"))
            log.task(lambda rules: rules.mark_read("bob", to("alice"), 13))
            log.task(lambda rules: rules.admit("alice"))
        with written(self.source) as log:
            log.task(lambda rules: rules.subscribe("bob", "other"))
            log.task(lambda rules: rules.start_after("bob", "tv", None, None))
        expected = tables(self.path)
        self.merge()
        now = tables(self.path)
        for table in ("users", "devices", "hearings", "marks", "unseen"):
            self.assertEqual(now[table], expected[table])

    def test_new_users_come_with_all_that_is_theirs(self) -> None:
        """Devices, filters, marks, and what waits for them."""
        self.fork(old=sample)
        with written(self.source) as log:
            log.task(lambda rules: rules.admit("dave"))
            log.task(lambda rules: rules.start_after("dave", "tv", None, None))
            log.task(lambda rules: rules.subscribe("dave", "#"))
            log.send("dave", to("eve"))
            log.task(lambda rules: rules.mark_read("dave", to("eve"), 14))
        expected = tables(self.source)
        expected["log"] = [(1, "imported", 14, 1)]
        self.merge()
        self.assertEqual(tables(self.path), expected)

    def test_a_mark_of_somebody_unknown_comes_in_once(self) -> None:
        """Who only writes to itself is no user, and has read it all the same."""
        self.fork(old=lambda _: None)
        with written(self.source) as log:
            log.send("zoe", to("zoe"))
            log.task(lambda rules: rules.mark_read("zoe", to("zoe"), 1))
        for _ in range(2):
            self.merge()
            self.assertEqual(tables(self.path)["marks"], [("zoe", "d/zoe|zoe", 1)])

    def test_new_groups_come_with_their_members(self) -> None:
        """Also with those that were known already, and what these hear of it."""
        self.fork(old=sample)
        with written(self.source) as log:
            log.join("bob", "new")
            log.join("dave", "new")
            log.leave("bob", "new")
        expected = tables(self.source)
        expected["log"] = [(1, "imported", 17, 1)]
        self.merge()
        self.assertEqual(tables(self.path), expected)

    def test_nobody_comes_back_who_has_left(self) -> None:
        """Neither into a group that goes on, nor into one that has ended."""
        for name, leavers in (("devs", ("bob",)), ("devs", ("bob", "carol"))):
            self.path.unlink(missing_ok=True)
            self.fork(old=sample)
            with written(self.path) as log:
                for user in leavers:
                    log.leave(user, name)
            expected = tables(self.path)
            expected["log"] = [(1, "imported", expected["log"][0][2], 1)]
            self.merge()
            self.assertEqual(tables(self.path), expected)

    def test_nothing_comes_in_that_would_not_be_sound(self) -> None:
        """A group with a member that nobody knows."""
        with written(self.path) as log:
            log.send("alice", topic("a"))
        before = tables(self.path)
        counts = dict.fromkeys(json.loads(LINES[0])["counts"], 0) | {"group": 1, "member": 1}
        header = {**json.loads(LINES[0]), "counts": counts}
        export = json.dumps(header).encode() + b"\n" + b"".join(LINES[-3:-1])
        with self.assertRaisesRegex(Unusable, "bob is a member of devs, but no user"):
            imported(self.path, export)
        self.assertEqual(tables(self.path), before)

    def test_a_log_without_entries_becomes_the_other(self) -> None:
        """Who has only been there is forgotten; the epoch is that of the export."""
        with written(self.path, "mine") as log:
            log.task(lambda rules: rules.admit("zoe"))
            log.task(lambda rules: rules.subscribe("zoe", "#"))
            log.task(lambda rules: rules.start_after("zoe", "tv", None, None))
        self.assert_refused(b"".join(LINES[:-1]))
        imported(self.path, GOLDEN)
        self.assertEqual(exported(self.path), GOLDEN)

    def test_a_log_in_use_takes_nothing(self) -> None:
        """Who uses it would not know."""
        with written(self.path) as log:
            sample(log)
            with self.assertRaisesRegex(Unusable, "in use by another server"):
                imported(self.path, GOLDEN)
