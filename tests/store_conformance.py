"""The suite that every store runs: :class:`StoreConformance`.

A store passes by a test case of its own, which says how to make one::

    class MyStoreKeepsTheRules(StoreConformance, SynchronousTestCase):
        def make_store(self, clock, *, retention, quota):
            return MyStore(clock, retention=retention, quota=quota)

A store whose answers come later overrides ``result``, which waits for a Deferred, and ``let_pass``,
which waits until expiry has done its work. The tests are in :mod:`tests.store_suite`, by noun. They
use the interface only, and rely neither on answers at once nor on a dense ``seq``.
"""

from __future__ import annotations

from tests.store_suite import (
    acquaintance,
    content,
    feed,
    groups,
    log,
    marks,
    model,
    positions,
    quota,
    reading,
)
from tests.store_suite.driver import StoreCase

__all__ = ["StoreConformance"]


class StoreConformance(
    log.TheLog,
    log.OneOrder,
    log.Keys,
    content.Content,
    groups.JoiningAGroup,
    groups.LeavingAGroup,
    groups.ACrowd,
    groups.ListingMembers,
    acquaintance.Acquaintance,
    feed.TheFeed,
    feed.SubscribingToTopics,
    feed.Paging,
    model.TheFeedByModel,
    reading.History,
    reading.StoredMatches,
    reading.RetainedMessages,
    marks.ReadMarks,
    positions.Positions,
    positions.Retention,
    quota.Quota,
    quota.NamesNeverSeen,
):
    """All parts in one; a subclass says how to make a store."""

    def test_no_test_hides_another(self) -> None:
        """Each name stands in one part only, so that all of them run."""
        parts = [part for part in StoreConformance.__bases__ if issubclass(part, StoreCase)]
        names = [name for part in parts for name in vars(part) if name.startswith("test_")]
        self.assertEqual(sorted(names), sorted(set(names)))
        self.assertEqual(len(parts), 21)
