"""Statements that write many rows at once.

Between any two statements the thread gives up Python's lock and must wait for the reactor to have
it again, so a statement a row is slow however quick each is (measured beside a thread that works as
a reactor does: 18,000 rows a second against 47,000). So :class:`Insert` writes up to
:data:`CHUNKS` rows by one statement that has a place for each value, and :func:`delete_each` makes
one that takes its keys as a JSON document, which SQLite takes apart itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import apsw
import msgspec

__all__ = ["Insert", "delete_each", "delete_rows"]

CHUNKS: Final = (64, 16, 4, 1)
"""How many rows one statement inserts; each is a statement of its own, which stays prepared."""

_encoder: Final = msgspec.json.Encoder()


class Insert:
    """Inserts rows of so many columns; it fails where one is there already.

    With ``replace`` it takes the place of what is there.
    """

    def __init__(self, table: str, columns: int, *, replace: bool = False) -> None:
        row = f"({', '.join('?' * columns)})"
        verb = "INSERT OR REPLACE" if replace else "INSERT"
        self._statements = [
            (count, f"{verb} INTO {table} VALUES {', '.join([row] * count)}") for count in CHUNKS
        ]

    def run(self, connection: apsw.Connection, rows: Sequence[Sequence[Any]]) -> None:
        """Insert ``rows``, if there are any."""
        at = 0
        for count, statement in self._statements:
            while len(rows) - at >= count:
                values = [value for row in rows[at : at + count] for value in row]
                connection.execute(statement, values)
                at += count


def delete_each(table: str, key: Sequence[str]) -> str:
    """A statement that deletes the rows whose key columns are the elements of a JSON array."""
    values = ", ".join(f"value ->> {index}" for index in range(len(key)))
    keys = f"SELECT {values} FROM json_each(?)"
    return f"DELETE FROM {table} WHERE ({', '.join(key)}) IN ({keys})"


def delete_rows(connection: apsw.Connection, statement: str, keys: Sequence[Any]) -> None:
    """Run such a statement for ``keys``."""
    connection.execute(statement, (_encoder.encode(keys).decode(),))
