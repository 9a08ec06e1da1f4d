"""A server that says back what it hears, for tools that test conformance to RFC 6455 from outside.

It is the real server, with all of its options, but for what such a tool cannot know of:

- each message comes back, by the way that messages come and go, instead of being a command;
- nothing else is said. Before our server closes for a broken rule it says why in a text frame,
  which is allowed, but which a tool that expects echoes alone counts as a wrong one;
- any path will do;
- as a program it takes messages of 16 MiB, which is the most that such tools send.

The session behind is there as ever, and hears no command: pings come from it, pongs go to it, and
it has its say in when a Close is answered.

``python -m tests.echo --port 9001`` listens at 127.0.0.1. The Autobahn test suite (``pip install
autobahntestsuite``, in a Python 2.7) is pointed at it by a file, and writes a report::

    {"servers": [{"agent": "chatsvc", "url": "ws://127.0.0.1:9001"}], "outdir": "report",
     "cases": ["*"], "exclude-cases": [], "exclude-agent-cases": {}}

    wstest --mode fuzzingclient --spec fuzzingclient.json
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Final

from autobahn.websocket.types import ConnectionRequest
from twisted.internet import reactor
from twisted.internet.interfaces import IReactorCore
from twisted.python.log import startLogging

from chatsvc.tap import Options, makeService
from chatsvc.websocket import PATH, ChatFactory, ChatProtocol, least_outbox
from chatsvc.wire import carrying_options

__all__ = ["EchoProtocol", "echoing"]

MOST: Final = 16 * 1024 * 1024
"""The largest message that the program takes, in bytes."""


class EchoProtocol(ChatProtocol):
    """See the module."""

    def _admit(self, request: ConnectionRequest) -> tuple[str | None, dict[str, str]]:
        request.path = PATH
        return super()._admit(request)

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: FBT001 - Autobahn's
        """Say it again, in a frame of the same kind; nothing once the client has said goodbye."""
        if self.state != self.STATE_OPEN or self._held_close is not None:
            return
        if isBinary:
            self.sendMessage(payload, isBinary=True, doNotCompress=True)
        else:
            super().send(payload)

    def send(self, payload: bytes) -> None:
        """Keep to ourselves what the server would say of its own accord."""


def echoing(factory: ChatFactory) -> ChatFactory:
    """The same factory; who connects from now on hears what it says."""
    factory.protocol = carrying_options(EchoProtocol, factory)
    return factory


def main() -> None:
    """Listen until interrupted."""
    parser = ArgumentParser(prog="python -m tests.echo", description="Say back what is heard.")
    parser.add_argument("--port", default="9001", help="TCP port to listen on, at 127.0.0.1")
    startLogging(sys.stdout)
    options = Options()
    options.parseOptions(["--store", "memory:1", "--port", parser.parse_args().port])
    options["max-message"] = MOST  # more than anybody may ask for
    options["max-outbox"] = 2 * least_outbox(MOST)
    service = makeService(options)
    echoing(service.factory)
    service.privilegedStartService()
    service.startService()
    running = IReactorCore(reactor)
    running.addSystemEventTrigger("before", "shutdown", service.stopService)
    running.run()


if __name__ == "__main__":
    main()
