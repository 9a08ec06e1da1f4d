"""The end of all connections, in the order that loses nothing.

First the commands of all clients are finished, so that what they sent to each other is shown to
each other; only then are they told to go. Who has not finished after :data:`FINISH_TIMEOUT` seconds
is told all the same, and who has not gone :data:`STOP_TIMEOUT` seconds later is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Draining", "Leaver"]

FINISH_TIMEOUT: Final = 2.0
STOP_TIMEOUT: Final = 3.0


class Leaver(Protocol):
    """A connection that is to end."""

    def finish(self, then: Callable[[], None]) -> None:
        """Take no more commands, and call ``then`` when those taken are done."""

    def farewell(self) -> None:
        """Tell the client, and close."""

    def abort(self) -> None:
        """Drop the connection."""


class Draining:
    """One draining of ``connections``, which its owner keeps true."""

    def __init__(self, connections: Collection[Leaver], clock: IReactorTime) -> None:
        self._connections = connections
        self._busy: set[Leaver] = set(connections)
        self._clock = clock
        self._gone: Deferred[None] = Deferred()
        self._timer: IDelayedCall | None = None
        self._told = False

    def begin(self) -> Deferred[None]:
        """Begin; fires when all connections are gone."""
        self._timer = self._clock.callLater(FINISH_TIMEOUT, self._tell)
        for connection in list(self._busy):
            connection.finish(partial(self._finished, connection))
        self._go_on()
        return self._gone

    def lost(self, connection: Leaver) -> None:
        """A connection is gone, and not among the others any more."""
        self._finished(connection)

    def _finished(self, connection: Leaver) -> None:
        self._busy.discard(connection)
        self._go_on()

    def _go_on(self) -> None:
        if not self._busy and not self._told:
            self._tell()
        if not self._connections and not self._gone.called:
            if self._timer is not None and self._timer.active():
                self._timer.cancel()
            self._gone.callback(None)

    def _tell(self) -> None:
        self._told = True
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = self._clock.callLater(STOP_TIMEOUT, self._drop)
        for connection in list(self._connections):
            connection.farewell()

    def _drop(self) -> None:
        for connection in list(self._connections):
            connection.abort()
