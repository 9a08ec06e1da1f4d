"""Makes ``twistd chat`` known; imports nothing of ours, so that other commands do not load it."""

from twisted.application.service import ServiceMaker

chat = ServiceMaker(
    "chatsvc",
    "chatsvc.tap",
    "Chat over WebSocket: direct messages, groups, topics, missed messages.",
    "chat",
)
