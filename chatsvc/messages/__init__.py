"""What goes over the wire: commands in; replies, messages and events out; error and close codes.

Imports nothing of ours. Everything here is a value: decoding and encoding know no client and no
store. ``docs/protocol.md`` is the reference; field names are binding.

:mod:`~chatsvc.messages.errors`
    what can go wrong, as codes, and the one exception that becomes an ``error`` frame
:mod:`~chatsvc.messages.events`
    what the server says: messages, events and replies
:mod:`~chatsvc.messages.entries`
    what stands in the log, and the shapes in which clients see it
:mod:`~chatsvc.messages.commands`
    what a client may say
:mod:`~chatsvc.messages.decoding`
    how a frame becomes a command, or a refusal
:mod:`~chatsvc.messages.manual`
    what ``help`` answers
"""
