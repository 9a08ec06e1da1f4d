"""The store on SQLite: the rules of every store, and what only this one has."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase

from chatsvc.store import Store
from chatsvc.store.sqlite import SqliteStore
from chatsvc.store.sqlite.file import LogFile
from tests import store_conformance

T = TypeVar("T")


class ClockLane:
    """A lane without threads: what is to be done is done when the clock is advanced."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def start(self) -> None:
        """Nothing to begin."""

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` in the next turn."""
        return deferLater(self._clock, 0, work)

    def stop(self) -> None:
        """Nothing to end."""


class TheStoreOnSqlite(store_conformance.StoreConformance, SynchronousTestCase):
    """It keeps the rules of every store."""

    numbers = itertools.count()

    def make_store(self, clock: Clock, *, retention: float, quota: int) -> Store:
        """A store in a file of its own."""
        path = Path(self.mktemp())
        file = LogFile(path, new_epoch=lambda: "epoch-1", durability="normal")
        return SqliteStore(
            file, clock, ClockLane(clock), ClockLane(clock), retention=retention, quota=quota
        )

    def result(self, deferred: Deferred[T]) -> T:
        """What ``deferred`` fires with, in this turn of the clock or those that follow."""
        self.clock.advance(0)
        return super().result(deferred)
