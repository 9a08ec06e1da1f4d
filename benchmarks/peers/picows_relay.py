"""A relay on `picows`, uvloop and orjson, as one would write it. Its argument is the port."""

from __future__ import annotations

import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import orjson
import uvloop
from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server

users: dict[str, WSTransport] = {}
topics: dict[str, set[WSTransport]] = defaultdict(set)


class Relay(WSListener):
    """Passes on what a client says."""

    def __init__(self, name: str) -> None:
        self.name = name

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Be known by the name."""
        users[self.name] = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Pass on a message, or subscribe."""
        if frame.msg_type != WSMsgType.TEXT:
            if frame.msg_type == WSMsgType.CLOSE:
                transport.disconnect()
            return
        said = orjson.loads(frame.get_payload_as_memoryview())
        if "op" in said:
            if said["op"] == "subscribe":
                topics[said["topic"]].add(transport)
            transport.send(WSMsgType.TEXT, b'{"event":"ok"}')
        elif "to" in said:
            heard = {"from": self.name, "to": said["to"], "msg": said["msg"]}
            users[said["to"]].send(WSMsgType.TEXT, orjson.dumps(heard))
        else:
            heard = {"from": self.name, "topic": said["topic"], "msg": said["msg"]}
            payload = orjson.dumps(heard)
            for receiver in topics[said["topic"]]:
                receiver.send(WSMsgType.TEXT, payload)


def listen(request: WSUpgradeRequest) -> Relay:
    """The listener of a new connection."""
    return Relay(parse_qs(urlsplit(request.path.decode()).query)["user"][0])


async def main(port: int) -> None:
    """Serve until the end."""
    server = await ws_create_server(listen, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
