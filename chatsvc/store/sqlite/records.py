"""The records of groups and users as rows: read when they are needed, written when they changed.

:func:`load_user` and :func:`load_group` make a record of its rows with one statement each.
:class:`CachedTables` are those of the writer: records stay in memory while there is room, and the
rows that the rules touched are written by :meth:`CachedTables.flush`, in the transaction of the
entries they follow from. When that fails, all is forgotten and read again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import apsw
import msgspec
from msgspec import Struct

from chatsvc.store.sqlite.statements import Insert, delete_each, delete_rows
from chatsvc.store.tables import Group, Interval, Row, Tables, User

__all__ = ["ROOM", "CachedTables", "load_group", "load_user"]

ROOM: Final = 200_000
"""Rows in memory, about, above which the records that were not used for longest are forgotten."""

_USER: Final = """
SELECT json_object(
    'created', created, 'seen', json(iif(seen, 'true', 'false')), 'position', position,
    'devices', json((SELECT json_group_array(json_array(d.name, d.position, d.used))
                     FROM devices AS d WHERE d.user = u.name)),
    'hearings', json((SELECT json_group_array(json_array(kind, what, after, until) ORDER BY after)
                      FROM hearings AS h WHERE h.user = u.name)),
    'roles', json((SELECT json_group_array(json_array(m.name, m.role))
                   FROM members AS m WHERE m.user = u.name)),
    'unseen_from', json((SELECT json_group_array(json_array(sender, waiting))
                         FROM unseen WHERE receiver = u.name)),
    'waiting_for_unseen', (SELECT coalesce(sum(waiting), 0) FROM unseen WHERE sender = u.name))
FROM users AS u WHERE u.name = ?
"""
_GROUP: Final = """
SELECT json_object(
    'born', born, 'public', json(iif(public, 'true', 'false')),
    'members', json((SELECT json_group_array(json_array(m.user, m.role, m.since) ORDER BY m.since)
                     FROM members AS m WHERE m.name = g.name)))
FROM groups AS g WHERE g.name = ?
"""
_MARK: Final = "SELECT read FROM marks WHERE user = ? AND talk = ?"

R = TypeVar("R", User, Group)


class _UserRows(Struct):
    created: int
    seen: bool
    position: int
    devices: list[tuple[str, int, float]]
    hearings: list[tuple[str, str, int, int | None]]
    roles: list[tuple[str, str]]
    unseen_from: list[tuple[str, int]]
    waiting_for_unseen: int


class _GroupRows(Struct):
    born: int
    public: bool
    members: list[tuple[str, str, int]]


_decode_user = msgspec.json.Decoder(_UserRows).decode
_decode_group = msgspec.json.Decoder(_GroupRows).decode


def load_user(connection: apsw.Connection, name: str) -> User | None:
    """The record of a user, None where there is none."""
    found = connection.execute(_USER, (name,)).get
    if found is None:
        return None
    rows = _decode_user(found)
    user = User(name, rows.created)
    user.seen = rows.seen
    user.position = rows.position
    user.devices = {device: (position, used) for device, position, used in rows.devices}
    user.roles = dict(rows.roles)
    user.unseen_from = dict(rows.unseen_from)
    user.waiting_for_unseen = rows.waiting_for_unseen
    for kind, what, after, until in rows.hearings:
        interval = Interval(what, after)
        interval.until = until
        if kind == "group":
            user.groups.setdefault(what, []).append(interval)
        elif until is None:
            user.filters[what] = interval
        else:
            user.past_filters.append(interval)
    user.past_filters.sort(key=lambda past: past.until or 0)
    return user


def load_group(connection: apsw.Connection, name: str) -> Group | None:
    """The record of a group, None where there is none."""
    found = connection.execute(_GROUP, (name,)).get
    if found is None:
        return None
    rows = _decode_group(found)
    group = Group(rows.born, public=rows.public)
    for user, role, since in rows.members:
        group.enter(user, role, since)
    return group


class CachedTables(Tables):
    """See the module. ``connection`` gives the one to read from; ``room`` is in rows."""

    def __init__(self, connection: Callable[[], apsw.Connection], room: int = ROOM) -> None:
        super().__init__()
        self._connection = connection
        self._room = room
        self._held = 0
        self._touched: dict[Row, None] = {}

    def find_user(self, name: str) -> User | None:
        """What is known of a user, None before it is spoken of."""
        user = self._users.pop(name, None)
        if user is None and (user := load_user(self._connection(), name)) is not None:
            self._held += _size(user)
        if user is not None:
            self._users[name] = user  # the last used is the last here
        return user

    def find_group(self, name: str) -> Group | None:
        """A group, None where there is none of that name."""
        group = self._groups.pop(name, None)
        if group is None and ("group", name) not in self._touched:
            group = load_group(self._connection(), name)
            self._held += 0 if group is None else _size(group)
        if group is not None:
            self._groups[name] = group
        return group

    def read_mark(self, user: str, run: str) -> int:
        """How far a user has read a conversation."""
        if (user, run) not in self._marks:
            return self._connection().execute(_MARK, (user, run)).get or 0
        return self._marks[user, run]

    def touch(self, row: Row) -> None:
        """Note that a row must be written."""
        self._touched[row] = None
        self._held += 1

    def forget(self) -> None:
        """Forget everything, what was to be written as well."""
        self._held = 0
        self._touched.clear()
        self._users.clear()
        self._groups.clear()
        self._marks.clear()

    def trim(self) -> None:
        """Forget the records that were not used for longest, where there are too many.

        Only what is written may be forgotten. Half of the room is made, so that this looks at all
        of them only once in a while.
        """
        if self._held > self._room:
            self._held = _trim(self._users, self._room // 4) + _trim(self._groups, self._room // 4)

    # --- writing ---

    def flush(self) -> None:
        """Write all touched rows."""
        by_kind: dict[str, list[Row]] = {}
        for row in self._touched:
            by_kind.setdefault(row[0], []).append(row)
        for kind, rows in by_kind.items():
            delete, insert, rows_of = _KINDS[kind]
            keys = [row[1:] for row in rows]
            delete_rows(self._connection(), delete, keys)
            insert.run(self._connection(), [row for key in keys for row in rows_of(self, *key)])
        self._touched.clear()
        self._marks.clear()

    def user_rows(self, name: str) -> list[tuple[Any, ...]]:
        """The row of a user."""
        user = self._users[name]
        return [(name, user.created, user.seen, user.position)]

    def device_rows(self, user: str, device: str) -> list[tuple[Any, ...]]:
        """The row of a device, if it is known."""
        known = self._users[user].devices.get(device)
        return [] if known is None else [(user, device, *known)]

    def unseen_rows(self, receiver: str, sender: str) -> list[tuple[Any, ...]]:
        """How many messages of a sender wait for a receiver never seen, if any do."""
        waiting = self._users[receiver].unseen_from.get(sender)
        return [(receiver, sender, waiting)] if waiting else []

    def hearing_rows(self, user: str, kind: str, what: str) -> list[tuple[Any, ...]]:
        """The stretches in which a user hears or heard a group or a filter."""
        record = self._users[user]
        if kind == "group":
            intervals = record.groups.get(what, [])
        else:
            intervals = [past for past in record.past_filters if past.what == what]
            intervals += [record.filters[what]] if what in record.filters else []
        return [(user, kind, what, each.after, each.until) for each in intervals]

    def mark_rows(self, user: str, talk: str) -> list[tuple[Any, ...]]:
        """How far a user has read a conversation."""
        return [(user, talk, self._marks[user, talk])]

    def group_rows(self, name: str) -> list[tuple[Any, ...]]:
        """The row of a group, if there is one."""
        group = self._groups.get(name)
        return [] if group is None else [(name, group.born, group.public)]

    def member_rows(self, name: str, user: str) -> list[tuple[Any, ...]]:
        """The row of a member, if it is one."""
        group = self._groups.get(name)
        if group is None or user not in group.members:
            return []
        return [(name, user, group.members[user], group.since[user])]


def _trim(records: dict[str, R], room: int) -> int:
    """Forget the records that were not used for longest; how many rows those left are."""
    held = 0
    for count, record in enumerate(reversed(records.values())):
        size = _size(record)
        if held + size > room:
            for name in list(records)[: len(records) - count]:
                del records[name]
            break
        held += size
    return held


def _size(record: User | Group) -> int:
    """About how many rows a record is made of."""
    if isinstance(record, Group):
        return 1 + len(record.members)
    spans = sum(map(len, record.groups.values()), len(record.past_filters))
    return 1 + spans + len(record.filters) + len(record.devices) + len(record.unseen_from)


class _Kind(NamedTuple):
    """How the rows of one kind are written: those of the touched keys go, those there are come."""

    delete: str
    insert: Insert
    rows: Callable[..., list[tuple[Any, ...]]]


def _kind(
    table: str, columns: int, key: Sequence[str], rows: Callable[..., list[tuple[Any, ...]]]
) -> _Kind:
    return _Kind(delete_each(table, key), Insert(table, columns), rows)


_KINDS: Final = {
    "user": _kind("users", 4, ["name"], CachedTables.user_rows),
    "device": _kind("devices", 4, ["user", "name"], CachedTables.device_rows),
    "unseen": _kind("unseen", 3, ["receiver", "sender"], CachedTables.unseen_rows),
    "hearing": _kind("hearings", 5, ["user", "kind", "what"], CachedTables.hearing_rows),
    "group": _kind("groups", 3, ["name"], CachedTables.group_rows),
    "mark": _kind("marks", 3, ["user", "talk"], CachedTables.mark_rows),
    "member": _kind("members", 4, ["name", "user"], CachedTables.member_rows),
}
