"""The rules of the log: what an :class:`~chatsvc.store.Append` does, or why it is refused.

:class:`Rules` decides against the tables of groups and users: membership, roles, quota, who hears
what from where. It appends nothing itself: :meth:`Rules.decide` returns the entries that are to be
stored, with the tables already as they are after them, and told of each row that changed. A refusal
leaves everything as it was. What it must know of the log it asks through :class:`LogView`.

Keys come before all rules; the store looks them up, and answers by :func:`first_receipt`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IReactorTime

from chatsvc.messages.entries import Address, Entry
from chatsvc.messages.errors import Code, Refused
from chatsvc.store import Append, DeviceKey, Receipt, Standing
from chatsvc.store.spans import messages_of
from chatsvc.store.tables import Group, Interval, Tables, User

__all__ = ["MAX_GROUPS", "LogView", "Rules", "first_receipt", "not_member"]

MAX_GROUPS: Final = 1000
"""The most groups of one user."""

ANNOUNCE_ALL: Final = 50
"""In a group of more members, ``joined`` and ``left`` go to its admins and the user concerned."""
MAX_FOR_UNSEEN: Final = 1000
"""The most messages of one sender that wait for names never seen (protocol, section 4)."""
MAX_DEVICES: Final = 1000
"""The most devices that are remembered of one user."""


class LogView(Protocol):
    """What the rules ask of the log."""

    def has_message(self, run: str, seq: int) -> bool:
        """Whether ``seq`` is a message of that run (``spans``) that is still stored."""

    def has_any(self, run: str) -> bool:
        """Whether anything is stored of that run."""

    def count_received(self, user: str, above: int) -> int:
        """How many direct messages of others to ``user`` are above ``above``."""


class Rules:
    """See the module. ``retention`` is in seconds, ``quota`` in messages.

    ``last`` is the last stored entry, ``floor`` the last that retention removed; the store moves
    both.
    """

    def __init__(
        self,
        log: LogView,
        tables: Tables,
        clock: IReactorTime,
        *,
        retention: float,
        quota: int,
    ) -> None:
        self.last = 0
        self.floor = 0
        self._log = log
        self._clock = clock
        self._retention = retention
        self._quota = quota
        self._tables = tables
        self._operations: dict[str, Callable[[Append], tuple[Receipt, list[Entry]]]] = {
            "send": self._send,
            "join": self._join,
            "leave": self._leave,
            "create": self._create,
        }

    # --- appending ---

    def decide(self, append: Append) -> tuple[Receipt, list[Entry]]:
        """What ``append`` adds to the log: nothing where it only repeats what holds already.

        :raises Refused: it is against the rules.
        """
        return self._operations[append.op](append)

    def _entry(self, append: Append, ahead: int = 1, **fields: Any) -> Entry:
        """The entry at ``ahead`` after the last."""
        return Entry(
            seq=self.last + ahead,
            ts=int(self._clock.seconds() * 1000),
            sender=append.user,
            address=append.address,
            origin=append.origin,
            **fields,
        )

    def _send(self, append: Append) -> tuple[Receipt, list[Entry]]:
        address = append.address
        born = 0
        if address.kind == "group":
            born = self._membership(append.user, address.name).born
        if append.reply_to is not None:
            run = messages_of(append.user, address)
            if append.reply_to < born or not self._log.has_message(run, append.reply_to):
                raise Refused(Code.NOT_FOUND, "`reply_to` is no message of this conversation")
        if address.kind == "to":
            self._check_quota(append)
        seq, ts = self.last + 1, int(self._clock.seconds() * 1000)
        entry = Entry(
            seq,
            ts,
            "message",
            append.user,
            address,
            append.origin,
            append.msg,
            append.data,
            append.key,
            append.reply_to,
        )
        return Receipt(seq, ts), [entry]

    def _check_quota(self, append: Append) -> None:
        name = append.address.name
        if name == append.user:
            return
        receiver = self._tables.find_user(name)
        if receiver is not None and not append.present:
            waiting = self._log.count_received(name, receiver.position)
            if waiting >= self._quota:
                raise Refused(Code.QUOTA_EXCEEDED, f"{waiting} messages wait for {name} already")
        if receiver is not None and receiver.seen:
            return
        sender = self.user(append.user)
        if sender.waiting_for_unseen >= MAX_FOR_UNSEEN:
            raise Refused(
                Code.QUOTA_EXCEEDED,
                f"{MAX_FOR_UNSEEN} of your messages wait for names never seen here",
            )
        sender.waiting_for_unseen += 1
        unseen_from = self.user(name).unseen_from
        unseen_from[append.user] = unseen_from.get(append.user, 0) + 1
        self._tables.touch(("unseen", name, append.user))

    def _create(self, append: Append) -> tuple[Receipt, list[Entry]]:
        if self._tables.find_group(append.address.name) is not None:
            raise Refused(Code.EXISTS, f"there is a group {append.address.name} already")
        return self._enter(append, Group(self.last + 1, public=append.public), "owner")

    def _join(self, append: Append) -> tuple[Receipt, list[Entry]]:
        name = append.address.name
        group = self._tables.find_group(name)
        if group is None:
            return self._enter(append, Group(self.last + 1, public=True), "owner")
        if append.user in group.members:
            return Receipt(group.since[append.user], 0), []
        if not group.public:
            raise Refused(Code.FORBIDDEN, f"{name} is by invitation")
        return self._enter(append, group, "member")

    def _enter(self, append: Append, group: Group, role: str) -> tuple[Receipt, list[Entry]]:
        name, user = append.address.name, append.user
        record = self.user(user)
        if len(record.roles) >= MAX_GROUPS:
            raise Refused(Code.QUOTA_EXCEEDED, f"{user} is a member of {MAX_GROUPS} groups")
        if not group.members:
            self._tables.put_group(name, group)
            self._tables.touch(("group", name))
        group.enter(user, role, self.last + 1)
        self._tables.touch(("member", name, user))
        record.enter_group(name, role, self.last, self.floor)
        self._tables.touch(("hearing", user, "group", name))
        entry = self._entry(append, kind="joined", user=user, audience=self._crowd(group, user))
        return Receipt(entry.seq, entry.ts), [entry]

    def _leave(self, append: Append) -> tuple[Receipt, list[Entry]]:
        name, user = append.address.name, append.user
        record = self._tables.find_user(user)
        group = self._tables.find_group(name)
        if record is None or group is None or user not in group.members:
            if record is not None and (left := record.left_group(name)) is not None:
                return Receipt(left, 0), []
            raise not_member(user, name)
        audience = self._crowd(group, user)
        entries = [self._entry(append, kind="left", user=user, audience=audience)]
        record.leave_group(name, entries[0].seq)
        self._tables.touch(("hearing", user, "group", name))
        heir = group.leave(user)
        self._tables.touch(("member", name, user))
        if heir is not None:
            self.user(heir).roles[name] = "owner"
            self._tables.touch(("member", name, heir))
            entries.append(self._entry(append, 2, kind="role", user=heir, role="owner"))
        if not group.members:
            self._tables.end_group(name)
            self._tables.touch(("group", name))
        return Receipt(entries[0].seq, entries[0].ts), entries

    @staticmethod
    def _crowd(group: Group, user: str) -> frozenset[str] | None:
        if len(group.members) <= ANNOUNCE_ALL:
            return None
        return frozenset({*group.staff, user})

    # --- users ---

    def user(self, name: str) -> User:
        """What is known of a user; whoever is spoken of is known."""
        record = self._tables.find_user(name)
        if record is None:
            record = User(name, self.last)
            self._tables.add_user(record)
            self._tables.touch(("user", name))
        return record

    def _membership(self, user: str, name: str) -> Group:
        """The group, of which ``user`` is a member."""
        group = self._tables.find_group(name)
        if group is None or user not in group.members:
            raise not_member(user, name)
        return group

    def admit(self, user: str) -> Standing:
        """Note that ``user`` has been seen; what it belongs to."""
        record = self.user(user)
        if not record.seen:
            record.seen = True
            self._tables.touch(("user", user))
        for sender, count in record.unseen_from.items():
            self.user(sender).waiting_for_unseen -= count
            self._tables.touch(("unseen", user, sender))
        record.unseen_from.clear()
        return Standing(self.last, dict(record.roles), tuple(record.filters))

    def forget_waiting(self, sender: str, receiver: str) -> None:
        """A message of ``sender`` is gone that waited for ``receiver``, if that was never seen."""
        record = self.user(receiver)
        if not record.seen and record.unseen_from.get(sender):
            self.user(sender).waiting_for_unseen -= 1
            record.unseen_from[sender] -= 1
            if not record.unseen_from[sender]:
                del record.unseen_from[sender]
            self._tables.touch(("unseen", receiver, sender))

    def start_after(
        self, user: str, device: str | None, since: int | None, at_most: int | None
    ) -> int:
        """After what a reader begins: ``since`` or its position, but not after ``at_most``.

        :raises Refused: too many devices are known.
        """
        position = self._position(user, device)
        after = position if since is None else since
        return after if at_most is None else min(after, at_most)

    def knows_device(self, user: str, device: str) -> bool:
        """Whether a device has a position of its own."""
        record = self._tables.find_user(user)
        return record is not None and device in record.devices

    def _position(self, user: str, device: str | None) -> int:
        """How far a reader is; a device seen for the first time is where its user is."""
        record = self.user(user)
        if device is None:
            return record.position
        now = self._clock.seconds()
        for forgotten in record.forget_devices(now - self._retention):
            self._tables.touch(("device", user, forgotten))
        if device not in record.devices and len(record.devices) >= MAX_DEVICES:
            raise Refused(Code.QUOTA_EXCEEDED, f"{MAX_DEVICES} devices are known for this user")
        position, _ = record.devices.get(device, (record.position, now))
        record.devices[device] = (position, now)
        self._tables.touch(("device", user, device))
        return position

    def save_positions(self, positions: Mapping[DeviceKey, int]) -> None:
        """Move positions forward."""
        now = self._clock.seconds()
        for (user, device), seq in positions.items():
            record = self.user(user)
            if device is None:
                record.position = max(record.position, seq)
                self._tables.touch(("user", user))
            elif device in record.devices:
                record.devices[device] = (max(record.devices[device][0], seq), now)
                self._tables.touch(("device", user, device))

    def mark_read(self, user: str, address: Address, seq: int) -> frozenset[str]:
        """Move a read mark forward; who is told of it (protocol, section 5)."""
        audience = {user}
        if address.kind == "group":
            members = self._membership(user, address.name).members
            audience |= set(members) if len(members) <= ANNOUNCE_ALL else set()
        elif address.kind == "to":
            audience.add(address.name)
        run = messages_of(user, address)
        if seq > self.last:
            raise Refused(Code.BAD_REQUEST, f"nothing above {self.last} is stored")
        if not self._log.has_any(run):
            raise Refused(Code.NOT_FOUND, "nothing is stored of this conversation")
        if seq <= self._tables.read_mark(user, run):
            return frozenset()
        self._tables.set_read_mark(user, run, seq)
        self._tables.touch(("mark", user, run))
        return frozenset(audience)

    def subscribe(self, user: str, topic_filter: str) -> int:
        """Keep a durable subscription; the ``seq`` above which it is heard."""
        record = self.user(user)
        if topic_filter not in record.filters:
            record.filters[topic_filter] = Interval(topic_filter, self.last)
            self._tables.touch(("hearing", user, "topic", topic_filter))
        return self.last

    def unsubscribe(self, user: str, topic_filter: str) -> None:
        """End a durable subscription."""
        for changed in self.user(user).end_filter(topic_filter, self.last, self.floor):
            self._tables.touch(("hearing", user, "topic", changed))


def first_receipt(append: Append, digest: bytes, first: Receipt) -> Receipt:
    """What an append gets whose key is bound: what the one got that has bound it.

    :raises Refused: that was something else.
    """
    if digest != append.digest:
        raise Refused(Code.KEY_CONFLICT, "this key was used for something else")
    return Receipt(first.seq, first.ts, dup=True)


def not_member(user: str, group: str) -> Refused:
    """The refusal for who is no member of a group; whether it exists is not told."""
    return Refused(
        Code.NOT_MEMBER,
        f"{user} is not a member of {group}",
        f'{{"op":"join","group":"{group}"}}',
    )
