"""Decides when clients are served. ``now`` is monotonic seconds.

A tick serves every client that something waits for, once. It is cut into slices, each with its
share of the clients, so that thousands of writes are not one burst in which nothing is read. A tick
lasts at least ``SHORTEST_S``, more where serving costs more, and beyond ``LONGEST_S`` only
where the clients could not be served otherwise.
"""

from __future__ import annotations

SLICES = 8
SHORTEST_S = 0.020
LONGEST_S = 0.050
# The part of the time that serving may take: first until a tick has its nominal length, then
# beyond. The rest belongs to reading from Redis and from clients.
_SHARE = 0.6
_SHARE_AT_MOST = 0.8
_SMOOTHING = 0.1  # weight of the newest slice in the mean cost


class Tick:
    """When the next slice is due, and which it is."""

    def __init__(self) -> None:
        self._slice = 0
        self._due_at = float("-inf")
        self._slice_cost_s = 0.0

    @property
    def length_s(self) -> float:
        """How long a tick lasts at the present cost."""
        cost_s = self._slice_cost_s * SLICES
        if cost_s > LONGEST_S * _SHARE_AT_MOST:
            return cost_s / _SHARE_AT_MOST
        return min(max(cost_s / _SHARE, SHORTEST_S), LONGEST_S)

    def next_at(self, now: float) -> float:
        """Return when the next slice is due: at once after a pause."""
        return max(self._due_at, now)

    def begin(self, now: float) -> int:
        """Begin the next slice at ``now``. Return its number."""
        served = self._slice
        self._slice = (served + 1) % SLICES
        # From the time that was due, so that a late timer does not make every tick longer; but
        # what was missed in a pause is not made up for.
        interval_s = self.length_s / SLICES
        paused = now - self._due_at > interval_s
        self._due_at = (now if paused else self._due_at) + interval_s
        return served

    def served(self, cost_s: float) -> None:
        """Take in what serving a slice has cost, in seconds."""
        self._slice_cost_s += _SMOOTHING * (cost_s - self._slice_cost_s)
