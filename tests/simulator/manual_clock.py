"""A clock that moves only when someone sleeps on it."""

import asyncio


class TimeIsUpError(Exception):
    """The clock passed its end."""


class ManualClock:
    """Time that a sleep moves on at once. Each sleep may take longer than asked for."""

    def __init__(self, *, end_s: float = float("inf"), late_s: float = 0.0) -> None:
        self.now_s = 0.0
        self.end_s = end_s
        self.late_s = late_s

    def monotonic_s(self) -> float:
        """Return the seconds since the clock was made, on a base that is not 0."""
        return 1_000.0 + self.now_s

    def wall_ns(self) -> int:
        """Return a time of 2026, in nanoseconds since 1970."""
        return START_NS + round(self.now_s * 1e9)

    async def sleep(self, delay_s: float) -> None:
        """Move on. Raise `TimeIsUpError` past the end."""
        await asyncio.sleep(0)
        self.now_s += max(0.0, delay_s) + self.late_s
        if self.now_s > self.end_s:
            raise TimeIsUpError


START_NS = 1_768_885_920_000_000_000
