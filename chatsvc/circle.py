"""Who may know of whom: the users who share a group or a direct conversation.

The store knows; but it must be asked, and signals come in bursts. So what it said is remembered
while it cannot have changed: until one of the two leaves a group or is connected no more. That two
are *not* acquainted is asked anew each time, for it takes one message to change.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred

from chatsvc.store import Store

__all__ = ["Circle"]


class Circle:
    """See the module."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._acquainted: dict[str, set[str]] = {}
        self._forgotten = 0

    def __len__(self) -> int:
        return len(self._acquainted)

    def holds(self, user: str, other: str) -> bool | Deferred[bool]:
        """Whether two users may know of each other; at once where it is remembered."""
        if user == other or other in self._acquainted.get(user, ()):
            return True
        forgotten = self._forgotten

        def remember(acquainted: bool) -> bool:  # noqa: FBT001 - a callback's
            if acquainted and forgotten == self._forgotten:
                self._acquainted.setdefault(user, set()).add(other)
                self._acquainted.setdefault(other, set()).add(user)
            return acquainted

        return self._store.acquainted(user, other).addCallback(remember)

    def forget(self, user: str) -> None:
        """Whom ``user`` knows may have changed, or is of no use any more."""
        self._forgotten += 1
        for other in self._acquainted.pop(user, ()):
            others = self._acquainted[other]
            others.discard(user)
            if not others:
                del self._acquainted[other]
