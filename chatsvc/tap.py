"""``twistd chat``: its options, and the one place that knows and wires the concrete classes."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Final, TypeVar

from twisted.internet import reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.python.usage import Options as UsageOptions
from twisted.python.usage import UsageError

from chatsvc.messages.commands import MAX_PAGE
from chatsvc.messages.events import MAX_FRAME
from chatsvc.operations import MAX_SUBSCRIPTIONS
from chatsvc.service import ChatService
from chatsvc.state import ChatState
from chatsvc.store import Store
from chatsvc.store.memory import MemoryStore
from chatsvc.store.rules import MAX_GROUPS
from chatsvc.store.sqlite import SqliteStore
from chatsvc.store.sqlite.file import LogFile
from chatsvc.store.sqlite.lanes import ThreadLane
from chatsvc.web.pages import Root
from chatsvc.web.site import HttpSite
from chatsvc.websocket import ChatFactory, EdgeOptions, least_outbox

__all__ = ["Options", "makeService"]

T = TypeVar("T")

READERS: Final = 3
"""Threads that read the log: a slow disk or a large page holds up one."""
MAX_OUTBOX: Final = 1024 * 1024
LEAST_QUEUE: Final = 64 * 1024
"""Bytes that may wait for a client before it counts as slow."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LOOPBACK: Final = ("localhost", "127.0.0.1", "[::1]")


def seconds(text: str) -> float:
    """A span of time: a number with ``s``, ``m``, ``h`` or ``d`` behind it.

    :raises ValueError: it is not.
    """
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not 0 < len(number) <= 9 or not number.isdecimal() or int(number) == 0:
        raise ValueError("must be like 30d, 12h, 15m or 90s")
    return float(int(number) * _UNITS[unit])


def count(text: str) -> int:
    """A whole number above 0.

    :raises ValueError: it is not.
    """
    if not text.isdecimal() or int(text) == 0:
        raise ValueError("must be a whole number above 0")
    return int(text)


def port(text: str) -> int:
    """A TCP port; 0 is one that is free.

    :raises ValueError: it is not.
    """
    if not text.isdecimal() or int(text) > 65535:
        raise ValueError("must be a number from 0 to 65535")
    return int(text)


def message_size(text: str) -> int:
    """The size of a message, in bytes; what makes of it must fit into one frame.

    :raises ValueError: it is not, or too large.
    """
    size = count(text)
    if size > MAX_FRAME - 4096:
        raise ValueError(f"can be at most {MAX_FRAME - 4096}")
    return size


def place(text: str) -> Path | int:
    """Where things are kept: the file of ``sqlite:FILE``, or the bytes of ``memory:MIB``.

    :raises ValueError: it is neither.
    """
    kind, _, rest = text.partition(":")
    if kind == "sqlite" and rest and "\0" not in rest:
        return Path(rest)
    if kind == "memory":
        return count(rest or "256") * 1024 * 1024
    raise ValueError("must be sqlite:FILE, memory: or memory:MIB")


def durability(text: str) -> str:
    """When a commit counts as one.

    :raises ValueError: it is neither "full" nor "normal".
    """
    if text not in ("full", "normal"):
        raise ValueError("must be full or normal")
    return text


def naming(option: str, kind: Callable[[str], T]) -> Callable[[str], T]:
    """``kind``, with an error that names the option and the value."""

    def coerce(text: str) -> T:
        try:
            return kind(text)
        except ValueError as error:
            raise UsageError(f"--{option} {text}: {error}") from None

    return coerce


class Options(UsageOptions):
    """What can be given to ``twistd chat``."""

    synopsis = "[options]"
    longdesc = (
        "A chat server: direct messages, groups, topics, and messages that wait for who is away, "
        "as JSON over WebSocket. Try it with: websocat ws://127.0.0.1:3030/ws"
    )
    optParameters: ClassVar = [
        [name, short, default, text, naming(name, kind)]
        for name, short, default, text, kind in (
            ("port", "p", 3030, "TCP port to listen on, at 127.0.0.1; 0 takes a free one.", port),
            (
                *("store", "s", "sqlite:chat.sqlite"),
                "Where things are kept: sqlite:FILE, or memory:MIB, lost at the end.",
                str,
            ),
            (
                *("durability", None, "full"),
                "What a power cut spares: full, all that was acknowledged; normal, most.",
                durability,
            ),
            ("retention", None, "30d", "How long messages are kept: 90s, 15m, 12h, 30d.", seconds),
            ("quota", None, 10_000, "Most messages that wait for one user.", count),
            ("max-message", None, 65_536, "Most bytes of a frame from a client.", message_size),
            (
                *("max-outbox", None, None),
                "Most bytes unsent to one client (1048576, or what --max-message needs).",
                count,
            ),
            ("max-connections", None, 10_000, "Most connections at the same time.", count),
        )
    ]

    optFlags: ClassVar = [
        ["no-compression", None, "Compress no messages, though a client offers it."],
    ]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """A Twisted endpoint to listen on instead of --port; can be given more than once."""
        self["listen"].append(endpoint)

    def postOptions(self) -> None:
        """Check what the types above could not."""
        if isinstance(self["retention"], str):
            self["retention"] = seconds(self["retention"])
        try:
            self["place"] = place(self["store"])
        except ValueError as error:
            raise UsageError(f"--store {self['store']}: {error}") from None
        least = least_outbox(self["max-message"]) + LEAST_QUEUE
        if self["max-outbox"] is None:
            self["max-outbox"] = max(MAX_OUTBOX, least)
        elif self["max-outbox"] < least:
            raise UsageError(f"--max-outbox {self['max-outbox']}: must be at least {least}")
        if not self["listen"]:
            self["listen"] = [f"tcp:{self['port']}:interface=127.0.0.1"]
        self["endpoints"] = [(text, self._endpoint(text)) for text in self["listen"]]

    @staticmethod
    def _endpoint(text: str) -> object:
        try:
            return serverFromString(reactor, text)
        except Exception as error:
            shown = "must be an endpoint like tcp:3030:interface=127.0.0.1 or unix:/run/chat.sock"
            raise UsageError(f"--listen {text}: {shown}") from error


def _make_store(options: Options, clock: IReactorTime) -> Store:
    kept = {"retention": options["retention"], "quota": options["quota"]}
    if isinstance(options["place"], int):
        return MemoryStore(clock, secrets.token_hex(8), max_bytes=options["place"], **kept)
    file = LogFile(
        options["place"],
        new_epoch=lambda: secrets.token_hex(8),
        durability=options["durability"],
    )
    threads = IReactorFromThreads(reactor)
    writing = ThreadLane(threads, "store writer", 1)
    reading = ThreadLane(threads, "store reader", READERS)
    return SqliteStore(file, clock, writing, reading, **kept)


def makeService(options: Options) -> ChatService:
    """The server that ``options`` describe."""
    clock = IReactorTime(reactor)
    store = _make_store(options, clock)
    limits = {
        "max_message": options["max-message"],
        "quota": options["quota"],
        "retention": int(options["retention"]),
        "subscriptions": MAX_SUBSCRIPTIONS,
        "groups": MAX_GROUPS,
        "page": MAX_PAGE,
    }
    edge = EdgeOptions(
        max_message=options["max-message"],
        max_outbox=options["max-outbox"],
        max_connections=options["max-connections"],
        hosts=frozenset(_LOOPBACK),
        origins=tuple(f"{scheme}://{host}:*" for scheme in ("http", "https") for host in _LOOPBACK),
        compression=not options["no-compression"],
    )
    state = ChatState(store, clock, lambda: secrets.token_hex(8))
    site = HttpSite(Root(ready=lambda: factory.serving), edge.hosts, clock)
    factory = ChatFactory(state, edge, limits, clock, site)
    return ChatService(factory, options["endpoints"], loopback_only=True)
