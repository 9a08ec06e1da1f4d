"""The tables of the database file, and how an older file becomes a newer one.

:data:`MIGRATIONS` are scripts that are never changed once released: the first makes a new file,
each further one changes what the one before it left. A file's ``user_version`` is how many of them
it has had.

``entries`` is the log. What one looks for stands in columns, all of an entry in ``body``, as JSON.
``talk`` is the run of its conversation (:mod:`chatsvc.store.spans`), ``receiver`` stands only in
direct messages, ``topic`` only in those to topics. ``places`` says which entries stand in which
run, so that each run is one stretch of it; how it follows the log is for
:mod:`chatsvc.store.sqlite.places`. The other tables hold what is beside the log, as
:mod:`chatsvc.store.tables` has it.
"""

from __future__ import annotations

from typing import Any, Final

from chatsvc.messages.entries import Entry
from chatsvc.store.spans import talk_of

__all__ = ["APPLICATION_ID", "MIGRATIONS", "columns_of"]

APPLICATION_ID: Final = 0x43484154
"""Tells our files from other SQLite databases: "CHAT"."""

MIGRATIONS: Final = (
    """
    CREATE TABLE log (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        epoch TEXT NOT NULL,
        head INTEGER NOT NULL,   -- the last seq that was given
        floor INTEGER NOT NULL,  -- the last seq that retention removed
        placed INTEGER NOT NULL, -- entries up to this seq have their places
        boot TEXT                -- the boot of the machine in which commits were not synced
    ) STRICT;

    CREATE TABLE entries (
        seq INTEGER PRIMARY KEY,
        ts INTEGER NOT NULL,     -- milliseconds since 1970
        talk TEXT NOT NULL,
        sender TEXT NOT NULL,
        receiver TEXT,
        topic TEXT,
        body TEXT NOT NULL
    ) STRICT;
    CREATE INDEX entries_topic ON entries (seq, topic, sender) WHERE topic IS NOT NULL;

    CREATE TABLE places (
        run TEXT NOT NULL,
        seq INTEGER NOT NULL,
        PRIMARY KEY (run, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE keys (
        user TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        seq INTEGER NOT NULL,
        ts INTEGER NOT NULL,
        PRIMARY KEY (user, key)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE retained (
        topic TEXT PRIMARY KEY,
        seq INTEGER NOT NULL,
        body TEXT NOT NULL
    ) STRICT;

    CREATE TABLE users (
        name TEXT PRIMARY KEY,
        created INTEGER NOT NULL,
        seen INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE devices (
        user TEXT NOT NULL,
        name TEXT NOT NULL,
        position INTEGER NOT NULL,
        used REAL NOT NULL,      -- seconds since 1970
        PRIMARY KEY (user, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE unseen (
        receiver TEXT NOT NULL,
        sender TEXT NOT NULL,
        waiting INTEGER NOT NULL,
        PRIMARY KEY (receiver, sender)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX unseen_sender ON unseen (sender, waiting);

    CREATE TABLE hearings (
        user TEXT NOT NULL,
        kind TEXT NOT NULL,      -- group or topic
        what TEXT NOT NULL,
        after INTEGER NOT NULL,
        until INTEGER,
        PRIMARY KEY (user, kind, what, after)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE groups (
        name TEXT PRIMARY KEY,
        born INTEGER NOT NULL,
        public INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE members (
        name TEXT NOT NULL,      -- of the group
        user TEXT NOT NULL,
        role TEXT NOT NULL,
        since INTEGER NOT NULL,
        PRIMARY KEY (name, user)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX members_user ON members (user, role);

    CREATE TABLE marks (
        user TEXT NOT NULL,
        talk TEXT NOT NULL,
        read INTEGER NOT NULL,   -- the user has read the conversation up to this seq
        PRIMARY KEY (user, talk)
    ) STRICT, WITHOUT ROWID;
    """,
)


def columns_of(entry: Entry) -> tuple[Any, ...]:
    """The columns in which an entry can be looked for: all of ``entries`` but ``body``."""
    kind, name = entry.address.kind, entry.address.name
    return (
        entry.seq,
        entry.ts,
        talk_of(entry),
        entry.sender,
        name if kind == "to" else None,
        name if kind == "topic" else None,
    )
