"""Decides how many updates go to Redis in one call, from how long the calls before it took.

Must not know what is in them. A call takes the way there and back, and then some time for each
update. A batch is as large as keeps the server at work for as long as the way takes: then a
distant or busy server costs at most half of what can be sent, and no update waits long for others.
"""

from __future__ import annotations

FEWEST = 50
MOST = 4_000
_FIRST = 500
_WORK_S = 0.001  # that a server may be held for, however near it is
_MOST_WORK_S = 0.1  # … and however far away: a call has a limit
_QUICK_S = 0.3  # a call that took no longer may be twice as large without being given up
_KEPT = 0.98  # weight of what was known, at each new call: about the last 50 count


class BatchSize:
    """``limit`` updates at most; tell every call to ``answered`` or ``failed``."""

    def __init__(self) -> None:
        self.limit = _FIRST
        # Sums over the calls, later ones weighing more: a straight line is laid through them.
        self._calls = self._updates = self._seconds = 0.0
        self._updates_squared = self._products = 0.0

    def failed(self) -> None:
        """A call was given up, perhaps because it was too large: what was learned is void."""
        self.limit = max(self.limit // 2, FEWEST)
        self._forget()

    def answered(self, updates: int, seconds: float) -> None:
        """A call with so many updates was answered after so many seconds."""
        self._calls = self._calls * _KEPT + 1.0
        self._updates = self._updates * _KEPT + updates
        self._seconds = self._seconds * _KEPT + seconds
        self._updates_squared = self._updates_squared * _KEPT + updates * updates
        self._products = self._products * _KEPT + updates * seconds
        mean_updates = self._updates / self._calls
        mean_seconds = self._seconds / self._calls
        variance = self._updates_squared / self._calls - mean_updates**2
        covariance = self._products / self._calls - mean_updates * mean_seconds
        larger = min(2 * self.limit, MOST)
        if variance >= 1.0 and covariance > 0.0:
            each_s = covariance / variance
            work_s = min(max(mean_seconds - each_s * mean_updates, _WORK_S), _MOST_WORK_S)
            # Doubled at most: the first calls tell little.
            self.limit = round(min(max(work_s / each_s, FEWEST), larger))
        elif updates >= self.limit and seconds < _QUICK_S:
            # All were of one size, or chance outweighs what the size does: what is way and what is
            # work cannot be told apart. A larger one will tell.
            self.limit = larger

    def _forget(self) -> None:
        self._calls = self._updates = self._seconds = 0.0
        self._updates_squared = self._products = 0.0
