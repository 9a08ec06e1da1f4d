"""Where in the log an entry stands: the runs it belongs to, and spans of them.

A *run* is the part of the log that has to do with one thing, in the order of the log, and is known
by its name:

=========  ==============================================
``d/a|b``  direct messages between ``a`` and ``b``
``g/devs`` messages of a group
``e/devs`` what else happened in it: who came, who left
``t/a/b``  messages of a topic
``s/a``    direct messages that ``a`` sent
``r/a``    direct messages of others to ``a``
=========  ==============================================

The first run of an entry is its conversation's. A *span* is a stretch of a run, and what a reader
is given is always the merging of spans.
"""

from __future__ import annotations

from typing import NamedTuple

from chatsvc.messages.entries import Address, Entry

__all__ = [
    "Mark",
    "Span",
    "events_of",
    "messages_of",
    "published_to",
    "received_by",
    "runs_of",
    "said_in",
    "sent_by",
    "talk_of",
]


class Span(NamedTuple):
    """The entries of ``run`` with ``after`` < seq <= ``until``."""

    run: str
    after: int
    until: int


class Mark(NamedTuple):
    """That there is an entry at ``seq``: who sent it, and to which topic if to one."""

    seq: int
    sender: str
    topic: str | None


def messages_of(user: str, address: Address) -> str:
    """The messages of the conversation that ``address`` means when ``user`` says it."""
    name = address.name
    if address.kind == "to":
        return f"d/{user}|{name}" if user < name else f"d/{name}|{user}"
    return said_in(name) if address.kind == "group" else published_to(name)


def said_in(group: str) -> str:
    """The messages of a group."""
    return f"g/{group}"


def published_to(topic: str) -> str:
    """The messages of a topic."""
    return f"t/{topic}"


def events_of(group: str) -> str:
    """What happened in a group besides messages."""
    return f"e/{group}"


def sent_by(user: str) -> str:
    """The direct messages that ``user`` sent, to itself as well."""
    return f"s/{user}"


def received_by(user: str) -> str:
    """The direct messages that others sent to ``user``."""
    return f"r/{user}"


def talk_of(entry: Entry) -> str:
    """The run of the conversation that ``entry`` belongs to."""
    if entry.kind != "message":
        return events_of(entry.address.name)
    return messages_of(entry.sender, entry.address)


def runs_of(entry: Entry) -> tuple[str, ...]:
    """The names of all runs that ``entry`` stands in, its conversation's first."""
    address, talk = entry.address, talk_of(entry)
    if address.kind != "to":
        return (talk,)
    if address.name == entry.sender:
        return (talk, sent_by(entry.sender))
    return (talk, sent_by(entry.sender), received_by(address.name))
