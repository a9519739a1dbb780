"""Decides how long a call to Redis may take before it is given up.

Short, while Redis is near: where a network swallows packets, a call is given up soon, and the next
one, which may get through, carries newer values. Longer, where each round trip takes long. Must
not know what is called.
"""

from __future__ import annotations

_TIMES = 3  # a call may take this many times as long as the slowest of the latest answers
_FORGET = 0.9  # what is left of the slowest answer with each other answer
_MOST_S = 3.0
_READ_S = 0.1  # an answer that has come is read in this time


class CallLimit:
    """The limit of the next call, at least ``least_s``, at most 3 s unless ``least_s`` is more."""

    def __init__(self, least_s: float) -> None:
        self._least_s = least_s
        self._most_s = max(least_s, _MOST_S)
        self._slowest_s = 0.0

    @property
    def limit_s(self) -> float:
        """Return how long the next call may take."""
        return min(self._most_s, max(self._least_s, _TIMES * self._slowest_s))

    def answered(self, took_s: float) -> None:
        """Take in how long an answer took, or a connection."""
        self._slowest_s = max(took_s, _FORGET * self._slowest_s)


def more_s(late_s: float) -> float:
    """Return how much longer a call may take whose limit was over ``late_s`` seconds ago.

    If that is noticed late, this process stood still, and the answer may have come meanwhile.
    """
    return _READ_S if late_s > _READ_S else 0.0
