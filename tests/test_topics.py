"""Topic filters: `matches` and the two trees against a naive reference, and what a match costs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NoReturn

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.topics import FilterTree, NameTree, matches

SETTINGS = settings(deadline=None, database=None, max_examples=200)
BY_STATES = settings(deadline=None, database=None, max_examples=60, stateful_step_count=30)

levels = st.sampled_from(["a", "b", "c", "a.b"])
names = st.lists(levels, min_size=1, max_size=4).map("/".join)
parts = st.one_of(levels, st.just("+"))
filters = st.one_of(
    st.lists(parts, min_size=1, max_size=4).map("/".join),
    st.lists(parts, max_size=3).map(lambda heads: "/".join([*heads, "#"])),
)


def means(topic_filter: str, name: str) -> bool:
    """The reference: the filter as a regular expression."""
    pattern = re.escape(topic_filter).replace(r"\+", "[^/]+")
    if topic_filter == "#":
        pattern = ".*"
    elif topic_filter.endswith("/#"):
        pattern = pattern.removesuffix(r"/\#") + "(/.*)?"
    return re.fullmatch(pattern, name) is not None


class MatchingAName(SynchronousTestCase):
    """`matches`."""

    def test_the_examples_of_the_standard(self) -> None:
        """MQTT 5.0, section 4.7.1, as far as its topics are topics here."""
        player = "sport/tennis/player1"
        for topic_filter, name, expected in (
            (f"{player}/#", player, True),
            (f"{player}/#", f"{player}/ranking", True),
            (f"{player}/#", f"{player}/score/wimbledon", True),
            ("sport/#", "sport", True),
            ("sport/#", "sports", False),
            ("#", "sport/tennis", True),
            ("sport/tennis/+", player, True),
            ("sport/tennis/+", f"{player}/ranking", False),
            ("sport/+", "sport", False),
            ("sport/+", "sport/tennis", True),
            ("+", "sport", True),
            ("+", "sport/tennis", False),
            ("+/tennis/#", "sport/tennis", True),
            ("sport/+/player1", player, True),
            ("sport", "sport/tennis", False),
            ("sport/tennis", "sport", False),
            ("sport/tennis/#", "sport", False),
            ("Sport", "sport", False),
        ):
            self.assertIs(matches(topic_filter, name), expected, f"{topic_filter} {name}")

    @SETTINGS
    @given(filters, names)
    def test_it_is_the_reference(self, topic_filter: str, name: str) -> None:
        """Any filter and any name."""
        self.assertIs(matches(topic_filter, name), means(topic_filter, name))

    @SETTINGS
    @given(names)
    def test_a_name_matches_itself_and_its_parents(self, name: str) -> None:
        """As a filter without wildcards, and with `#` at any level."""
        self.assertTrue(matches(name, name))
        heads = name.split("/")
        for count in range(len(heads) + 1):
            self.assertTrue(matches("/".join([*heads[:count], "#"]), name))


def paths(tree: Any) -> Iterator[tuple[str, ...]]:
    """The path of every node of a tree."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), tree._root)]
    while pending:
        path, node = pending.pop()
        yield path
        pending += [((*path, level), child) for level, child in node.children.items()]


def prefixes(stored: set[tuple[str, int]]) -> set[tuple[str, ...]]:
    """The paths that are needed for what is stored."""
    found: set[tuple[str, ...]] = {()}
    for path, _ in stored:
        steps = tuple(path.split("/"))
        found |= {steps[:count] for count in range(len(steps) + 1)}
    return found


class _TreeMachine(RuleBasedStateMachine):
    """A tree beside the set of what is in it."""

    def __init__(self) -> None:
        super().__init__()
        self.filters: FilterTree[int] = FilterTree()
        self.names: NameTree[int] = NameTree()
        self.stored_filters: set[tuple[str, int]] = set()
        self.stored_names: set[tuple[str, int]] = set()

    @rule(path=filters, value=st.integers(0, 3))
    def add_filter(self, path: str, value: int) -> None:
        """Put a value under a filter, which may be there already."""
        self.filters.add(path, value)
        self.stored_filters.add((path, value))

    @rule(path=filters, value=st.integers(0, 3))
    def discard_filter(self, path: str, value: int) -> None:
        """Take a value from under a filter, where it may not be."""
        self.filters.discard(path, value)
        self.stored_filters.discard((path, value))

    @rule(path=names, value=st.integers(0, 3))
    def add_name(self, path: str, value: int) -> None:
        """Put a value under a name, which may be there already."""
        self.names.add(path, value)
        self.stored_names.add((path, value))

    @rule(path=names, value=st.integers(0, 3))
    def discard_name(self, path: str, value: int) -> None:
        """Take a value from under a name, where it may not be."""
        self.names.discard(path, value)
        self.stored_names.discard((path, value))

    @rule(data=st.data())
    def empty(self, data: st.DataObject) -> None:
        """Take something out that is there."""
        if self.stored_filters:
            self.discard_filter(*data.draw(st.sampled_from(sorted(self.stored_filters))))
        if self.stored_names:
            self.discard_name(*data.draw(st.sampled_from(sorted(self.stored_names))))

    @rule(name=names)
    def match(self, name: str) -> None:
        """A name finds the values of all filters that mean it, each once."""
        expected = {value for path, value in self.stored_filters if means(path, name)}
        found = list(self.filters.match(name))
        assert sorted(found) == sorted(expected), (found, expected)

    @rule(topic_filter=filters)
    def select(self, topic_filter: str) -> None:
        """A filter finds the values of all names it means, each name's once."""
        expected = [value for path, value in self.stored_names if means(topic_filter, path)]
        found = list(self.names.select(topic_filter))
        assert sorted(found) == sorted(expected), (found, expected)

    @invariant()
    def no_node_is_empty(self) -> None:
        """The nodes are those on the way to what is stored."""
        for tree, stored in (
            (self.filters, self.stored_filters),
            (self.names, self.stored_names),
        ):
            assert sorted(paths(tree)) == sorted(prefixes(stored))
            assert bool(tree) is bool(stored)


class TheTrees(SynchronousTestCase):
    """`FilterTree` and `NameTree`, whatever was put in and taken out."""

    def test_they_find_what_the_reference_finds(self) -> None:
        """At any time all that matches and nothing else, in nodes that are all needed."""
        run_state_machine_as_test(_TreeMachine, settings=BY_STATES)

    def test_a_value_under_several_filters_comes_once(self) -> None:
        """Whoever has several matching filters is found once."""
        tree: FilterTree[str] = FilterTree()
        for topic_filter in ("a/b", "a/+", "+/b", "+/+", "a/#", "#", "a/b/#"):
            tree.add(topic_filter, "me")
        self.assertEqual(list(tree.match("a/b")), ["me"])

    def test_names_as_long_as_they_may_be(self) -> None:
        """128 levels are walked without recursion."""
        long = "/".join("a" * 128)
        tree: NameTree[str] = NameTree()
        tree.add(long, "deep")
        self.assertEqual(list(tree.select("#")), ["deep"])
        self.assertEqual(list(tree.select("/".join("+" * 128))), ["deep"])
        self.assertEqual(list(tree.select("/".join("+" * 127))), [])
        tree.discard(long, "deep")
        self.assertFalse(tree)


class Counted(dict[str, Any]):
    """The levels below a node, which counts how often one is looked up and cannot be scanned."""

    looked_up = 0

    def get(self, key: str, default: Any = None, /) -> Any:
        """Look up one level."""
        Counted.looked_up += 1
        return super().get(key, default)

    def _scan(self, *_: object) -> NoReturn:
        raise AssertionError("the levels were scanned")

    keys = values = items = __iter__ = _scan


class AHundredThousand(SynchronousTestCase):
    """What a match costs does not depend on how many filters or names there are beside it."""

    COUNT = 100_000

    def count_lookups(self, tree: Any) -> None:
        """Have all nodes of a tree count from now on."""
        pending = [tree._root]
        while pending:
            node = pending.pop()
            pending += node.children.values()
            node.children = Counted(node.children)
        Counted.looked_up = 0

    def test_a_name_visits_only_the_filters_on_its_way(self) -> None:
        """Three lookups a node, at nodes that match a beginning of the name; no scan."""
        tree: FilterTree[int] = FilterTree()
        for number in range(self.COUNT):
            tree.add(f"site/{number}/{'+' if number % 2 else 'temperature'}", number)
        for value, topic_filter in enumerate(("#", "site/+/#", "+/77/temperature")):
            tree.add(topic_filter, -1 - value)
        self.count_lookups(tree)
        self.assertEqual(set(tree.match("site/77/temperature")), {77, -1, -2, -3})
        # On the way: the root; site, +; site/77, site/+, +/77; the two or three that end there.
        self.assertLessEqual(Counted.looked_up, 3 * 9)
        Counted.looked_up = 0
        self.assertEqual(set(tree.match("elsewhere/77")), {-1})
        self.assertLessEqual(Counted.looked_up, 3 * 3)

    def test_a_filter_visits_only_the_names_on_its_way(self) -> None:
        """Without wildcards one lookup a level, and no scan."""
        tree: NameTree[int] = NameTree()
        for number in range(self.COUNT):
            tree.add(f"site/{number}/temperature", number)
        self.count_lookups(tree)
        self.assertEqual(list(tree.select("site/77/temperature")), [77])
        self.assertEqual(Counted.looked_up, 3)
        Counted.looked_up = 0
        self.assertEqual(list(tree.select("site/none/+")), [])
        self.assertEqual(Counted.looked_up, 2)

    def test_taking_them_out_leaves_nothing(self) -> None:
        """Nodes that hold nothing are removed at once."""
        tree: FilterTree[int] = FilterTree()
        for number in range(self.COUNT):
            tree.add(f"a/{number}/+", number)
        self.assertEqual(sum(1 for _ in paths(tree)), 2 + 2 * self.COUNT)
        for number in range(self.COUNT):
            tree.discard(f"a/{number}/+", number)
        self.assertEqual(list(paths(tree)), [()])
        self.assertFalse(tree)
