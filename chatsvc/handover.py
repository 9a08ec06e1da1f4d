"""Plain HTTP, handed over from Autobahn to twisted.web.

Autobahn listens, because most of what comes is a WebSocket. A request head that asks for none is
taken to pieces by nobody here: the bytes go on to a channel of the site as they came, and with them
the transport. The protocol that got them stays in the transport's hands, but what the transport
calls on it is the channel's from then on.

Such a connection is one like others: it counts for the limit, is swept and drained. Beyond the
limit there is room for a few that are answered once, so that a full server does not look like a
dead one.
"""

from __future__ import annotations

import re
from typing import Any, Final

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from chatsvc.web.channel import Channel

__all__ = ["hand_over", "is_plain"]

SPARE: Final = 16
"""HTTP connections beyond the limit."""

_UPGRADE: Final = re.compile(rb"\nupgrade[ \t]*:[^\n]*websocket", re.IGNORECASE)


def is_plain(data: bytes) -> bool:
    """Whether ``data`` begins with a whole request head that asks for no WebSocket."""
    end = data.find(b"\r\n\r\n")
    return end >= 0 and _UPGRADE.search(data, 0, end) is None


def hand_over(protocol: Any) -> None:
    """Let the site of a :class:`~chatsvc.websocket.ChatProtocol` have its connection."""
    factory = protocol.factory
    beyond = factory.countConnections - factory.options.max_connections
    if beyond > SPARE:
        protocol.failHandshake("maximum number of connections reached", 503)
        return
    channel: Channel = factory.site.buildProtocol(None)
    channel.last = beyond > 0 or not factory.serving

    def lost(reason: Failure = connectionDone) -> None:
        channel.connectionLost(reason)
        factory.countConnections -= 1
        factory.lost(channel)

    del factory.connections[protocol]
    factory.connections[channel] = None
    data, protocol.data = protocol.data, b""
    protocol.dataReceived = channel.dataReceived
    protocol.connectionLost = lost
    channel.makeConnection(protocol.transport)
    channel.dataReceived(data)
