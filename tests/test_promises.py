"""Promises 2, 3 and 4 of the protocol, under random clients.

Clients connect, say who they are, send, join, leave, subscribe, lag, drop and resume in any order,
over a store whose answers come late. What was committed is written down where it enters the store;
from that alone, a model works out who was to hear what, and compares it with what each client saw.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.fakes import House, make_clock, make_store
from tests.model import FILTERS, GROUPS, QUOTA, TOPICS, USERS, Client, Recorder


class Promises(RuleBasedStateMachine):
    """See the module."""

    clients: Bundle[Client] = Bundle("clients")
    gone: Bundle[Client] = Bundle("gone")

    @initialize()
    def open(self) -> None:
        """Open a house over the recorder."""
        clock = make_clock()
        self.store = Recorder(make_store(clock, quota=QUOTA))
        self.store.late = False
        self.house = House(self.store, clock)
        self.here: list[Client] = []
        self.sent = 0
        self.commands: list[tuple[str, dict[str, Any]]] = []

    def _welcome(self, client: Client) -> Client:
        self.here.append(client)
        return client

    def _settle(self) -> None:
        """Let everything come to rest: the store answers, readers read, pings are echoed."""
        self.store.late = False
        moved = True
        while moved:
            self.store.release()
            self.house.clock.advance(0.3)
            moved = False
            for client in self.here:
                connection = client.connection
                if connection.congested:
                    moved = True
                    connection.congested = False
                    assert connection.session is not None
                    connection.session.drained()
                moved = self._echo(client) or moved
                count = len(client.frames)
                client.read()
                moved = moved or len(client.frames) > count

    def _echo(self, client: Client) -> bool:
        if len(client.connection.pings) == client.echoed:
            return False
        client.echoed = len(client.connection.pings)
        client.connection.echo()
        return True

    # --- what clients do ---

    @rule(target=clients, user=st.sampled_from(USERS), by_url=st.booleans())
    def connect_plain(self, user: str, *, by_url: bool) -> Client:
        """A plain client comes, named by the URL or by its first `from`."""
        connection = self.house.connect(user if by_url else None)
        if not by_url:
            connection.say({"from": user, "op": "ack", "seq": 0})
        return self._welcome(Client(connection, user, bare=True))

    @rule(
        target=clients,
        user=st.sampled_from(USERS),
        device=st.sampled_from((None, "phone")),
        topics=st.lists(st.sampled_from(FILTERS), max_size=1),
    )
    def connect_session(self, user: str, device: str | None, topics: list[str]) -> Client:
        """A session begins at the stored position; its topics are heard from now on."""
        connection = self.house.connect(programmatic=True)
        client = Client(connection, user, bare=False)
        client.topics = topics
        connection.say(
            {"op": "hello", "user": user, "topics": topics} | ({"device": device} if device else {})
        )
        return self._welcome(client)

    @rule(target=clients, former=consumes(gone))
    def resume(self, former: Client) -> Client:
        """A session resumes after the last entry its former connection saw."""
        seqs = [f["seq"] for f in former.frames if "seq" in f and f.get("event") != "ok"]
        since = max((seq for seq in seqs if seq <= self.store.head), default=0)
        connection = self.house.connect(programmatic=True)
        topics = list(former.filters)
        client = Client(connection, former.user, bare=False)
        client.filters = dict.fromkeys(topics, since)
        connection.say({"op": "hello", "user": former.user, "since": since, "topics": topics})
        return self._welcome(client)

    @rule(client=clients, data=st.data())
    def send(self, client: Client, data: st.DataObject) -> None:
        """Send to somebody, a group or a topic, perhaps with a key."""
        if not self._is_here(client):
            return
        kind, names = data.draw(
            st.sampled_from((("to", (*USERS, "new")), ("group", GROUPS), ("topic", TOPICS)))
        )
        self.sent += 1
        command = {
            kind: data.draw(st.sampled_from(names)),
            "msg": f"m{self.sent}",
            "key": f"k{self.sent}",
            "id": self.sent,
        }
        client.connection.say(command)
        self.commands.append((client.user, command))

    @rule(client=clients, data=st.data())
    def retry(self, client: Client, data: st.DataObject) -> None:
        """Send an earlier command of the same user again: the answer is the first one."""
        self._settle()
        own = [command for user, command in self.commands if user == client.user]
        if not (self._is_here(client) and own):
            return
        command = data.draw(st.sampled_from(own))
        stored = [c.entry for c in self.store.log if c.entry.msg == command["msg"]]
        head = self._head()
        client.connection.say({**command, "id": "again"})
        self._settle()
        (reply,) = [f for f in client.frames if f.get("id") == "again"]
        client.frames.remove(reply)
        if stored:
            assert (reply["seq"], reply["dup"], self._head()) == (stored[0].seq, True, head)
            client.connection.say({**command, "msg": "other", "id": "again"})
            self._settle()
            (reply,) = [f for f in client.frames if f.get("id") == "again"]
            client.frames.remove(reply)
            assert (reply["code"], self._head()) == ("key_conflict", head)
        else:
            assert "dup" not in reply

    def _is_here(self, client: Client) -> bool:
        """Whether it has not left, and was not closed for a newer `hello` of its device."""
        return client in self.here and client.connection.closed is None

    def _head(self) -> int:
        return self.store._behind.head

    @rule(client=clients, op=st.sampled_from(("join", "leave")), group=st.sampled_from(GROUPS))
    def change_group(self, client: Client, op: str, group: str) -> None:
        """Join or leave a group."""
        if self._is_here(client):
            client.connection.say({"op": op, "group": group})

    @rule(client=clients, topic_filter=st.sampled_from(FILTERS))
    def subscribe(self, client: Client, topic_filter: str) -> None:
        """Subscribe for as long as the connection lives."""
        if self._is_here(client) and topic_filter not in client.filters:
            self.sent += 1
            client.asked[f"s{self.sent}"] = topic_filter
            client.connection.say({"op": "subscribe", "topic": topic_filter, "id": f"s{self.sent}"})

    @rule(client=clients, topic_filter=st.sampled_from(FILTERS))
    def subscribe_durably(self, client: Client, topic_filter: str) -> None:
        """Subscribe for ever."""
        if self._is_here(client):
            client.connection.say({"op": "subscribe", "topic": topic_filter, "durable": True})

    @rule(client=clients)
    def echo(self, client: Client) -> None:
        """Answer a ping."""
        if self._is_here(client):
            self._echo(client)

    @rule(client=clients)
    def lag(self, client: Client) -> None:
        """Stop draining."""
        client.connection.congested = True

    @rule(target=gone, client=consumes(clients))
    def drop(self, client: Client) -> Client:
        """Go away, whatever is on its way."""
        client.read()
        if client in self.here:
            self._leave(client)
        return client

    def _leave(self, client: Client) -> None:
        client.read()
        self.here.remove(client)
        if client.connection.closed is None:
            client.connection.leave()

    # --- what happens meanwhile ---

    @rule()
    def be_late(self) -> None:
        """The store's answers wait from now on."""
        self.store.late = True

    @rule(count=st.integers(1, 5))
    def answer(self, count: int) -> None:
        """The store tells a few things."""
        self.store.release(count)

    @rule()
    def answer_reads(self) -> None:
        """The store answers reads ahead of its announcements."""
        self.store.release_reads()

    @rule(seconds=st.sampled_from((0.0, 0.3, 3.0)))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.house.clock.advance(seconds)

    @rule()
    def check(self) -> None:
        """Everybody has seen what they were to see."""
        self._settle()
        for client in filter(self._is_here, self.here):
            client.check(self.store.log)
        assert self.store.wrong == []

    def teardown(self) -> None:
        """Check once more, at the end."""
        if hasattr(self, "house"):
            self.check()


class KeepingPromises(SynchronousTestCase):
    """The promises hold for whatever clients do."""

    def test_every_reader_sees_what_it_is_to_see_once_and_in_order(self) -> None:
        """Live, after a drop, by `since` and by the stored position, lagging or not."""
        run_state_machine_as_test(
            Promises,
            settings=settings(
                max_examples=400,
                stateful_step_count=40,
                deadline=None,
                database=None,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
            ),
        )
