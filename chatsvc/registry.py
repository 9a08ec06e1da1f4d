"""The three registries of :class:`chatsvc.state.ChatState`: connected clients, groups, topics.

They hold references to subscribers and decide nothing. ``S`` is whatever stands for a connection.

A *name* is borne by connections (also by those that have not yet said who they are); a *connected
user* is a name with at least one attached subscriber. ``client-a``, ``client-b``, … are given out
from the first that nobody bears: freed ones come back through a heap, so that finding one does not
depend on how many are in use.
"""

from __future__ import annotations

import heapq
import re
from string import ascii_lowercase
from typing import Generic, TypeVar

from twisted.internet.defer import Deferred

from chatsvc.topics import FilterTree

__all__ = ["ClientRegistry", "ConnectedUser", "GroupRegistry", "TopicRegistry"]

S = TypeVar("S")

_GIVEN = re.compile(r"client-([a-z]{1,8})")


def given_name(number: int) -> str:
    """The name with this number: 0 is ``client-a``, 26 is ``client-aa``."""
    letters = ""
    number += 1
    while number:
        number, digit = divmod(number - 1, 26)
        letters = ascii_lowercase[digit] + letters
    return f"client-{letters}"


def given_number(name: str) -> int | None:
    """The number of a name of that form, or None of any other."""
    match = _GIVEN.fullmatch(name)
    if match is None:
        return None
    number = 0
    for letter in match[1]:
        number = number * 26 + ascii_lowercase.index(letter) + 1
    return number - 1


class ConnectedUser(Generic[S]):
    """A user with its attached subscribers, and the groups and durable filters they all hear.

    ``arriving`` is the list of those who wait for the store to tell what these are, and None once
    it has; ``changes`` are the memberships (seq, group, joined) that were announced meanwhile, and
    ``filter_changes`` the durable filters that were made or ended.
    """

    __slots__ = (
        "arriving",
        "changes",
        "devices",
        "filter_changes",
        "filters",
        "groups",
        "name",
        "subscribers",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.subscribers: dict[S, None] = {}
        self.devices: dict[str, S] = {}
        self.groups: dict[str, None] = {}
        self.filters: dict[str, None] = {}
        self.arriving: list[Deferred[None]] | None = None
        self.changes: list[tuple[int, str, bool]] = []
        self.filter_changes: dict[str, bool] = {}


class ClientRegistry(Generic[S]):
    """Which names are borne, and who is connected."""

    def __init__(self) -> None:
        self._users: dict[str, ConnectedUser[S]] = {}
        self._bearers: dict[str, int] = {}
        self._freed: list[int] = []  # a heap of the numbers in _free
        self._free: set[int] = set()
        self._next = 0

    def __len__(self) -> int:
        return len(self._users)

    def get(self, user: str) -> ConnectedUser[S] | None:
        """The connected user of this name."""
        return self._users.get(user)

    def add(self, user: str, subscriber: S) -> ConnectedUser[S]:
        """Note that ``subscriber`` is a connection of ``user``."""
        connected = self._users.get(user)
        if connected is None:
            connected = self._users[user] = ConnectedUser(user)
        connected.subscribers[subscriber] = None
        return connected

    def discard(self, user: str, subscriber: S) -> None:
        """Note that it no longer is."""
        connected = self._users.get(user)
        if connected is not None:
            connected.subscribers.pop(subscriber, None)
            if not connected.subscribers:
                del self._users[user]

    def give_name(self) -> str:
        """The first of ``client-a``, … that nobody bears; it is borne from now on."""
        while True:
            if self._freed:
                number = heapq.heappop(self._freed)
                self._free.discard(number)
            else:
                number = self._next
                self._next += 1
            name = given_name(number)
            if name not in self._bearers:
                self.bear(name)
                return name

    def bear(self, name: str) -> None:
        """One more connection bears ``name``."""
        self._bearers[name] = self._bearers.get(name, 0) + 1

    def lay_down(self, name: str) -> None:
        """One connection less bears ``name``."""
        self._bearers[name] -= 1
        if self._bearers[name]:
            return
        del self._bearers[name]
        number = given_number(name)
        if number is not None and number < self._next and number not in self._free:
            self._free.add(number)
            heapq.heappush(self._freed, number)


class GroupRegistry(Generic[S]):
    """Which connected subscribers hear which group."""

    def __init__(self) -> None:
        self._subscribers: dict[str, dict[S, None]] = {}

    def subscribers(self, group: str) -> list[S]:
        """Those who hear ``group``."""
        return list(self._subscribers.get(group, ()))

    def add(self, group: str, subscriber: S) -> None:
        """Let one connection hear ``group``."""
        self._subscribers.setdefault(group, {})[subscriber] = None

    def discard(self, group: str, subscriber: S) -> None:
        """Let it not hear it any more."""
        subscribers = self._subscribers.get(group)
        if subscribers is not None:
            subscribers.pop(subscriber, None)
            if not subscribers:
                del self._subscribers[group]

    def enter(self, user: ConnectedUser[S], group: str) -> None:
        """Let all connections of ``user`` hear ``group``."""
        user.groups[group] = None
        for subscriber in user.subscribers:
            self.add(group, subscriber)

    def leave(self, user: ConnectedUser[S], group: str) -> None:
        """Let none of them hear it any more."""
        user.groups.pop(group, None)
        for subscriber in user.subscribers:
            self.discard(group, subscriber)


class TopicRegistry(Generic[S]):
    """Which connected subscribers hear which topics, by filter.

    A filter may hold for a connection twice, as its own and as its user's; it ends with the last.
    """

    def __init__(self) -> None:
        self._tree: FilterTree[S] = FilterTree()
        self._holds: dict[tuple[str, S], int] = {}

    def subscribers(self, topic: str) -> list[S]:
        """Those who hear ``topic``, each once."""
        return list(self._tree.match(topic))

    def add(self, topic_filter: str, subscriber: S) -> None:
        """Let one connection hear what matches."""
        holds = self._holds.get((topic_filter, subscriber), 0)
        self._holds[topic_filter, subscriber] = holds + 1
        if not holds:
            self._tree.add(topic_filter, subscriber)

    def discard(self, topic_filter: str, subscriber: S) -> None:
        """Take back one :meth:`add`."""
        holds = self._holds.pop((topic_filter, subscriber), 0)
        if holds > 1:
            self._holds[topic_filter, subscriber] = holds - 1
        elif holds:
            self._tree.discard(topic_filter, subscriber)
