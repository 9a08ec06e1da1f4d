"""How a frame becomes a command.

:func:`decode` works in two steps: the envelope (``op`` and ``id``) first, so that whatever is wrong
with the rest, the error can carry the ``id``; then the one type that ``op`` names. msgspec checks
types, lengths and patterns on the way. What fails is a
:class:`~chatsvc.messages.errors.Refused` that names the field and its rule, with a frame that would
work as its hint. Its text never holds more of the input than a short quotation.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec
from msgspec import UNSET, Struct

from chatsvc.messages.commands import (
    COMMANDS,
    FILTER_PATTERN,
    MAX_SIGNAL,
    NAME_PATTERN,
    TOPIC_PATTERN,
    Addressed,
    Command,
    CommandId,
    OfGroup,
    Send,
    Signal,
)
from chatsvc.messages.errors import Code, Refused

__all__ = ["MAX_DEPTH", "content_digest", "decode"]

MAX_DEPTH: Final = 100
"""Levels of nesting that ``data`` may have."""

_RULES: Final = {
    NAME_PATTERN: "a name is 1 to 64 of A-Z a-z 0-9 . _ - @, the first a letter or digit",
    TOPIC_PATTERN: "a topic is levels of A-Z a-z 0-9 . _ - @ joined by /, none of them empty",
    FILTER_PATTERN: "a filter is a topic in which + may stand for a level, a last # for the rest",
}


class _Envelope(Struct):
    op: str = "send"
    id: CommandId | None = None


class _Mark(Struct):
    id: CommandId | None = None


_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_mark = msgspec.json.Decoder(_Mark).decode
_decode_value = msgspec.json.Decoder().decode
_decoders = {op: msgspec.json.Decoder(kind).decode for op, kind in COMMANDS.items()}

# What msgspec and the codec raise for what a client can send.
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def decode(payload: bytes) -> Command:
    """The command in a frame.

    :raises Refused: whatever is wrong with it; the exception carries the command's ``id`` where
        there is one to be found.
    """
    hint = Send.example
    try:
        if not payload.isascii():
            payload.decode()  # msgspec passes over what no field asks for without looking into it
        envelope = _decode_envelope(payload)
        decoder = _decoders.get(envelope.op)
        if decoder is None:
            raise Refused(
                Code.UNKNOWN_OP,
                f"there is no op {envelope.op[:64]!r}",
                '{"op":"help"}',
                id=envelope.id,
            )
        hint = COMMANDS[envelope.op].example
        command = decoder(payload)
        if isinstance(command, Addressed):
            _check_address(command)
        if isinstance(command, Send):
            _check_content(command)
        elif isinstance(command, Signal):
            _check_signal(command)
    except _UNREADABLE as error:
        raise _explain(error, _find_mark(payload), hint) from None
    return command


def _check_address(command: Addressed) -> None:
    """There is exactly one address, and only a topic retains."""
    try:
        address = command.address()
    except Refused as refused:
        refused.id = command.id
        raise
    if isinstance(command, Send) and command.retain and address.kind != "topic":
        raise Refused(Code.BAD_REQUEST, "only a topic can `retain` a message", id=command.id)


def _check_content(command: Send) -> None:
    """A message has text or data, and its data is sound JSON all through."""
    if command.msg is UNSET:
        command.msg = command.message
    if command.data is not UNSET:
        # A Raw is passed over without looking into strings and numbers; what goes on untouched
        # must be readable by every receiver.
        _check_depth(_decode_value(command.data))
    elif command.msg is UNSET:
        raise Refused(Code.BAD_REQUEST, "`msg` or `data` is needed", Send.example, id=command.id)


def _check_signal(command: Signal) -> None:
    """What is passed on is not too large, and sound JSON all through."""
    if len(bytes(command.data)) > MAX_SIGNAL:
        reason = f"`data` of a signal has at most {MAX_SIGNAL} bytes"
        raise Refused(Code.TOO_LARGE, reason, id=command.id)
    _check_depth(_decode_value(command.data))


def _check_depth(value: Any) -> None:
    """Raise RecursionError for what a receiver's own parser might not take."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for each in level
            if isinstance(each, dict | list)
            for item in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise RecursionError


# Possessive, and content with a string that never ends: linear in the frame, whatever it holds.
_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+"?|[{}\[\]]', re.DOTALL)
_VALUE = re.compile(rb'\s*:\s*("(?:[^"\\]+|\\.)*+"|-?[0-9]++)(?=\s*[,}])', re.DOTALL)


def _find_mark(payload: bytes) -> str | int | None:
    """The ``id`` of a frame that could not be read as a command, if that much can be read.

    Without recursion, and blind to what else the frame holds: its fault may be anywhere.
    """
    depth, mark = 0, None
    for token in _TOKEN.finditer(payload):
        text = token[0]
        if text in (b"{", b"["):
            depth += 1
        elif text in (b"}", b"]"):
            depth -= 1
        elif depth == 1 and text == b'"id"' and (value := _VALUE.match(payload, token.end())):
            mark = value[1]
    try:
        return None if mark is None else _decode_mark(b'{"id":%s}' % mark).id
    except _UNREADABLE:
        return None


_MEASURED = re.compile(r"Expected `(?:str|array)` of length <= \d+")
_PLACED = re.compile(r"(?P<what>.*) - at `\$\.?(?P<where>.*)`", re.DOTALL)


def _explain(error: Exception, mark: str | int | None, hint: str) -> Refused:
    """What is wrong, in words that name the field and its rule."""
    code = Code.BAD_REQUEST
    if isinstance(error, RecursionError):
        reason = "the frame is nested too deeply"
    elif isinstance(error, msgspec.ValidationError):
        text = str(error)
        if _MEASURED.match(text):
            code = Code.TOO_LARGE
        placed = _PLACED.fullmatch(text)
        what, where = (placed["what"], placed["where"]) if placed else (text, "")
        for pattern, rule in _RULES.items():
            if repr(pattern) in what:
                what = rule
        what = what[:1].lower() + what[1:]
        reason = f"`{where}`: {what}" if where else what
    else:
        reason = "the frame is not valid JSON in UTF-8"
    return Refused(code, reason, hint, id=mark)


def content_digest(command: Command) -> bytes:
    """16 bytes that are equal for commands of equal content, compared as JSON values."""
    content: list[Any] = [command.op]
    if isinstance(command, Send):
        address = command.address()
        content += [address.kind, address.name, command.msg, command.reply_to, command.retain]
        if command.data is not UNSET:
            content.append(_canonical(_decode_value(command.data)))
    elif isinstance(command, OfGroup):
        content += ["group", command.group, getattr(command, "public", None)]
    plain = [None if part is UNSET else part for part in content]
    return hashlib.sha256(msgspec.json.encode(plain, order="sorted")).digest()[:16]


def _canonical(value: Any) -> Any:
    """The same value with every number in one spelling: 1.0 and 1 are one number in JSON."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return value
