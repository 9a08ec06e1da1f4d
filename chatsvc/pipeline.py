"""The order in which one connection's commands take effect.

"Commands of one connection take effect in the order sent, and each sees what went before"
(protocol, section 1), while many of them may be on their way to the store at once. A
:class:`Pipeline` keeps both: commands that *overlap* are started one after another without waiting,
because the store keeps their order; every other one waits until all before it are done, and holds
up all after it.

A client that sends faster than its commands are done is not read from while :data:`MANY` of them
are here, until :data:`FEW` are left; so what waits here is bounded by that and by what one read
from the socket brings. At most :data:`AT_ONCE` are started in one reactor turn, and none while the
client does not read its replies, so that one client's burst is neither the others' wait nor the
server's memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["AT_ONCE", "FEW", "MANY", "Pipeline"]

AT_ONCE: Final = 64
TURN: Final = 0.005
"""Seconds after which no further command is started in a reactor turn."""
MANY: Final = 256
FEW: Final = 64

C = TypeVar("C")


def _nothing(*_: object) -> Any:
    """What is called of a pipeline that has ended."""


class Pipeline(Generic[C]):
    """Runs commands of type ``C``.

    ``run`` starts one and raises nothing; once that is done, be it before it returns, :meth:`done`
    is called. ``overlaps`` is asked just before whether a command need not wait for those before
    it. ``hold`` stops reading from the client, or goes on;
    ``blocked`` tells whether it does not read its replies. Whoever pushed calls :meth:`work`.
    """

    def __init__(
        self,
        run: Callable[[C], None],
        overlaps: Callable[[C], bool],
        hold: Callable[[bool], None],
        blocked: Callable[[], bool],
        clock: IReactorTime,
    ) -> None:
        self._run = run
        self._overlaps = overlaps
        self._hold = hold
        self._blocked = blocked
        self._clock = clock
        self._next_turn: IDelayedCall | None = None
        self._queue: deque[C] = deque()
        self._under_way = 0
        self._exclusive = False
        self._working = False
        self._held = False
        self._when_idle: Callable[[], None] | None = None

    def push(self, command: C) -> None:
        """Run ``command`` when its turn comes."""
        self._queue.append(command)

    def end(self) -> None:
        """Forget what has not been started, and whom to tell of anything.

        So that nothing refers to each other in a circle, and all goes with the connection.
        """
        self._queue.clear()
        if self._next_turn is not None:
            self._next_turn.cancel()
            self._next_turn = None
        self._run = self._overlaps = self._hold = self._blocked = _nothing

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call ``then`` once, when all that was pushed is done; at once if it is."""
        self._when_idle = then
        self.work()

    def work(self) -> None:
        """Start what may start in this turn; called again by whatever is done meanwhile."""
        if self._working or self._next_turn is not None:
            return
        self._working = True
        started, until = 0, self._clock.seconds() + TURN
        try:
            while self._queue and not self._exclusive and not self._blocked():
                overlaps = self._overlaps(self._queue[0])
                if self._under_way and not overlaps:
                    break
                if started == AT_ONCE or (started and self._clock.seconds() > until):
                    self._next_turn = self._clock.callLater(0, self._turn)
                    break
                started += 1
                self._under_way += 1
                self._exclusive = not overlaps
                self._run(self._queue.popleft())
        finally:
            self._working = False
        waiting = len(self._queue) + self._under_way
        if waiting <= FEW if self._held else waiting >= MANY:
            self._held = not self._held
            self._hold(self._held)
        if not waiting and self._when_idle is not None:
            then, self._when_idle = self._when_idle, None
            then()

    def _turn(self) -> None:
        self._next_turn = None
        self.work()

    def done(self) -> None:
        """A command that was started is done."""
        self._under_way -= 1
        self._exclusive = False
        if self._working or not (self._queue or self._held or self._when_idle):
            return  # whoever works goes on, or nobody waits for anything
        self.work()
