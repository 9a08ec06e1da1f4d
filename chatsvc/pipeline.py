"""The order in which one connection's commands take effect.

"Commands of one connection take effect in the order sent, and each sees what went before"
(protocol, section 1), while many of them may be on their way to the store at once. A
:class:`Pipeline` keeps both: commands that *overlap* are started one after another without waiting,
because the store keeps their order; every other one waits until all before it are done, and holds
up all after it.

A client that sends faster than its commands are done is not read from while
:data:`MANY` of them are here, until :data:`FEW` are left; so what waits here is bounded by that and
by what one read from the socket brings.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["FEW", "MANY", "Pipeline"]

MANY: Final = 256
FEW: Final = 64

C = TypeVar("C")


class Pipeline(Generic[C]):
    """Runs commands of type ``C``.

    ``run`` starts one and returns a Deferred that fires when it is done, or None if it is done; it
    raises nothing, and its Deferred never fails. ``overlaps`` is asked just before whether a
    command need not wait for those before it. ``hold`` stops reading from the client, or goes on.
    """

    def __init__(
        self,
        run: Callable[[C], Deferred[None] | None],
        overlaps: Callable[[C], bool],
        hold: Callable[[bool], None],
    ) -> None:
        self._run = run
        self._overlaps = overlaps
        self._hold = hold
        self._queue: deque[C] = deque()
        self._under_way = 0
        self._exclusive = False
        self._working = False
        self._held = False
        self._when_idle: Callable[[], None] | None = None

    def push(self, command: C) -> None:
        """Run ``command`` when its turn comes."""
        self._queue.append(command)
        self._work()

    def clear(self) -> None:
        """Forget what has not been started."""
        self._queue.clear()

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call ``then`` once, when all that was pushed is done; at once if it is."""
        self._when_idle = then
        self._work()

    def _work(self) -> None:
        """Start what may start; called again by whatever is done meanwhile."""
        if self._working:
            return
        self._working = True
        try:
            while self._queue and not self._exclusive:
                overlaps = self._overlaps(self._queue[0])
                if self._under_way and not overlaps:
                    break
                answer = self._run(self._queue.popleft())
                if answer is not None:
                    self._under_way += 1
                    self._exclusive = not overlaps
                    answer.addCallback(self._done)
        finally:
            self._working = False
        waiting = len(self._queue) + self._under_way
        if waiting <= FEW if self._held else waiting >= MANY:
            self._held = not self._held
            self._hold(self._held)
        if not waiting and self._when_idle is not None:
            then, self._when_idle = self._when_idle, None
            then()

    def _done(self, _: None) -> None:
        self._under_way -= 1
        self._exclusive = False
        self._work()
