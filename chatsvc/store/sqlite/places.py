"""Which entries stand in which run: the index of the log, which follows it at a distance.

An entry stands in up to three runs (:mod:`chatsvc.store.spans`), each in another part of the index.
Were they written with the entry, every batch would change as many pages as it has conversations,
and each changed page goes to the disk: measured, 33 of 42 microseconds a message. So the newest
entries have no places yet. When :data:`MANY` have come, or much, all of them are given theirs at
once, sorted, in the transaction of the batch that made it so many; a page then takes what belongs
on it from hundreds of messages.

``log.placed`` is the last entry that has its places. Whoever looks for a run finds what is up to
there in the index, and reads all that is above: a few thousand entries at most.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MANY", "MUCH", "RUNS", "STATEMENTS"]

MANY: Final = 2000
"""Entries without places that are given theirs: some 6 ms of work."""
MUCH: Final = 1024 * 1024
"""Bytes of such entries."""

RUNS: Final = """
    SELECT talk AS run, seq FROM entries WHERE seq > ?1 AND seq <= ?2
    UNION ALL SELECT 's/' || sender, seq FROM entries
    WHERE seq > ?1 AND seq <= ?2 AND receiver IS NOT NULL
    UNION ALL SELECT 'r/' || receiver, seq FROM entries
    WHERE seq > ?1 AND seq <= ?2 AND receiver <> sender"""
"""The places of the entries with ?1 < seq <= ?2; what :func:`~chatsvc.store.spans.runs_of` says."""

STATEMENTS: Final = {
    "place": f"INSERT INTO places SELECT run, seq FROM ({RUNS}) ORDER BY run, seq",
    "remove": f"DELETE FROM places WHERE (run, seq) IN (SELECT run, seq FROM ({RUNS}))",
    "waiting": """
        SELECT count(*), coalesce(sum(octet_length(body)), 0) FROM entries
        WHERE seq > (SELECT placed FROM log)""",
}
"""By name, so that a test can ask how SQLite would go about each."""
