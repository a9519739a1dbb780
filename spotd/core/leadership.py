"""Decides who leads, as far as one daemon can know it. Must not talk to Redis.

The leader key lives ``ttl_s`` from the moment Redis set or renewed it, and that is never earlier
than the moment the request was sent. So a leader that counts from *sending*, by its own
monotonic clock, stops before the key can lapse, whatever happened to the answer.
"""

from __future__ import annotations

RENEWALS_PER_TTL = 4
MARGIN_SHARE = 0.1


class Lease:
    """One daemon's view of the leader key."""

    def __init__(self, ttl_s: float) -> None:
        self.ttl_s = ttl_s
        self.renew_every_s = ttl_s / RENEWALS_PER_TTL
        self._margin_s = ttl_s * MARGIN_SHARE
        self._until: float | None = None

    @property
    def until(self) -> float:
        """When leadership ends unless it is renewed; minus infinity for a standby."""
        return float("-inf") if self._until is None else self._until

    def holds(self, now: float) -> bool:
        """Whether we may connect and publish at ``now``."""
        return now < self.until

    def granted(self, sent_at: float) -> None:
        """Redis set or renewed our token; the request was sent at ``sent_at``."""
        self._until = max(self.until, sent_at + self.ttl_s - self._margin_s)

    def refused(self) -> None:
        """The key holds another token, or ours is gone."""
        self._until = None
