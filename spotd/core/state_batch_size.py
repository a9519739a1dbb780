"""Decides how many states one call writes to Redis. Must not know which.

A call holds the server while the server works on it, and prices wait for it. So a call is small,
and others get their turn after it. If the answer takes longer than the work of a small call can,
the call was mostly on its way. Then its size matters little to others, and few large calls write a
whole market far sooner.
"""

from __future__ import annotations

SMALL = 100
_DISTANT_S = 0.03  # a small call that takes longer was mostly on its way


class StateBatchSize:
    """The number of states in the next call; a large call has ``large`` at most."""

    def __init__(self, large: int) -> None:
        self._large = large
        self._distant = False

    def limit(self, *, stopping: bool) -> int:
        """Return how many states to write at most.

        While the daemon stops, no symbol is live any more whose prices could be late.
        """
        return self._large if stopping or self._distant else SMALL

    def answered(self, seconds: float) -> None:
        """Take in that a call was answered after ``seconds``."""
        self._distant = seconds > _DISTANT_S
