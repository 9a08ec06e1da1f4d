"""Whether a log is as it should be: what SQLite can tell, and what only we know.

SQLite knows whether the pages of the file and its indexes belong together. We know that the columns
in which entries are looked for say what the entries say, that each entry has the places it must
have, that entries stand within the bounds of the log, and that members and what they hear agree. It
is only read, as of one moment, also while a server writes.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from chatsvc.messages.entries import Entry
from chatsvc.store.sqlite.file import LogFile, Unusable, explained
from chatsvc.store.sqlite.places import RUNS
from chatsvc.store.sqlite.schema import APPLICATION_ID, MIGRATIONS, columns_of

__all__ = ["contradictions", "problems", "snapshot"]

STEPS: Final = 1_000_000
"""Of SQLite's work, between which a signal is noticed: some milliseconds."""

_decode = msgspec.json.Decoder(Entry).decode

_CONTRADICTIONS: Final = {
    "{1} is a member of {0}, but no user": """
        SELECT name, user FROM members WHERE user NOT IN (SELECT name FROM users)""",
    "{1} is a member of {0}, which is no group": """
        SELECT name, user FROM members WHERE name NOT IN (SELECT name FROM groups)""",
    "{1} is a member of {0}, but does not hear it": """
        SELECT name, user FROM members AS m WHERE NOT EXISTS (
            SELECT 1 FROM hearings AS h
            WHERE h.user = m.user AND kind = 'group' AND what = m.name AND until IS NULL)""",
    "{1} hears {0}, but is no member of it": """
        SELECT what, user FROM hearings AS h
        WHERE kind = 'group' AND until IS NULL AND NOT EXISTS (
            SELECT 1 FROM members AS m WHERE m.name = what AND m.user = h.user)""",
}


_PLACES: Final = {
    "entry {1} has no place in {0}": f"""
        WITH due (run, seq) AS (SELECT run, seq FROM ({RUNS}))
        SELECT run, seq FROM due AS d WHERE NOT EXISTS (
            SELECT 1 FROM places AS p WHERE p.run = d.run AND p.seq = d.seq)""",
    "entry {1} has a place in {0}, where it does not belong": """
        SELECT run, p.seq FROM places AS p LEFT JOIN entries AS e ON e.seq = p.seq
        WHERE p.seq <= ?1 OR p.seq > ?2 OR run NOT IN (
            coalesce(talk, ''), iif(receiver IS NULL, '', 's/' || sender),
            iif(receiver <> sender, 'r/' || receiver, ''))""",
}


@contextmanager
def snapshot(path: Path) -> Iterator[apsw.Connection]:
    """A log as it is at one moment; nothing is made where there is none.

    :raises Unusable: it cannot be read.
    """
    path = Path(os.path.realpath(path))
    if not path.is_file():
        raise Unusable(f"{path} is {'no file' if path.exists() else 'not there'}")
    file = LogFile(path, new_epoch=str)  # none is made
    with explained(path), closing(file.connect_reader()) as connection, connection:
        connection.set_progress_handler(lambda: False, STEPS)
        version = connection.pragma("user_version")
        if connection.pragma("application_id") != APPLICATION_ID:
            raise Unusable(f"{path} is not a database of chatsvc")
        if version != len(MIGRATIONS):
            raise Unusable(
                f"{path} is in format {version}, this chatsvc has {len(MIGRATIONS)}: "
                "a server brings an older one into its own format when it starts"
            )
        connection.execute("SELECT head FROM log").fetchall()
        yield connection


def problems(path: Path) -> Generator[str, None, None]:
    """All that is wrong with a log, one after another, as it is found.

    :raises Unusable: it cannot be read.
    """
    with snapshot(path) as connection:
        for (found,) in connection.execute("PRAGMA integrity_check"):
            if found != "ok":
                yield found
        yield from _out_of_bounds(connection)
        for *columns, body in connection.execute(
            "SELECT seq, ts, talk, sender, receiver, topic, body FROM entries ORDER BY seq"
        ):
            if _columns(body) != tuple(columns):
                yield f"entry {columns[0]} is not what its columns say"
        yield from _misplaced(connection)
        for topic, seq, body in connection.execute("SELECT topic, seq, body FROM retained"):
            found = _columns(body)
            if found is None or (found[0], found[-1]) != (seq, topic):
                yield f"the retained message of {topic} is not what its columns say"
        yield from contradictions(connection)


def _out_of_bounds(connection: apsw.Connection) -> Iterator[str]:
    """Where the bounds of the log do not agree with what is in it."""
    head, floor, placed, first, last = connection.execute(
        "SELECT head, floor, placed, (SELECT min(seq) FROM entries),"
        " (SELECT max(seq) FROM entries) FROM log"
    ).get
    if floor > head:
        yield f"the log has expired up to {floor}, but ends with {head}"
    if placed > head:
        yield f"entries up to {placed} have their places, but the log ends with {head}"
    if last is not None and last > head:
        yield f"there is an entry {last}, but the log ends with {head}"
    if first is not None and first <= floor:
        yield f"there is an entry {first}, but the log has expired up to {floor}"


def _misplaced(connection: apsw.Connection) -> Iterator[str]:
    """Where an entry does not have just the places it must have."""
    placed = connection.execute("SELECT placed FROM log").get
    for words, statement in _PLACES.items():
        for found in connection.execute(statement, (0, placed)):
            yield words.format(*found)


def contradictions(connection: apsw.Connection) -> Iterator[str]:
    """Where users, groups, members and what they hear do not agree."""
    for words, statement in _CONTRADICTIONS.items():
        for found in connection.execute(statement):
            yield words.format(*found)


def _columns(body: str) -> tuple[Any, ...] | None:
    """What the columns of an entry must be, None where it cannot be read."""
    try:
        return columns_of(_decode(body))
    except msgspec.DecodeError:
        return None
