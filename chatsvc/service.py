"""The running server: start and stop, in the order that loses nothing.

Listening comes first, so that a port that cannot be had is an error before anything else is
touched; nobody is let in before the store is ready. On the way out: no new connections, then each
client's commands are finished and it is told to go, then the store is stopped. ``MultiService``
would stop all of its children at once, so the order is written out here.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.websocket import ChatFactory

__all__ = ["CannotStart", "ChatService", "is_loopback", "url_of"]


THRESHOLDS: Final = (50_000, 10, 20)
"""After so many more objects the youngest are looked through, after so many times the older."""


class CannotStart(SystemExit, Exception):
    """Ends twistd with a message instead of a traceback.

    An ``Exception`` too, so that twistd removes its PID file and tells the caller of a daemon.
    """


class ChatService(Service):
    """Serves ``factory`` on ``endpoints``, which are (description, endpoint).

    With ``loopback_only``, listening on any other address is refused.
    """

    log = Logger()

    def __init__(
        self,
        factory: ChatFactory,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        *,
        loopback_only: bool,
    ) -> None:
        self.factory = factory
        self.ports: list[IListeningPort] = []
        self._endpoints = endpoints
        self._loopback_only = loopback_only

    def privilegedStartService(self) -> None:
        """Bind the ports, while twistd may still hold the privileges to.

        :raises CannotStart: one of them cannot be had, or may not be.
        """
        refusals: list[str] = []
        for description, endpoint in self._endpoints:
            listening = endpoint.listen(self.factory)
            listening.addCallback(self._listening, description)
            listening.addErrback(_refuse, description, refusals)
        if refusals:
            for port in self.ports:
                port.stopListening()
            self.log.critical("{reason}", reason=refusals[0])
            raise CannotStart(f"chatsvc: {refusals[0]}")
        super().privilegedStartService()

    def _listening(self, port: IListeningPort, description: str) -> None:
        self.ports.append(port)
        host = getattr(port.getHost(), "host", None)
        if self._loopback_only and host is not None and not is_loopback(host):
            raise CannotStart(
                f"{description} is open to other machines, and nobody is asked who they are: "
                "listen on 127.0.0.1 or ::1"
            )

    def startService(self) -> None:
        """Start what is behind the ports, then let clients in."""
        super().startService()
        failures: list[str] = []
        self.factory.state.start().addCallbacks(
            self._started, self._not_started, errbackArgs=(failures,)
        )
        if failures:
            raise CannotStart(f"chatsvc: {failures[0]}")

    def _started(self, _: None) -> None:
        if not self.running:
            return  # stopped meanwhile
        self.factory.begin()
        _spare_the_collector()
        for port in self.ports:
            self.log.info("listening on {where}", where=url_of(port))
        self.log.info("storing {where}", where=self.factory.state.store.name)
        if self.ports and url_of(self.ports[0]).startswith("ws:"):
            self.log.info("try: websocat {where}", where=url_of(self.ports[0]))
            self.log.info("and type: {frame}", frame='{"to":"client-b","msg":"Hello!"}')

    def _not_started(self, failure: Failure, failures: list[str]) -> None:
        failures.append(f"the store cannot be started: {failure.getErrorMessage()}")
        self.log.critical("{reason}", reason=failures[0])

    def stopService(self) -> Deferred[None]:
        """Stop listening, let clients finish and go, then stop the store."""
        super().stopService()
        ports, self.ports = self.ports, []
        stopped = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        stopped.addCallback(lambda _: self.factory.drain())
        return stopped.addCallback(lambda _: self.factory.state.stop())


def _spare_the_collector() -> None:
    """Let Python look for garbage in circles seldom, and never among what is there from the start.

    What a connection leaves behind goes without it. With Python's own thresholds it runs again and
    again while messages are under way, which are many objects: a fifth of the server's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def _refuse(failure: Failure, description: str, refusals: list[str]) -> None:
    if failure.check(CannotStart):
        refusals.append(failure.getErrorMessage())
    else:
        refusals.append(f"cannot listen on {description}: {failure.getErrorMessage()}")


def is_loopback(host: str) -> bool:
    """Whether an IP address is that of this machine alone."""
    return ip_address(host.partition("%")[0]).is_loopback


def url_of(port: IListeningPort) -> str:
    """Where a client finds this port, for people."""
    address = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        name = getattr(address, "name", None)
        return str(address) if name is None else f"unix:{os.fsdecode(name)}"
    return f"ws://{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', 0)}/ws"
