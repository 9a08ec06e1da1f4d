"""Records of users and groups as rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.records import CachedTables, load_group, load_user
from chatsvc.store.tables import Group, Interval, User

NAMES = ("alice", "bob", "0", "a-b", "devs")
FILTERS = ("#", "a/#", "+/b", "a")

names = st.sampled_from(NAMES)
filters = st.sampled_from(FILTERS)
seqs = st.integers(0, 2**53)
moments = st.floats(0, 1e11)


def stretches(what: str, ends: list[int], *, open_: bool) -> list[Interval]:
    """Stretches between these places, in their order, the last one without an end if so wished."""
    found = []
    for after, until in zip(ends[::2], ends[1::2], strict=False):
        interval = Interval(what, after)
        interval.until = until
        found.append(interval)
    if found and open_:
        found[-1].until = None
    return found


places = st.lists(st.integers(0, 10**6), unique=True, max_size=8).map(sorted)


@st.composite
def user_records(draw: st.DrawFn, name: str) -> User:
    """Any user."""
    user = User(name, draw(seqs))
    user.seen = draw(st.booleans())
    user.position = draw(seqs)
    user.devices = draw(st.dictionaries(names, st.tuples(seqs, moments), max_size=4))
    user.unseen_from = draw(st.dictionaries(names, st.integers(1, 1000), max_size=4))
    for group in draw(st.sets(names)):
        spans = stretches(group, draw(places), open_=draw(st.booleans()))
        if spans:
            user.groups[group] = spans
    for topic_filter in draw(st.sets(filters)):
        for interval in stretches(topic_filter, draw(places), open_=draw(st.booleans())):
            if interval.until is None:
                user.filters[topic_filter] = interval
            else:
                user.past_filters.append(interval)
    user.past_filters.sort(key=lambda past: past.until or 0)
    return user


@st.composite
def group_records(draw: st.DrawFn) -> Group:
    """Any group, of one member at least."""
    group = Group(draw(seqs), public=draw(st.booleans()))
    roles = st.sampled_from(("owner", "admin", "member"))
    members = draw(st.lists(names, unique=True, min_size=1))
    for user, since in zip(members, sorted(draw(st.sets(seqs, min_size=5))), strict=False):
        group.enter(user, draw(roles), since)
    return group


def told_of_user(user: User | None) -> Any:
    """All that a record says; in which order filters and stretches are found is left open."""
    assert user is not None

    def span(held: Interval) -> tuple[str, int, int | None]:
        return (held.what, held.after, held.until)

    waiting = {sender: count for sender, count in user.unseen_from.items() if count}
    return (
        (user.name, user.created, user.seen, user.position),
        (user.devices, waiting, user.waiting_for_unseen, user.roles),
        {name: [span(held) for held in spans] for name, spans in user.groups.items()},
        {name: span(held) for name, held in user.filters.items()},
        sorted(map(span, user.past_filters)),
        [past.until for past in user.past_filters],
    )


def told_of_group(group: Group | None) -> Any:
    """All that a record says, the order of its members included."""
    assert group is not None
    members = list(group.members.items())
    return (group.born, group.public, members, group.since, group.staff)


class _Tables(SynchronousTestCase):
    """Tables over a new file."""

    def setUp(self) -> None:
        """Open both."""
        file = LogFile(Path(self.mktemp()), new_epoch=lambda: "e", durability="normal")
        file.open()
        self.connection = file.connect()
        self.addCleanup(file.close)
        self.addCleanup(self.connection.close)
        self.tables = self.make_tables()

    def make_tables(self, room: int = 1000) -> CachedTables:
        """Tables with so much room."""
        return CachedTables(lambda: self.connection, room)

    def put_user(self, user: User) -> None:
        """Take up a user, and touch all that is to be written of it."""
        tables, name = self.tables, user.name
        tables.add_user(user)
        tables.touch(("user", name))
        for device in user.devices:
            tables.touch(("device", name, device))
        for sender in user.unseen_from:
            tables.touch(("unseen", name, sender))
        for group in user.groups:
            tables.touch(("hearing", name, "group", group))
        for topic_filter in {*user.filters, *(past.what for past in user.past_filters)}:
            tables.touch(("hearing", name, "topic", topic_filter))

    def put_group(self, name: str, group: Group) -> None:
        """Take up a group, and touch all that is to be written of it."""
        self.tables.put_group(name, group)
        self.tables.touch(("group", name))
        for user in group.members:
            self.tables.touch(("member", name, user))

    def count(self, table: str) -> int:
        """How many rows there are."""
        return int(self.connection.execute(f"SELECT count(*) FROM {table}").get)


class Rows(_Tables):
    """What is written is what is read."""

    def test_a_user_comes_back_as_it_was(self) -> None:
        """With its devices, what waits for it, and all it hears and heard."""

        @settings(deadline=None, database=None, max_examples=100)
        @given(st.data())
        def hold(data: st.DataObject) -> None:
            with self.connection:
                for table in ("users", "devices", "unseen", "hearings"):
                    self.connection.execute(f"DELETE FROM {table}")
            self.tables.forget()
            users = {name: data.draw(user_records(name)) for name in NAMES[:2]}
            for user in users.values():
                self.put_user(user)
            self.tables.flush()
            for name, user in users.items():
                waiting = sum(other.unseen_from.get(name, 0) for other in users.values())
                user.waiting_for_unseen = waiting
                found = load_user(self.connection, name)
                self.assertEqual(told_of_user(found), told_of_user(user))

        hold()

    def test_a_group_comes_back_as_it_was(self) -> None:
        """Its members in the order in which they entered, and the users have their roles."""

        @settings(deadline=None, database=None, max_examples=100)
        @given(st.dictionaries(names, group_records(), min_size=1, max_size=3))
        def hold(groups: dict[str, Group]) -> None:
            with self.connection:
                for table in ("groups", "members", "users"):
                    self.connection.execute(f"DELETE FROM {table}")
            self.tables.forget()
            for name, group in groups.items():
                self.put_group(name, group)
            for name in NAMES:
                self.put_user(User(name, 0))
            self.tables.flush()
            for name, group in groups.items():
                found = load_group(self.connection, name)
                self.assertEqual(told_of_group(found), told_of_group(group))
            for user in NAMES:
                record = load_user(self.connection, user)
                assert record is not None
                roles = {n: g.members[user] for n, g in groups.items() if user in g.members}
                self.assertEqual(record.roles, roles)

        hold()

    def test_who_is_not_there_is_none(self) -> None:
        """A user or a group of no row."""
        self.assertIsNone(load_user(self.connection, "zed"))
        self.assertIsNone(load_group(self.connection, "zed"))
        self.assertIsNone(self.tables.find_user("zed"))
        self.assertIsNone(self.tables.find_group("zed"))

    def test_what_is_no_more_leaves_no_row(self) -> None:
        """A device, a stretch, what waited, a member and a group that were written before."""
        user, group = User("bob", 0), Group(1, public=True)
        user.devices["phone"] = (1, 2.0)
        user.unseen_from["alice"] = 3
        user.filters["a"] = Interval("a", 1)
        group.enter("bob", "owner", 1)
        self.put_user(user)
        self.put_group("devs", group)
        self.tables.flush()
        tables = ("devices", "unseen", "hearings", "members", "groups")
        self.assertEqual([self.count(table) for table in tables], [1] * 5)
        self.put_user(user)
        self.put_group("devs", group)
        user.devices.clear()
        user.unseen_from["alice"] = 0
        user.filters.clear()
        group.leave("bob")
        self.tables.end_group("devs")
        self.tables.flush()
        self.assertEqual([self.count(table) for table in tables], [0] * 5)
        self.assertEqual(self.count("users"), 1)

    def test_only_what_was_touched_is_written(self) -> None:
        """Other rows of the same record stay as they are."""
        user = User("bob", 0)
        user.devices = {"phone": (1, 2.0), "tablet": (1, 2.0)}
        self.put_user(user)
        self.tables.flush()
        user.devices = {"phone": (7, 8.0), "tablet": (7, 8.0)}
        self.tables.touch(("device", "bob", "phone"))
        self.tables.flush()
        found = load_user(self.connection, "bob")
        assert found is not None
        self.assertEqual(found.devices, {"phone": (7, 8.0), "tablet": (1, 2.0)})

    def test_a_group_that_ended_is_not_found_again(self) -> None:
        """Though its row is still there until the batch is written; nor is a refounded one old."""
        group = Group(1, public=False)
        group.enter("bob", "owner", 1)
        self.put_group("devs", group)
        self.tables.flush()
        self.tables.end_group("devs")
        self.tables.touch(("group", "devs"))
        self.tables.touch(("member", "devs", "bob"))
        self.assertIsNone(self.tables.find_group("devs"))
        again = Group(9, public=True)
        again.enter("alice", "owner", 9)
        self.put_group("devs", again)
        self.tables.flush()
        found = load_group(self.connection, "devs")
        self.assertEqual(told_of_group(found), told_of_group(again))


class Memory(_Tables):
    """What is kept of the records, and what is forgotten."""

    def fill(self, count: int) -> None:
        """Write so many users of one row each."""
        for number in range(count):
            self.put_user(User(f"u{number}", number))
        self.tables.flush()

    def kept(self) -> list[str]:
        """Who is in memory, the last used last."""
        return list(self.tables._users)

    def test_the_least_recently_used_are_forgotten(self) -> None:
        """When there is no room for all, down to a quarter; who was asked for again stays."""
        self.tables = self.make_tables(room=12)
        self.fill(12)
        self.tables.find_user("u0")
        self.tables.trim()
        self.assertEqual(len(self.kept()), 12)
        self.fill(13)
        self.tables.find_user("u0")
        self.tables.trim()
        self.assertEqual(self.kept(), ["u11", "u12", "u0"])
        self.tables.trim()
        self.assertEqual(self.kept(), ["u11", "u12", "u0"])

    def test_what_was_forgotten_is_read_again(self) -> None:
        """From its rows, and is then the last used."""
        self.tables = self.make_tables(room=8)
        self.fill(9)
        self.tables.trim()
        self.assertEqual(self.kept(), ["u7", "u8"])
        found = self.tables.find_user("u1")
        assert found is not None
        self.assertEqual((found.name, found.created), ("u1", 1))
        self.tables.trim()
        self.assertEqual(self.kept(), ["u7", "u8", "u1"])

    def test_large_records_take_more_room(self) -> None:
        """As many rows as they are made of: devices, stretches, members."""
        self.tables = self.make_tables(room=40)
        self.fill(41)
        large = User("large", 0)
        large.devices = {str(number): (0, 0.0) for number in range(7)}
        self.put_user(large)
        for name in ("devs", "ops"):
            group = Group(1, public=True)
            for number in range(7):
                group.enter(f"u{number}", "member", number)
            self.put_group(name, group)
        self.tables.flush()
        self.tables.trim()
        self.assertEqual(self.kept(), ["u39", "u40", "large"])
        self.assertEqual(list(self.tables._groups), ["ops"])

    def test_one_record_larger_than_all_the_room_is_not_kept(self) -> None:
        """Nor does it hold a place for itself."""
        self.tables = self.make_tables(room=3)
        large = User("large", 0)
        large.devices = {str(number): (0, 0.0) for number in range(7)}
        self.put_user(large)
        self.tables.flush()
        self.tables.trim()
        self.assertEqual(self.kept(), [])
        self.assertEqual(told_of_user(self.tables.find_user("large")), told_of_user(large))

    def test_a_batch_that_is_given_up_is_forgotten(self) -> None:
        """What was to be written is not, and what is found is what is stored."""
        self.fill(1)
        user = self.tables.find_user("u0")
        assert user is not None
        user.position = 9
        self.tables.touch(("user", "u0"))
        self.put_user(User("new", 1))
        group = Group(1, public=True)
        group.enter("u0", "owner", 1)
        self.put_group("devs", group)
        self.tables.set_read_mark("u0", "g/devs", 5)
        self.tables.touch(("mark", "u0", "g/devs"))
        self.tables.forget()
        self.tables.flush()
        found = self.tables.find_user("u0")
        assert found is not None
        self.assertEqual(found.position, 0)
        self.assertIsNone(self.tables.find_user("new"))
        self.assertIsNone(self.tables.find_group("devs"))
        self.assertEqual(self.tables.read_mark("u0", "g/devs"), 0)
        self.assertEqual((self.count("groups"), self.count("members")), (0, 0))
