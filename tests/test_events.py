"""What the server says of itself and in reply, byte for byte; error and close codes."""

from __future__ import annotations

import json

from msgspec import Raw
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.messages import events
from chatsvc.messages.errors import CloseCode, Code, Refused
from chatsvc.messages.events import Event, encode


class _OnTheWire(SynchronousTestCase):
    def says(self, event: Event, wire: str) -> None:
        """``event`` goes over the wire as exactly this."""
        self.assertEqual(encode(event).decode(), wire)


class Replies(_OnTheWire):
    """What carries the `id` of the command it answers."""

    def test_ok_is_as_in_section_4(self) -> None:
        """`id`, `seq`, `ts` and `key`."""
        self.says(
            events.Ok(id=1, seq=1044, ts=1767225600456, key="5f0c"),
            '{"event":"ok","id":1,"seq":1044,"ts":1767225600456,"key":"5f0c"}',
        )

    def test_ok_has_only_what_there_is_to_say(self) -> None:
        """A `dup` where it is one; an `id` of 0 and an empty one are marks as any other."""
        self.says(events.Ok(id=0), '{"event":"ok","id":0}')
        self.says(events.Ok(id="", seq=0, dup=True), '{"event":"ok","id":"","seq":0,"dup":true}')

    def test_an_error_is_as_in_section_6(self) -> None:
        """`id`, `code`, `reason` and `hint`."""
        self.says(
            events.Error(
                id=7,
                code=Code.NOT_MEMBER,
                reason="alice is not a member of devs",
                hint='{"op":"join","group":"devs"}',
            ),
            '{"event":"error","id":7,"code":"not_member","reason":"alice is not a member of devs",'
            '"hint":"{\\"op\\":\\"join\\",\\"group\\":\\"devs\\"}"}',
        )

    def test_an_error_may_say_when_to_try_again(self) -> None:
        """In seconds."""
        self.says(
            events.Error(code=Code.RATE_LIMITED, reason="slow down", retry_after=1.5),
            '{"event":"error","code":"rate_limited","reason":"slow down","retry_after":1.5}',
        )

    def test_welcome_always_has_its_fields(self) -> None:
        """An empty log, no groups and no topics are said too; only `device` may be absent."""
        welcome = events.Welcome(
            user="alice",
            session="s1",
            epoch="e",
            seq=0,
            order="log",
            protocol=events.PROTOCOL_VERSION,
            server="chatsvc/0",
            limits={"frame": 1},
            groups=[],
            topics=[],
        )
        self.says(
            welcome,
            '{"event":"welcome","user":"alice","session":"s1","epoch":"e","seq":0,"order":"log",'
            '"protocol":1,"server":"chatsvc/0","limits":{"frame":1},"groups":[],"topics":[]}',
        )
        welcome.device = "phone"
        self.assertEqual(list(json.loads(encode(welcome)))[1:3], ["user", "device"])

    def test_welcome_lists_groups_with_roles_and_topics_with_their_kind(self) -> None:
        """A filter of the connection is not durable."""
        welcome = json.loads(
            encode(
                events.Welcome(
                    groups=[events.GroupStanding("devs", "owner")],
                    topics=[events.Subscription("a/#", durable=False)],
                )
            )
        )
        self.assertEqual(welcome["groups"], [{"group": "devs", "role": "owner"}])
        self.assertEqual(welcome["topics"], [{"topic": "a/#", "durable": False}])

    def test_limits_are_there_even_where_there_are_none(self) -> None:
        """`limits` belongs to `welcome`."""
        self.assertEqual(json.loads(encode(events.Welcome(limits={})))["limits"], {})

    def test_a_list_always_says_whether_it_is_complete(self) -> None:
        """`false` is not left out, nor is an empty list."""
        self.says(
            events.Members(
                group="devs",
                members=[events.MemberState("bob", "member", online=False)],
                complete=False,
            ),
            '{"event":"members","group":"devs",'
            '"members":[{"user":"bob","role":"member","online":false}],"complete":false}',
        )
        self.says(
            events.HistoryPage(to="bob", messages=[], complete=True),
            '{"event":"history","to":"bob","messages":[],"complete":true}',
        )

    def test_history_has_its_entries_as_they_were_rendered(self) -> None:
        """They are not encoded again."""
        self.says(
            events.HistoryPage(id="h", group="g", messages=[Raw(b'{"a": 1}')], complete=False),
            '{"event":"history","id":"h","group":"g","messages":[{"a": 1}],"complete":false}',
        )

    def test_pong_has_the_servers_time(self) -> None:
        """Even at the beginning of time."""
        self.says(events.Pong(id="p", ts=0), '{"event":"pong","id":"p","ts":0}')

    def test_help_lists_commands(self) -> None:
        """As they were described."""
        self.says(
            events.HelpPage(commands=[{"op": "ping"}]),
            '{"event":"help","commands":[{"op":"ping"}]}',
        )


class UnaskedFor(_OnTheWire):
    """What a session is told without asking."""

    def test_the_marks_of_a_stream_say_where_it_stands(self) -> None:
        """A `seq` of 0 too."""
        self.says(events.CaughtUp(seq=0), '{"event":"caught_up","seq":0}')
        self.says(events.Lagging(seq=0), '{"event":"lagging","seq":0}')

    def test_a_gap_has_its_bounds_and_its_reason(self) -> None:
        """An address where it is in one place; of another epoch there are no bounds."""
        self.says(
            events.Gap(after=0, until=9, reason="retention"),
            '{"event":"gap","after":0,"until":9,"reason":"retention"}',
        )
        self.says(
            events.Gap(topic="a/#", after=3, until=9, reason="quota"),
            '{"event":"gap","topic":"a/#","after":3,"until":9,"reason":"quota"}',
        )
        self.says(events.Gap(reason="epoch"), '{"event":"gap","reason":"epoch"}')

    def test_closing_says_why_and_when_to_come_back(self) -> None:
        """At once is a time too; no time, where coming back is no use."""
        self.says(
            events.Closing(reason="restart", retry_in_ms=0),
            '{"event":"closing","reason":"restart","retry_in_ms":0}',
        )
        self.says(events.Closing(reason="bye"), '{"event":"closing","reason":"bye"}')


class Codes(SynchronousTestCase):
    """The codes of section 6."""

    def test_the_error_codes_are_the_protocols(self) -> None:
        """No more and no fewer."""
        self.assertEqual(
            " ".join(Code),
            "bad_request unknown_op unauthorized forbidden not_found not_member exists offline "
            "key_conflict key_expired too_large rate_limited quota_exceeded unavailable internal",
        )

    def test_the_close_codes_are_the_protocols(self) -> None:
        """Those that the server decides on; 1002, 1007 and 1009 are the WebSocket layer's."""
        self.assertEqual(
            [int(code) for code in CloseCode],
            [1000, 1001, 1011, 1013, 3000, 3003, 3008, 4000, 4001],
        )

    def test_a_refusal_holds_what_its_error_says(self) -> None:
        """Only code and reason are needed."""
        refused = Refused(Code.RATE_LIMITED, "slow", "{}", id="m", retry_after=2.0)
        self.assertEqual(
            (refused.code, refused.reason, refused.hint, refused.id, refused.retry_after),
            (Code.RATE_LIMITED, "slow", "{}", "m", 2.0),
        )
        bare = Refused(Code.INTERNAL, "r")
        self.assertEqual((bare.hint, bare.id, bare.retry_after), (None, None, None))
