"""Topic names and filters, and the two trees that match them.

A topic name is levels joined by ``/``; in a filter ``+`` stands for one level and a last ``#`` for
all that follow, the level before it included (``a/#`` matches ``a``): MQTT 5.0, section 4.7.

There are two questions, and a tree of levels answers each without looking at what cannot match:

- *which filters match this name?* is asked for every published message: :class:`FilterTree`;
- *which names match this filter?* is asked when somebody subscribes: :class:`NameTree`.

Both walk along the levels of the question and never look at what cannot match; a wildcard in the
question costs as much as there is below it.
Nodes that hold nothing are removed at once, so a tree's size is that of what is in it now.

Syntax is checked at the edge (:mod:`chatsvc.messages`); nothing here refuses anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

__all__ = ["FilterTree", "NameTree", "matches"]

V = TypeVar("V")


def matches(topic_filter: str, name: str) -> bool:
    """Whether the topic called ``name`` is meant by ``topic_filter``."""
    levels = name.split("/")
    parts = topic_filter.split("/")
    for index, part in enumerate(parts):
        if part == "#":
            return True
        if index >= len(levels) or (part != "+" and part != levels[index]):
            return False
    return len(parts) == len(levels)


class _Node(Generic[V]):
    """One level: what ends here, and the levels below."""

    __slots__ = ("children", "values")

    def __init__(self) -> None:
        self.children: dict[str, _Node[V]] = {}
        self.values: dict[V, None] = {}


class _Tree(Generic[V]):
    """Values kept under paths of levels."""

    def __init__(self) -> None:
        self._root: _Node[V] = _Node()

    def __bool__(self) -> bool:
        return bool(self._root.children)

    def add(self, path: str, value: V) -> None:
        """Put ``value`` under ``path``; putting it there again changes nothing."""
        node = self._root
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                child = node.children[level] = _Node()
            node = child
        node.values[value] = None

    def discard(self, path: str, value: V) -> None:
        """Take ``value`` from under ``path``, if it is there, and the nodes that are left empty."""
        node = self._root
        trail: list[tuple[_Node[V], str]] = []
        for level in path.split("/"):
            child = node.children.get(level)
            if child is None:
                return
            trail.append((node, level))
            node = child
        node.values.pop(value, None)
        for parent, level in reversed(trail):
            child = parent.children[level]
            if child.values or child.children:
                return
            del parent.children[level]


class FilterTree(_Tree[V]):
    """Values under topic filters; asked with a topic name."""

    def match(self, name: str) -> dict[V, None]:
        """All values under filters that match ``name``, each once, in no promised order."""
        found: dict[V, None] = {}
        nodes = [self._root]
        for level in name.split("/"):
            following: list[_Node[V]] = []
            for node in nodes:
                children = node.children
                if not children:
                    continue
                if (rest := children.get("#")) is not None:
                    found.update(rest.values)
                if (same := children.get(level)) is not None:
                    following.append(same)
                if (any_level := children.get("+")) is not None:
                    following.append(any_level)
            if not following:
                return found
            nodes = following
        for node in nodes:
            found.update(node.values)
            if (rest := node.children.get("#")) is not None:
                found.update(rest.values)
        return found


class NameTree(_Tree[V]):
    """Values under topic names; asked with a topic filter."""

    def select(self, topic_filter: str) -> Iterator[V]:
        """All values under names that ``topic_filter`` matches, each name's once."""
        nodes = [self._root]
        for part in topic_filter.split("/"):
            if part == "#":
                for node in nodes:
                    yield from self._below(node)
                return
            if part == "+":
                nodes = [child for node in nodes for child in node.children.values()]
            else:
                nodes = [child for node in nodes if (child := node.children.get(part)) is not None]
        for node in nodes:
            yield from node.values

    @staticmethod
    def _below(top: _Node[V]) -> Iterator[V]:
        """All values at and below a node, without recursion: names may have 128 levels."""
        pending = [top]
        while pending:
            node = pending.pop()
            yield from node.values
            pending.extend(node.children.values())
