"""Decides the trend of a price: one mark per step, scaled between the lowest and the highest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

STEP_S = 2.0
MOST_MARKS = 60


class Trend:
    """The last price in each of the last ``MOST_MARKS`` steps. A step without one repeats it."""

    __slots__ = ("_prices", "_step")

    def __init__(self) -> None:
        self._prices: deque[float] = deque(maxlen=MOST_MARKS)
        self._step = 0

    def take(self, price: float, now: float) -> None:
        """Take in a price."""
        if self._prices:
            self._advance(now)
            self._prices[-1] = price
        else:
            self._step = int(now // STEP_S)
            self._prices.append(price)

    def last(self, marks: int, now: float) -> Sequence[float]:
        """Return the prices of the last steps, at most this number, the newest last."""
        if self._prices:
            self._advance(now)
        return list(self._prices)[-marks:] if marks > 0 else ()

    def frozen(self) -> Trend:
        """Return a copy that later prices do not change."""
        twin = Trend()
        twin._prices, twin._step = self._prices.copy(), self._step
        return twin

    def _advance(self, now: float) -> None:
        step = int(now // STEP_S)
        if step > self._step:
            self._prices.extend([self._prices[-1]] * min(step - self._step, MOST_MARKS))
            self._step = step


def marks_of(prices: Sequence[float], levels: str) -> str:
    """Return one of ``levels`` (low to high) for each price. Equal prices get the middle one."""
    if not prices:
        return ""
    lowest, highest = min(prices), max(prices)
    # Half of it, since the difference of two finite prices may not be finite.
    half_range = highest / 2 - lowest / 2
    if half_range <= 0:
        return levels[(len(levels) - 1) // 2] * len(prices)
    most = len(levels) - 1
    # Divided first: of a tiny range, the quotient of most and range would not be finite.
    return "".join([levels[round((p / 2 - lowest / 2) / half_range * most)] for p in prices])
