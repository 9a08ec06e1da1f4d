"""What is known of groups and users beside the log.

Plain records with the operations that keep them consistent. What is allowed is decided in
:mod:`chatsvc.store.rules`; nothing here refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["Group", "Interval", "User"]


class Interval:
    """A stretch of the log, ``after`` < seq <= ``until``, in which a user hears ``what``."""

    __slots__ = ("after", "until", "what")

    def __init__(self, what: str, after: int) -> None:
        self.what = what
        self.after = after
        self.until: int | None = None


def _forget(past: list[Interval], floor: int) -> None:
    """Forget stretches, in the order of their ends, that ended up to ``floor``."""
    count = 0
    while count < len(past) and 0 < (past[count].until or 0) <= floor:
        count += 1
    del past[:count]


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
    whether it ever connected, ``unseen_from`` how many messages of whom wait until then.
    """

    __slots__ = (
        "created",
        "devices",
        "filters",
        "groups",
        "memberships",
        "name",
        "past_filters",
        "position",
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
        self.memberships = 0
        self.groups: dict[str, list[Interval]] = {}
        self.filters: dict[str, Interval] = {}
        self.past_filters: list[Interval] = []
        self.unseen_from: dict[str, int] = {}
        self.waiting_for_unseen = 0

    def enter_group(self, name: str, after: int, floor: int) -> None:
        """Hear ``name`` from here on; stretches that ended up to ``floor`` are forgotten."""
        self.memberships += 1
        spans = self.groups.setdefault(name, [])
        _forget(spans, floor)
        if spans and spans[-1].until == after:
            spans[-1].until = None  # nothing was said between leaving and coming back
        else:
            spans.append(Interval(name, after))

    def leave_group(self, name: str, until: int) -> None:
        """Hear ``name`` up to ``until``, and no more."""
        self.memberships -= 1
        self.groups[name][-1].until = until

    def left_group(self, name: str) -> int | None:
        """The ``seq`` of the last leaving of ``name``, if there was one."""
        spans = self.groups.get(name)
        return spans[-1].until if spans else None

    def current_groups(self) -> list[str]:
        """The groups the user is a member of now."""
        return [name for name, spans in self.groups.items() if spans[-1].until is None]

    def end_filter(self, topic_filter: str, until: int, floor: int) -> None:
        """End a durable subscription at ``until``, and forget those that ended up to ``floor``."""
        _forget(self.past_filters, floor)
        interval = self.filters.pop(topic_filter, None)
        if interval is not None and interval.after < until:
            interval.until = until
            self.past_filters.append(interval)

    def every_filter(self, floor: int) -> Iterator[Interval]:
        """The durable subscriptions that hold, and those that held above ``floor``."""
        yield from self.filters.values()
        yield from (past for past in self.past_filters if (past.until or 0) > floor)

    def forget_devices(self, before: float) -> None:
        """Forget the devices that were last used before a moment, in seconds."""
        for device in [name for name, (_, used) in self.devices.items() if used < before]:
            del self.devices[device]
