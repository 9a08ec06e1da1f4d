"""The end of entries that are too old.

The oldest go first, a few at a time, so that a message that comes meanwhile waits for a short step
and not for all of a day's. What is looked at is what goes, and the first that stays.
"""

from __future__ import annotations

from typing import Final

import apsw
import msgspec

from chatsvc.store.rules import Rules
from chatsvc.store.sqlite import places

__all__ = ["STATEMENTS", "expire_oldest"]

AT_ONCE: Final = 500
BYTES: Final = 4 * 1024 * 1024
"""How much goes in one step: of entries, and of what is in them."""

STATEMENTS: Final = {
    "oldest": """
        SELECT json_group_array(json_array(seq, ts, size) ORDER BY seq)
        FROM (SELECT seq, ts, octet_length(body) AS size FROM entries ORDER BY seq LIMIT ?)""",
    "unseen": """
        SELECT json_group_array(json_array(sender, receiver, expired)) FROM (
            SELECT e.sender, e.receiver, count(*) AS expired
            FROM entries AS e NOT INDEXED CROSS JOIN unseen AS u
            ON u.receiver = e.receiver AND u.sender = e.sender
            WHERE e.seq <= ? GROUP BY e.sender, e.receiver)""",
    "expire": "DELETE FROM entries WHERE seq <= ?",
}
"""By name, so that a test can ask how SQLite would go about each."""

_oldest = msgspec.json.Decoder(list[tuple[int, int, int]]).decode
_waiting = msgspec.json.Decoder(list[tuple[str, str, int]]).decode


def expire_oldest(connection: apsw.Connection, rules: Rules, before: int) -> bool:
    """One step, within a transaction: what is older than ``before``, in milliseconds since 1970.

    What waited for names never seen waits no more. Returns whether there is more to do.
    """
    floor, room = rules.floor, BYTES
    oldest = _oldest(connection.execute(STATEMENTS["oldest"], (AT_ONCE,)).get)
    for seq, ts, size in oldest:
        if ts >= before or room < 0:
            break
        floor = seq
        room -= size
    if floor == rules.floor:
        return False
    for sender, receiver, count in _waiting(connection.execute(STATEMENTS["unseen"], (floor,)).get):
        for _ in range(count):
            rules.forget_waiting(sender, receiver)
    connection.execute(places.STATEMENTS["remove"], (rules.floor, floor))
    connection.execute(STATEMENTS["expire"], (floor,))
    rules.floor = floor
    return room < 0 or floor == oldest[-1][0]
