"""Decides how many states one call writes to Redis. Must not know which states.

The server serves nobody else while it works on a call, so prices wait for it. So a call is small,
and other calls get their turn after it. If the answer takes longer than the work of a small call,
most of the time was the way. Then the size hardly delays other calls, and few large calls write a
whole market far sooner.
"""

from __future__ import annotations

SMALL = 100
_DISTANT_S = 0.03  # a small call that takes longer was mostly on its way


class StateBatchSize:
    """How many states the next call may write. A large call writes at most ``large``."""

    def __init__(self, large: int) -> None:
        self._large = large
        self._distant = False

    def limit(self, *, stopping: bool) -> int:
        """Return how many states the next call may write.

        A large call is right while the daemon stops: no price is published that it could delay.
        """
        return self._large if stopping or self._distant else SMALL

    def answered(self, seconds: float) -> None:
        """Take in that a call was answered after ``seconds``."""
        self._distant = seconds > _DISTANT_S
