"""The log and what stands beside it: the interface that every store implements.

A store keeps the one ordered log (protocol, section 2) and the tables that change with it: groups
and their members, durable subscriptions, retained messages, keys, delivered positions. It knows
entries and addresses, no clients and no sockets. :mod:`chatsvc.store.memory` is one;
``tests/store_conformance.py`` is the suite that each must pass.

What a store promises:

- **Everything waits.** Each method that reads or writes returns a Deferred, also where the answer
  is at hand. A refusal is a :class:`~chatsvc.messages.errors.Refused` failure. Only
  :meth:`Store.append`, which every message passes, calls back instead: a Deferred costs more than
  the rules.
- **Committed first.** :meth:`Store.append` calls back, and the entries are announced, only when
  they are as durable as the store makes things.
- **The store announces.** Each committed entry is given to the ``announce`` callable, in the order
  of the log, whoever appended it. Delivery hangs on that alone, so that what another process
  committed takes the same way.
- **One order.** Announcements and the answers of ``append``, ``subscribe``, ``unsubscribe`` and
  ``mark_read`` come in the order of the log: when one comes with ``seq`` n, everything up to n has
  been announced, and nothing above it but what the same ``append`` brought. ``announce`` must not
  append itself.
- **The rules of the log are the store's**, because only at the commit is it certain what came
  before: the key first (a retry gets the first receipt whatever has changed since), then
  membership, then quota.
- **Who hears an entry is fixed at the commit**, by intervals: a user hears a group from the
  ``joined`` up to and including the ``left``, and a durable filter from its subscription to its
  end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct
from twisted.internet.defer import Deferred

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Refused

__all__ = [
    "Announce",
    "Append",
    "DeviceKey",
    "Interest",
    "Loss",
    "Member",
    "Page",
    "Receipt",
    "Slice",
    "Standing",
    "Start",
    "Store",
    "Then",
]

Announce: TypeAlias = Callable[[Entry], None]
DeviceKey: TypeAlias = tuple[str, str | None]
"""A user, and one of its devices or None for the user's own position."""


class Append(Struct, frozen=True, kw_only=True):
    """Something to be added to the log, as one transaction with what follows from it.

    ``digest`` is that of the command's content, and goes with ``key``. ``present`` says that the
    receiver of a direct message is being shown the log right now: nothing waits for it, so the
    quota of waiting messages does not apply.
    """

    op: Literal["send", "join", "leave", "create"]
    user: str
    address: Address
    origin: str = ""
    msg: str | None = None
    data: bytes | None = None
    reply_to: int | None = None
    retain: bool = False
    public: bool = True
    key: str | None = None
    digest: bytes = b""
    present: bool = False


class Receipt(Struct, frozen=True):
    """What became of an :class:`Append`; ``dup`` when an earlier one had the same key."""

    seq: int
    ts: int
    dup: bool = False


Then: TypeAlias = Callable[[Receipt | Refused], None]
"""What is called with what became of an :class:`Append`; it raises nothing."""


class Member(Struct, frozen=True):
    """A member of a group."""

    user: str
    role: str


class Standing(Struct, frozen=True):
    """What a user belongs to as of the entry ``seq``: groups with roles, and durable filters."""

    seq: int
    groups: dict[str, str]
    filters: tuple[str, ...]


class Loss(Struct, frozen=True):
    """Entries with ``after`` < seq <= ``until`` may be missing from what is given."""

    after: int
    until: int
    reason: Literal["retention", "quota"]


class Start(Struct, frozen=True):
    """Where a reader begins: after ``after``, and for groups and topics after ``shared_after``.

    The two differ where a quota cut off the oldest of groups and topics; direct messages beyond a
    quota were refused, and are never cut off.
    """

    after: int
    shared_after: int
    loss: Loss | None = None


class Interest(Struct, frozen=True):
    """A filter that one connection subscribed for: it hears what matches, above ``after``."""

    topic_filter: str
    after: int


class Page(Struct, frozen=True):
    """A run of entries for one reader.

    It is whole up to ``upto``: nothing else up to there is for this reader, but for the ``loss``.
    ``complete`` when ``upto`` was the end of what there is.
    """

    entries: Sequence[Entry]
    upto: int
    complete: bool
    loss: Loss | None = None


class Slice(Struct, frozen=True):
    """Part of a conversation in the order of the log; ``complete`` when nothing is beyond it."""

    entries: Sequence[Entry]
    complete: bool


class Store(Protocol):
    """See the module's docstring for what holds for all of it."""

    @property
    def name(self) -> str:
        """Where things are kept, for people."""

    @property
    def epoch(self) -> str:
        """The name of the log itself."""

    @property
    def head(self) -> int:
        """The ``seq`` of the last announced entry, 0 before the first."""

    def start(self, announce: Announce) -> Deferred[None]:
        """Be ready; call ``announce`` for each entry committed from now on."""

    def stop(self) -> Deferred[None]:
        """Finish what has been accepted, and let go of everything."""

    def append(self, append: Append, then: Then) -> None:
        """Commit one thing; ``then`` is called once it is, perhaps before this returns.

        Refused as ``key_conflict``, ``not_member``, ``not_found``, ``forbidden``, ``exists``,
        ``quota_exceeded`` or ``unavailable``; then nothing is stored, and the key not bound.
        """

    def admit(self, user: str) -> Deferred[Standing]:
        """What ``user`` belongs to; from now on it is a name that has been seen."""

    def start_for(
        self, user: str, device: str | None, since: int | None, *, at_most: int | None = None
    ) -> Deferred[Start]:
        """Where ``user``'s reader begins: after ``since``, or else after the stored position.

        Not after ``at_most``, though: what is above that is to be given in any case.

        A device seen for the first time gets the user's position, and keeps it. Tells of a loss by
        quota; one by retention is told by :meth:`feed`.
        """

    def feed(
        self, user: str, after: int, shared_after: int, interests: Sequence[Interest], limit: int
    ) -> Deferred[Page]:
        """Up to ``limit`` entries above ``after`` that ``user`` hears, own ones included.

        Of groups and topics only those above ``shared_after``. What matches an interest is heard
        as well; nothing is given twice.
        """

    def matches(
        self, topic_filter: str, after: int, until: int, limit: int, *, retained: bool
    ) -> Deferred[Page]:
        """Stored messages, ``after`` < seq <= ``until``, of the topics that match.

        With ``retained`` only the retained one of each topic, and of these the newest 1,000.
        """

    def history(
        self, user: str, address: Address, after: int | None, before: int | None, limit: int
    ) -> Deferred[Slice]:
        """Part of the conversation that ``address`` is for ``user``.

        With ``after``, the first entries above it, of every kind; without, the newest messages.
        Fails with ``not_member``.
        """

    def members(
        self, user: str, group: str, after: str | None, limit: int
    ) -> Deferred[tuple[list[Member], bool]]:
        """Members of ``group`` in the order of their names, and whether those are all.

        Fails with ``not_member`` when ``user`` is none.
        """

    def acquainted(self, user: str, other: str) -> Deferred[bool]:
        """Whether two users share a group now, or have a direct message of one to the other."""

    def subscribe(self, user: str, topic_filter: str) -> Deferred[int]:
        """Keep a durable subscription; fires with the ``seq`` above which it holds."""

    def unsubscribe(self, user: str, topic_filter: str) -> Deferred[None]:
        """End a durable subscription, if there is one."""

    def mark_read(self, user: str, address: Address, seq: int) -> Deferred[frozenset[str]]:
        """Note that ``user`` has read a conversation up to ``seq``, if that is further than before.

        Fires with the users to whom it is news. Fails with ``bad_request`` where ``seq`` is above
        the log, ``not_member``, or ``not_found`` where nothing is stored of the conversation.
        """

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> Deferred[None]:
        """Move delivered positions forward; those behind what is stored change nothing."""
