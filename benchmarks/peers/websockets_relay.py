"""A relay on `websockets` and uvloop, as one would write it. Its argument is the port."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from urllib.parse import parse_qs, urlsplit

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve

users: dict[str, ServerConnection] = {}
topics: dict[str, set[ServerConnection]] = defaultdict(set)


async def relay(websocket: ServerConnection) -> None:
    """Pass on what a client says."""
    request = websocket.request
    name = parse_qs(urlsplit(request.path).query)["user"][0] if request else ""
    users[name] = websocket
    async for frame in websocket:
        said = json.loads(frame)
        if "op" in said:
            if said["op"] == "subscribe":
                topics[said["topic"]].add(websocket)
            await websocket.send('{"event":"ok"}')
        elif "to" in said:
            heard = {"from": name, "to": said["to"], "msg": said["msg"]}
            await users[said["to"]].send(json.dumps(heard))
        else:
            heard = {"from": name, "topic": said["topic"], "msg": said["msg"]}
            broadcast(topics[said["topic"]], json.dumps(heard))


async def main(port: int) -> None:
    """Serve until the end."""
    async with serve(relay, "127.0.0.1", port, compression=None) as server:
        await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
