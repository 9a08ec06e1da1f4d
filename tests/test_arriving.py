"""Users who arrive while the store's answer is late, and changes announced meanwhile."""

from __future__ import annotations

from functools import partial
from itertools import product
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from twisted.internet.defer import Deferred, fail
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages.entries import Address
from chatsvc.messages.errors import Code, Refused
from chatsvc.state import ChatState
from chatsvc.store import Append, Standing
from chatsvc.store.memory import MemoryStore
from tests.ears import Ear, StateCase
from tests.fakes import DAY, MIB, LateStore, appended, counter, make_clock, make_store

GROUPS = ("devs", "ops")
FILTERS = ("a/b", "a/#", "+/b")


class Shut(MemoryStore):
    """A store that admits nobody while it is shut."""

    shut = True

    def admit(self, user: str) -> Deferred[Standing]:
        """Admit, or refuse."""
        if self.shut:
            return fail(Refused(Code.UNAVAILABLE, "not now"))
        return super().admit(user)


class Arriving(StateCase):
    """From the call of `attach` to the moment its Deferred fires."""

    def setUp(self) -> None:
        """Begin with bob in devs, and from now on with late answers."""
        super().setUp()
        self.late = LateStore(make_store(self.clock))
        self.open(self.late)
        self.late.late = False
        self.bob = self.ear("bob")
        self.do("bob", "create", "devs")
        self.late.late = True

    def prompt(self, *, reads_first: bool = False) -> None:
        """Let the store tell all it has to tell, and be prompt from now on."""
        if reads_first:
            self.late.release_reads()
        self.late.late = False
        self.late.release()

    def attach(self, user: str, device: str | None = None) -> tuple[Ear, Deferred[None]]:
        """A subscriber on its way."""
        ear = Ear(self.state, user, device)
        return ear, self.state.attach(ear)

    def hears_devs(self, *ears: Ear) -> list[bool]:
        """Whether each of these hears a message of devs now; once, if so."""
        for ear in ears:
            ear.take()
        self.say("bob", "group", "devs", "probe")
        return [ear.take() == ["probe"] for ear in ears]

    def test_a_user_hears_its_groups_and_filters_once_the_store_has_told_them(self) -> None:
        """Not before; then the Deferred fires."""
        self.do("alice", "join", "devs")
        self.late.subscribe("alice", "a/#")
        self.late.release()
        alice, arrived = self.attach("alice")
        self.assertNoResult(arrived)
        self.say("bob", "group", "devs", "early")
        self.prompt()
        self.assertIsNone(self.successResultOf(arrived))
        alice.take()
        self.say("bob", "group", "devs", "g")
        self.say("bob", "topic", "a/b", "t")
        self.assertEqual(alice.take(), ["g", "t"])

    def test_all_who_arrive_meanwhile_wait_for_one_answer(self) -> None:
        """And hear the same after it."""
        self.do("alice", "join", "devs")
        self.late.release()
        one, first = self.attach("alice")
        two, second = self.attach("alice")
        self.assertNoResult(second)
        self.late.release(1)
        self.successResultOf(first)
        self.successResultOf(second)
        self.prompt()
        self.assertEqual(self.hears_devs(one, two), [True, True])

    def test_a_group_joined_meanwhile_is_heard(self) -> None:
        """Whatever was asked first, and whatever is told first."""
        for asked_first, reads_first in product((True, False), repeat=2):
            user = f"alice{asked_first}{reads_first}"
            self.late.late = True
            if asked_first:
                self.do(user, "join", "devs")
            alice, _ = self.attach(user)
            if not asked_first:
                self.do(user, "join", "devs")
            self.prompt(reads_first=reads_first)
            self.assertEqual(self.hears_devs(alice), [True])

    def test_a_group_left_meanwhile_is_not_heard(self) -> None:
        """Whatever was asked first, and whatever is told first."""
        for asked_first, reads_first in product((True, False), repeat=2):
            user = f"alice{asked_first}{reads_first}"
            self.do(user, "join", "devs")
            self.prompt()
            self.late.late = True
            if asked_first:
                self.do(user, "leave", "devs")
            alice, _ = self.attach(user)
            if not asked_first:
                self.do(user, "leave", "devs")
            self.prompt(reads_first=reads_first)
            self.assertEqual(self.hears_devs(alice), [False])

    def test_a_group_left_and_joined_again_meanwhile_is_heard(self) -> None:
        """The last word counts."""
        for asked_first, reads_first in product((True, False), repeat=2):
            user = f"alice{asked_first}{reads_first}"
            self.do(user, "join", "devs")
            self.prompt()
            self.late.late = True
            if asked_first:
                self.do(user, "leave", "devs")
            alice, _ = self.attach(user)
            for op in ("join", "leave", "join") if asked_first else ("leave", "join"):
                self.do(user, op, "devs")
            self.prompt(reads_first=reads_first)
            self.assertEqual(self.hears_devs(alice), [True])

    def test_a_group_left_while_the_device_comes_back_is_not_heard(self) -> None:
        """The connection that said `leave` is replaced before its answer came."""
        for asked_first, reads_first in product((True, False), repeat=2):
            user = f"alice{asked_first}{reads_first}"
            self.do(user, "join", "devs")
            self.prompt()
            self.ear(user, "phone")
            self.late.late = True
            if asked_first:
                self.do(user, "leave", "devs")
            alice, _ = self.attach(user, "phone")
            if not asked_first:
                self.do(user, "leave", "devs")
            self.prompt(reads_first=reads_first)
            self.assertEqual(self.hears_devs(alice), [False])

    def test_a_filter_subscribed_just_before_is_the_users_once(self) -> None:
        """Its answer may come to a connection that only arrives; it ends for good all the same."""
        gone = self.attach("alice")[0]
        self.late.release()
        self.state.subscribe_durably("alice", "a")
        self.state.detach(gone)
        alice, _ = self.attach("alice")
        self.prompt()
        self.say("bob", "topic", "a", "x")
        self.assertEqual(alice.take(), ["x"])
        self.state.unsubscribe_durably("alice", "a")
        self.say("bob", "topic", "a", "y")
        self.assertEqual(alice.take(), [])

    def test_who_goes_before_the_answer_leaves_nothing(self) -> None:
        """Also when a filter is subscribed and a group is joined meanwhile."""
        self.do("alice", "join", "devs")
        self.state.subscribe_durably("alice", "a")
        alice, _ = self.attach("alice")
        other, _ = self.attach("alice")
        self.late.release(1)
        self.state.detach(alice)
        self.prompt()
        self.assertEqual(self.hears_devs(alice, other), [False, True])
        self.state.detach(other)
        self.state.detach(self.bob)
        self.nothing_is_left()

    def test_who_goes_and_comes_again_is_answered_anew(self) -> None:
        """The first answer is not for the second visit."""
        self.do("alice", "join", "devs")
        self.late.release()
        first, _ = self.attach("alice")
        self.state.detach(first)
        again, arrived = self.attach("alice")
        self.late.release(1)
        self.assertNoResult(arrived)
        self.prompt()
        self.successResultOf(arrived)
        self.assertEqual(self.hears_devs(first, again), [False, True])

    def test_whom_the_store_turns_away_is_told_and_forgotten(self) -> None:
        """All who wait are; later they may come again."""
        shut = Shut(self.clock, "epoch-1", retention=30 * DAY, quota=100, max_bytes=MIB)
        late = LateStore(shut)
        self.open(late)
        answers = [self.attach("alice", device)[1] for device in (None, "phone")]
        late.release()
        for answer in answers:
            self.assertEqual(self.failureResultOf(answer, Refused).value.code, Code.UNAVAILABLE)
        self.nothing_is_left()
        shut.shut = False
        alice, answer = self.attach("alice", "phone")
        late.release()
        self.successResultOf(answer)
        self.assertFalse(alice.gone)


class Traffic(RuleBasedStateMachine):
    """Two users with devices come, go, join, leave and subscribe, while answers are late."""

    def __init__(self) -> None:
        super().__init__()
        clock = make_clock()
        self.behind = make_store(clock)
        self.late = LateStore(self.behind)
        self.state = ChatState(self.late, clock, counter("s"))
        self.state.start()
        self.ears: list[Ear] = []
        self.arrived: list[Ear] = []

    @rule(user=st.sampled_from("ab"), device=st.sampled_from([None, "phone"]))
    def attach(self, user: str, device: str | None) -> None:
        """A connection comes."""
        ear = Ear(self.state, user, device)
        self.ears.append(ear)
        self.state.attach(ear).addCallback(lambda _: self.arrived.append(ear))

    @rule(number=st.integers(0, 5))
    def detach(self, number: int) -> None:
        """A connection goes."""
        if number < len(self.ears):
            ear = self.ears.pop(number)
            ear.gone = True
            self.state.detach(ear)

    @rule(user=st.sampled_from("ab"), op=st.sampled_from(["join", "leave"]), data=st.data())
    def change(self, user: str, op: Any, data: st.DataObject) -> None:
        """A user joins or leaves a group."""
        group = data.draw(st.sampled_from(GROUPS))
        append = Append(op=op, user=user, address=Address("group", group))
        answer = appended(self.state.publish, append)
        answer.addErrback(lambda failure: failure.trap(Refused))

    @rule(user=st.sampled_from("ab"), topic=st.sampled_from(FILTERS), on=st.booleans())
    def subscribe(self, user: str, topic: str, on: bool) -> None:  # noqa: FBT001 - drawn by name
        """A connection of a user, which has arrived, subscribes durably, or no more."""
        if any(ear.user == user and not ear.gone for ear in self.arrived):
            change = self.state.subscribe_durably if on else self.state.unsubscribe_durably
            change(user, topic)

    @rule(count=st.integers(1, 4))
    def release(self, count: int) -> None:
        """The store tells something."""
        self.late.release(count)

    @rule()
    def release_reads(self) -> None:
        """The store answers what was read, ahead of what it has to announce."""
        self.late.release_reads()

    def teardown(self) -> None:
        """When all is told, each hears what the store says it hears, and going leaves nothing."""
        self.late.late = False
        self.late.release()
        standings: dict[str, Standing] = {}
        for user in "ab":
            self.behind.admit(user).addCallback(partial(standings.__setitem__, user))
        here = [ear for ear in self.ears if not ear.gone]
        for ear in here:
            groups = {name for name in GROUPS if ear in self.state.groups.subscribers(name)}
            assert groups == set(standings[ear.user].groups)
            filters = dict.fromkeys(standings[ear.user].filters, 1)
            holds = self.state.topics._holds.items()
            assert {name: held for (name, each), held in holds if each is ear} == filters
        for ear in here:
            self.state.detach(ear)
        assert len(self.state.clients) == 0
        assert (self.state.groups._subscribers, self.state.topics._holds) == ({}, {})


class AnyTraffic(SynchronousTestCase):
    """Coming, going and changing in any order."""

    def test_in_the_end_each_hears_what_the_store_says(self) -> None:
        """However late the store's answers came."""
        run_state_machine_as_test(
            Traffic,
            settings=settings(
                database=None, deadline=None, max_examples=250, stateful_step_count=25
            ),
        )
