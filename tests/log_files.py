"""What tests of the database file have in common."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import apsw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite.file import Durability, LogFile, Unusable
from chatsvc.store.sqlite.schema import MIGRATIONS
from tests.fakes import counter


class FileCase(SynchronousTestCase):
    """Files in a directory of the test's own; each new log is called by the next number."""

    def setUp(self) -> None:
        """Make the directory."""
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "chat.sqlite"
        self.new_epoch = counter("epoch-")

    def open(
        self,
        path: Path | None = None,
        *,
        durability: Durability = "full",
        migrations: Sequence[str] = MIGRATIONS,
    ) -> LogFile:
        """Open a file, until the end of the test."""
        file = LogFile(
            path or self.path,
            new_epoch=self.new_epoch,
            durability=durability,
            migrations=migrations,
        )
        file.open()
        self.addCleanup(file.close)
        return file

    def refused(self, *words: str, path: Path | None = None) -> str:
        """Check that the file is refused in so many words, and that it is left as it was."""
        path = path or self.path
        before = path.read_bytes() if path.is_file() else None
        with self.assertRaises(Unusable) as caught:
            self.open(path)
        for word in words:
            self.assertIn(word, str(caught.exception))
        self.assertEqual(path.read_bytes() if path.is_file() else None, before)
        return str(caught.exception)

    def raw(self, path: Path | None = None) -> apsw.Connection:
        """The database as another program sees it."""
        connection = apsw.Connection(str(path or self.path))
        self.addCleanup(connection.close)
        return connection

    def names(self) -> set[str]:
        """What there is in the directory."""
        return {path.name for path in self.directory.iterdir()}
