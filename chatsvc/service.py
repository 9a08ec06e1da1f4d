"""The running server: start and stop, in the order that loses nothing.

Listening comes first, so that a port that cannot be had is an error before anything else is
touched; nobody is let in before the store is ready. On the way out: no new connections, then each
client's commands are finished and it is told to go, then the store is stopped. ``MultiService``
would stop all of its children at once, so the order is written out here.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from chatsvc.websocket import ChatFactory

__all__ = ["ChatService", "is_loopback", "url_of"]


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
        """Bind the ports, while twistd may still hold the privileges to."""
        for description, endpoint in self._endpoints:
            endpoint.listen(self.factory).addCallbacks(
                self._listening, _cannot_listen, (description,), {}, (description,), {}
            )
        super().privilegedStartService()

    def _listening(self, port: IListeningPort, description: str) -> None:
        host = getattr(port.getHost(), "host", None)
        if self._loopback_only and host is not None and not is_loopback(host):
            port.stopListening()
            raise SystemExit(
                f"chatsvc: {description} is open to other machines, and nobody is asked who they "
                "are: listen on 127.0.0.1 or ::1"
            )
        self.ports.append(port)

    def startService(self) -> None:
        """Start what is behind the ports, then let clients in."""
        super().startService()
        self.factory.state.start().addCallbacks(self._started, self._not_started)

    def _started(self, _: None) -> None:
        self.factory.begin()
        for port in self.ports:
            self.log.info("listening on {where}", where=url_of(port))
        self.log.info("storing {where}", where=self.factory.state.store.name)
        if self.ports:
            self.log.info("try: websocat {where}", where=url_of(self.ports[0]))
            self.log.info("and type: {frame}", frame='{"to":"client-b","msg":"Hello!"}')

    def _not_started(self, failure: Failure) -> None:
        self.log.critical("the store cannot be started: {error}", error=failure.value)
        raise SystemExit(1)

    def stopService(self) -> Deferred[None]:
        """Stop listening, let clients finish and go, then stop the store."""
        super().stopService()
        ports, self.ports = self.ports, []
        stopped = DeferredList([maybeDeferred(port.stopListening) for port in ports])
        stopped.addCallback(lambda _: self.factory.drain())
        return stopped.addCallback(lambda _: self.factory.state.stop())


def _cannot_listen(failure: Failure, description: str) -> None:
    failure.trap(Exception)
    raise SystemExit(f"chatsvc: cannot listen on {description}: {failure.getErrorMessage()}")


def is_loopback(host: str) -> bool:
    """Whether an IP address is that of this machine alone."""
    return ip_address(host.partition("%")[0]).is_loopback


def url_of(port: IListeningPort) -> str:
    """Where a client finds this port, for people."""
    address = port.getHost()
    host = getattr(address, "host", None)
    if host is None:
        return str(address)
    return f"ws://{f'[{host}]' if ':' in host else host}:{getattr(address, 'port', 0)}/ws"
