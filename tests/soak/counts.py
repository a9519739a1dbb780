"""Decides whether counters tell what happened between two quiet moments. Talks to nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """What a leader counted at a quiet moment, and what was counted outside of it.

    ``told``: who counted. What another process, session or connection counted is not comparable.
    """

    told: tuple[str, int, int]
    """The daemon's instance, its session, and the number of the checker's own connection."""
    quotes: int
    trades: int
    published: int
    quotes_sent: int
    trades_sent: int
    heard: int


def wrong_counts(before: Counts, after: Counts) -> Iterator[tuple[str, str, str]]:
    """Yield what was counted wrongly, as (counter, said, true)."""
    if before.told != after.told:
        return
    for counter, said, true in (
        ("spotd_quotes_received_total", after.quotes - before.quotes,
         after.quotes_sent - before.quotes_sent),
        ("spotd_trades_received_total", after.trades - before.trades,
         after.trades_sent - before.trades_sent),
        ("spotd_updates_published_total", after.published - before.published,
         after.heard - before.heard),
    ):  # fmt: skip
        if said != true:
            yield counter, str(said), str(true)
