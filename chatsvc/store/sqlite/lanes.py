"""Threads for the store."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool

__all__ = ["ThreadLane"]

T = TypeVar("T")


class ThreadLane:
    """Threads that do one thing after another each; a :class:`~chatsvc.store.sqlite.Lane`."""

    def __init__(self, reactor: IReactorFromThreads, name: str, threads: int) -> None:
        self._reactor = reactor
        self._pool = ThreadPool(threads, threads, name)

    def start(self) -> None:
        """Begin the threads."""
        self._pool.start()

    def call(self, work: Callable[[], T]) -> Deferred[T]:
        """Do ``work`` in the next thread that is free."""
        return deferToThreadPool(self._reactor, self._pool, work)

    def stop(self) -> None:
        """Wait until the threads have ended."""
        self._pool.stop()
