"""A relay on Autobahn and Twisted, as Autobahn's examples have it. Its argument is the port."""

from __future__ import annotations

import json
import sys
from collections import defaultdict

from autobahn.twisted.websocket import WebSocketServerFactory, WebSocketServerProtocol
from autobahn.websocket.types import ConnectionRequest
from twisted.internet import reactor

users: dict[str, Relay] = {}
topics: dict[str, set[Relay]] = defaultdict(set)


class Relay(WebSocketServerProtocol):
    """Passes on what a client says."""

    def onConnect(self, request: ConnectionRequest) -> None:
        """Be known by the name."""
        self.name = request.params["user"][0]
        users[self.name] = self

    def onMessage(self, payload: bytes, isBinary: bool) -> None:  # noqa: ARG002, FBT001
        """Pass on a message, or subscribe."""
        said = json.loads(payload.decode("utf8"))
        if "op" in said:
            if said["op"] == "subscribe":
                topics[said["topic"]].add(self)
            self.sendMessage(b'{"event":"ok"}')
        elif "to" in said:
            heard = {"from": self.name, "to": said["to"], "msg": said["msg"]}
            users[said["to"]].sendMessage(json.dumps(heard).encode("utf8"))
        else:
            heard = {"from": self.name, "topic": said["topic"], "msg": said["msg"]}
            text = json.dumps(heard).encode("utf8")
            for receiver in topics[said["topic"]]:
                receiver.sendMessage(text)


if __name__ == "__main__":
    factory = WebSocketServerFactory()
    factory.protocol = Relay
    reactor.listenTCP(int(sys.argv[1]), factory, interface="127.0.0.1")
    reactor.run()
