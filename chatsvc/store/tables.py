"""What is known of groups and users beside the log.

Plain records with the operations that keep them consistent. What is allowed is decided in
:mod:`chatsvc.store.rules`; nothing here refuses. A store finds the records by name in its
:class:`Tables`, which are told of each row that changes, so that a store on disk can write it down.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Literal, TypeAlias

from chatsvc.store import Member

__all__ = ["Group", "Interval", "Row", "Tables", "User"]

Row: TypeAlias = (
    tuple[Literal["user"], str]
    | tuple[Literal["device"], str, str]
    | tuple[Literal["unseen"], str, str]
    | tuple[Literal["hearing"], str, Literal["group", "topic"], str]
    | tuple[Literal["group"], str]
    | tuple[Literal["member"], str, str]
    | tuple[Literal["mark"], str, str]
)
"""A row by its kind and key: a user; its device; what waits for a user never seen, and of whom;
the stretches in which a user hears a group or a topic filter; a group; a member of it; how far a
user has read a conversation."""


class Interval:
    """A stretch of the log, ``after`` < seq <= ``until``, in which a user hears ``what``."""

    __slots__ = ("after", "until", "what")

    def __init__(self, what: str, after: int) -> None:
        self.what = what
        self.after = after
        self.until: int | None = None


def _forget(past: list[Interval], floor: int) -> list[Interval]:
    """Forget stretches, in the order of their ends, that ended up to ``floor``; which those are."""
    count = 0
    while count < len(past) and 0 < (past[count].until or 0) <= floor:
        count += 1
    forgotten = past[:count]
    del past[:count]
    return forgotten


class Group:
    """A group from the entry ``born`` on: its members with their roles, longest-standing first."""

    __slots__ = ("born", "members", "public", "since", "staff")

    def __init__(self, born: int, *, public: bool) -> None:
        self.born = born
        self.public = public
        self.members: dict[str, str] = {}
        self.since: dict[str, int] = {}
        self.staff: set[str] = set()

    def enter(self, user: str, role: str, seq: int) -> None:
        """Make ``user`` a member by the entry ``seq``."""
        self.members[user] = role
        self.since[user] = seq
        if role != "member":
            self.staff.add(user)

    def leave(self, user: str) -> str | None:
        """End a membership; whoever becomes owner by that, if nobody else is one."""
        role = self.members.pop(user)
        del self.since[user]
        self.staff.discard(user)
        if role != "owner" or any(self.members[name] == "owner" for name in self.staff):
            return None
        heir = min(self.staff, key=self.since.__getitem__, default=next(iter(self.members), None))
        if heir is not None:
            self.members[heir] = "owner"
            self.staff.add(heir)
        return heir


class User:
    """A user: what it has been given, hears and heard.

    ``created`` is the head when it was first spoken of: nothing before was for it. ``seen`` says
    whether it ever connected, ``unseen_from`` how many messages of whom wait until then, and
    ``waiting_for_unseen`` how many of its own wait for others of that kind. ``roles`` are those in
    the groups it is a member of now, ``groups`` the stretches in which it hears or heard each.
    """

    __slots__ = (
        "created",
        "devices",
        "filters",
        "groups",
        "name",
        "past_filters",
        "position",
        "roles",
        "seen",
        "unseen_from",
        "waiting_for_unseen",
    )

    def __init__(self, name: str, created: int) -> None:
        self.name = name
        self.created = created
        self.seen = False
        self.position = 0
        self.devices: dict[str, tuple[int, float]] = {}
        self.roles: dict[str, str] = {}
        self.groups: dict[str, list[Interval]] = {}
        self.filters: dict[str, Interval] = {}
        self.past_filters: list[Interval] = []
        self.unseen_from: dict[str, int] = {}
        self.waiting_for_unseen = 0

    def enter_group(self, name: str, role: str, after: int, floor: int) -> None:
        """Hear ``name`` from here on; stretches that ended up to ``floor`` are forgotten."""
        self.roles[name] = role
        spans = self.groups.setdefault(name, [])
        _forget(spans, floor)
        if spans and spans[-1].until == after:
            spans[-1].until = None  # nothing was said between leaving and coming back
        else:
            spans.append(Interval(name, after))

    def leave_group(self, name: str, until: int) -> None:
        """Hear ``name`` up to ``until``, and no more."""
        del self.roles[name]
        self.groups[name][-1].until = until

    def left_group(self, name: str) -> int | None:
        """The ``seq`` of the last leaving of ``name``, if there was one."""
        spans = self.groups.get(name)
        return spans[-1].until if spans else None

    def end_filter(self, topic_filter: str, until: int, floor: int) -> set[str]:
        """End a durable subscription at ``until``, and forget those that ended up to ``floor``.

        Returns the filters whose stretches have changed by that.
        """
        changed = {past.what for past in _forget(self.past_filters, floor)}
        interval = self.filters.pop(topic_filter, None)
        if interval is not None and interval.after < until:
            interval.until = until
            self.past_filters.append(interval)
        return changed if interval is None else changed | {topic_filter}

    def every_filter(self, floor: int) -> Iterator[Interval]:
        """The durable subscriptions that hold, and those that held above ``floor``."""
        yield from self.filters.values()
        yield from (past for past in self.past_filters if (past.until or 0) > floor)

    def forget_devices(self, before: float) -> list[str]:
        """Forget the devices that were last used before a moment, in seconds; which those are."""
        forgotten = [name for name, (_, used) in self.devices.items() if used < before]
        for device in forgotten:
            del self.devices[device]
        return forgotten


class Tables:
    """The records by name. Here all are in memory, and no row needs to be written down."""

    def __init__(self) -> None:
        self._users: dict[str, User] = {}
        self._groups: dict[str, Group] = {}
        self._marks: dict[tuple[str, str], int] = {}

    def find_user(self, name: str) -> User | None:
        """What is known of a user, None before it is spoken of."""
        return self._users.get(name)

    def add_user(self, user: User) -> None:
        """Take up a user that was not known."""
        self._users[user.name] = user

    def find_group(self, name: str) -> Group | None:
        """A group, None where there is none of that name."""
        return self._groups.get(name)

    def put_group(self, name: str, group: Group) -> None:
        """Found a group."""
        self._groups[name] = group

    def end_group(self, name: str) -> None:
        """A group is no more."""
        del self._groups[name]

    def read_mark(self, user: str, run: str) -> int:
        """How far a user has read a conversation, by the name of its run."""
        return self._marks.get((user, run), 0)

    def set_read_mark(self, user: str, run: str, seq: int) -> None:
        """A user has read a conversation so far."""
        self._marks[user, run] = seq

    def born(self, group: str, user: str) -> int | None:
        """The first entry of a group that ``user`` is a member of, None where it is none."""
        found = self._groups.get(group)
        return found.born if found is not None and user in found.members else None

    def members(self, group: str, after: str | None, limit: int) -> list[Member]:
        """The first ``limit`` members of a group by name, those after ``after``."""
        members = self._groups[group].members
        names = heapq.nsmallest(limit, (n for n in members if after is None or n > after))
        return [Member(name, members[name]) for name in names]

    def touch(self, row: Row) -> None:
        """A row is not as it was."""
