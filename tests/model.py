"""The model of the protocol's promises that random clients are held against.

:class:`Recorder` writes down what is committed where it enters the store, and works out from that
alone who is to hear it; :class:`Client` is one connection, and compares what it saw with that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from twisted.internet.defer import Deferred

from chatsvc.messages.entries import Entry
from chatsvc.store import Start
from chatsvc.topics import matches
from tests.fakes import FakeConnection, LateStore

USERS = ("ann", "bob", "cid")
GROUPS = ("g", "h")
FILTERS = ("t/a", "t/+", "t/#", "#")
TOPICS = ("t/a", "t/b", "u")
QUOTA = 6


class Committed(NamedTuple):
    """An entry, and who hears it as the model sees it."""

    entry: Entry
    hearers: frozenset[str]


class Recorder(LateStore):
    """A late store that writes down, in order, what is committed and where readers start."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.log: list[Committed] = []
        self.members: dict[str, list[str]] = {group: [] for group in GROUPS}
        self.filters: dict[str, set[str]] = {user: set() for user in USERS}
        self.saved: dict[tuple[str, str | None], int] = {}
        self.wrong: list[str] = []

    def _announced(self, entry: Entry) -> None:
        """Note the entry, with who hears it by what is known so far."""
        name = entry.address.name
        if entry.address.kind == "to":
            hearers = {entry.sender, name}
        elif entry.address.kind == "group":
            if entry.kind == "joined":
                self.members[name].append(str(entry.user))
            hearers = set(self.members[name])
            if entry.kind == "left":
                self.members[name].remove(str(entry.user))
        else:
            hearers = {
                user
                for user, filters in self.filters.items()
                if any(matches(topic_filter, name) for topic_filter in filters)
            }
        self.log.append(Committed(entry, frozenset(hearers)))
        super()._announced(entry)

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        """Note a durable subscription."""
        self.filters[user].add(topic_filter)
        answer: Deferred[int] = LateStore.__getattr__(self, "subscribe")(user, topic_filter)
        return answer

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        """Note its end."""
        self.filters[user].discard(topic_filter)
        answer: Deferred[None] = LateStore.__getattr__(self, "unsubscribe")(user, topic_filter)
        return answer

    def save_positions(self, positions: dict[tuple[str, str | None], int]) -> Deferred[None]:
        """Note how far each reader is known to be."""
        for key, seq in positions.items():
            self.saved[key] = max(seq, self.saved.get(key, 0))
        answer: Deferred[None] = LateStore.__getattr__(self, "save_positions")(positions)
        return answer

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        """Check that a reader starts where its device or user is known to be."""
        if device is not None:
            self.saved.setdefault((user, device), self.saved.get((user, None), 0))
        expected = self.saved.get((user, device), 0) if since is None else since
        answer: Deferred[Start] = LateStore.__getattr__(self, "start_for")(
            user, device, since, at_most=at_most
        )

        def check(start: Start) -> Start:
            if start.after != expected:
                self.wrong.append(f"{user} starts after {start.after}, not {expected}")
            return start

        return answer.addCallback(check)


class Client:
    """A connection, and what it may expect."""

    def __init__(self, connection: FakeConnection, user: str, *, bare: bool) -> None:
        self.connection = connection
        self.user = user
        self.bare = bare
        self.origin = ""
        self.topics: list[str] = []
        self.filters: dict[str, int] = {}
        self.frames: list[dict[str, Any]] = []
        self.echoed = 0
        self.asked: dict[str, str] = {}

    def read(self) -> None:
        """Take what came, and note what it says of the connection."""
        for frame in self.connection.take():
            self.frames.append(frame)
            if frame.get("event") == "welcome":
                self.origin = frame["session"]
                self._note_topics(frame["seq"])
            if frame.get("event") == "ok" and frame.get("id") in self.asked:
                self.filters.setdefault(self.asked.pop(frame["id"]), frame["seq"])

    def _note_topics(self, head: int) -> None:
        """Topics of a `hello` without `since` are heard at least from the `welcome` on."""
        session = self.connection.session
        assert session is not None
        assert session._actor is not None
        for topic_filter in self.topics:
            after = session._actor.stream.filters.get(topic_filter)
            if after is not None:
                assert after <= head
                self.filters[topic_filter] = after

    @property
    def start(self) -> int | None:
        """The seq after which it is shown the log, once that is settled."""
        session = self.connection.session
        if session is None or session._actor is None:
            return None
        return session._actor.stream.started_after

    def expected(self, log: list[Committed]) -> list[Entry]:
        """What it was to see."""
        start = self.start
        if start is None:
            return []
        heard = []
        for entry, hearers in log:
            by_filter = entry.address.kind == "topic" and any(
                entry.seq > after and matches(topic_filter, entry.address.name)
                for topic_filter, after in self.filters.items()
            )
            if entry.seq <= start or not (self.user in hearers or by_filter):
                continue
            if self.bare:
                if entry.kind == "message" and entry.sender != self.user:
                    heard.append(entry)
            elif entry.origin != self.origin:
                heard.append(entry)
        return heard

    def check(self, log: list[Committed]) -> None:
        """What it saw is what it was to see, in order, each once, but for announced gaps."""
        expected = self.expected(log)
        gaps = [frame for frame in self.frames if frame.get("event") == "gap"]
        if self.bare:
            shown = [frame["msg"] for frame in self.frames if "event" not in frame]
            assert shown == [e.msg for e in expected if e.msg in shown], (shown, expected)
            missing = [entry for entry in expected if entry.msg not in shown]
        else:
            seqs = [f["seq"] for f in self.frames if _is_entry(f) and not f.get("replay")]
            assert seqs == [e.seq for e in expected if e.seq in seqs], (seqs, expected)
            missing = [entry for entry in expected if entry.seq not in seqs]
            for entry in missing:
                assert any(gap["after"] < entry.seq <= gap["until"] for gap in gaps), entry
        # Only a reader beyond the quota misses anything, and no direct message.
        assert all(entry.address.kind != "to" for entry in missing), missing
        rest = [e for e in expected if e not in missing and e.address.kind != "to"]
        assert not missing or sum(e.kind == "message" for e in rest) >= QUOTA, (missing, rest)


def _is_entry(frame: dict[str, Any]) -> bool:
    return "seq" in frame and frame.get("event") in (None, "joined", "left", "role")
