"""What ``help`` answers: the commands, from their own definitions."""

from __future__ import annotations

from typing import Any

import msgspec

from chatsvc.messages.commands import COMMANDS, Command
from chatsvc.messages.errors import Code, Refused

__all__ = ["describe"]


def _describe(kind: type[Command]) -> dict[str, Any]:
    definition = msgspec.json.schema(kind)["$defs"][kind.__name__]
    return {
        "op": kind.op,
        "about": definition["description"],
        "fields": definition["properties"],
        "required": definition.get("required", []),
        "example": kind.example,
    }


_PAGES = {op: _describe(kind) for op, kind in COMMANDS.items()}


def describe(about: str | None) -> list[dict[str, Any]]:
    """The manual page of one command, or of all, as JSON schema fields with an example.

    :raises Refused: there is no such command.
    """
    if about is None:
        return list(_PAGES.values())
    if about not in _PAGES:
        raise Refused(Code.NOT_FOUND, f"there is no op {about!r}", '{"op":"help"}')
    return [_PAGES[about]]
