"""What the screen knows of each symbol: price, movement, rate, trend and state.

Decides; must not format. ``now`` is monotonic seconds, ``unix_s`` the wall clock.
"""

from __future__ import annotations

from collections import deque
from copy import copy

from spotd.cli.screen.trend import Trend
from spotd.models import SpotPriceUpdate, SymbolState

RATE_WINDOW_S = 5.0
_MAX_ARRIVALS = 256  # the rate of a row with more updates is measured over a shorter time


class Row:
    """One symbol. ``mid_moved`` and ``last_moved`` are 1 after a rise, -1 after a fall, else 0."""

    __slots__ = (
        "_arrivals",
        "_began_at",
        "last_moved",
        "mid_moved",
        "priced_at",
        "state",
        "symbol",
        "trend",
        "update",
    )

    def __init__(self, symbol: str, now: float) -> None:
        self.symbol = symbol
        self.update: SpotPriceUpdate | None = None
        self.state: SymbolState | None = None
        self.mid_moved = 0
        self.last_moved = 0
        self.priced_at = 0.0  # exchange time of the update, unix seconds
        self.trend = Trend()
        self._began_at = now
        self._arrivals: deque[float] = deque(maxlen=_MAX_ARRIVALS)

    def take(self, update: SpotPriceUpdate, now: float) -> None:
        """Take in a price."""
        before = self.update
        if before is not None:
            self.mid_moved = _moved(before.mid_price, update.mid_price, self.mid_moved)
            self.last_moved = _moved(before.last_price, update.last_price, self.last_moved)
        self.update = update
        self.priced_at = update.timestamp.timestamp()
        self.trend.take(update.mid_price, now)
        self._arrivals.append(now)

    def rate(self, now: float) -> float:
        """Return the updates per second of the last seconds."""
        arrivals = self._arrivals
        while arrivals and arrivals[0] <= now - RATE_WINDOW_S:
            arrivals.popleft()
        if len(arrivals) == _MAX_ARRIVALS:
            return _MAX_ARRIVALS / max(now - arrivals[0], 1e-3)
        # The time is at least 1 s: otherwise a new row would show hundreds after its first update.
        return len(arrivals) / min(RATE_WINDOW_S, max(1.0, now - self._began_at))

    def age_s(self, unix_s: float) -> float | None:
        """Return the age of the price by its exchange time. None without a price.

        Clocks that disagree make no negative age.
        """
        return None if self.update is None else max(0.0, unix_s - self.priced_at)

    def frozen(self) -> Row:
        """Return a copy that later updates do not change."""
        twin = copy(self)
        twin._arrivals = self._arrivals.copy()
        twin.trend = self.trend.frozen()
        return twin


def shown_state(row: Row, *, suspect: bool) -> str | None:
    """Return the state of a row. Where all prices are ``suspect``, live ones are stale."""
    if row.state is None:
        return None
    return "stale" if suspect and row.state.state == "live" else row.state.state


def _moved(before: float | None, now: float | None, moved: int) -> int:
    if before is None or now is None or before == now:
        return moved
    return 1 if now > before else -1
