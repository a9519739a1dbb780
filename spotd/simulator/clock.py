"""The clock of the market loop and of a replay. Tests pass a clock that they move by hand."""

import asyncio
import time
from typing import Protocol


class Clock(Protocol):
    """Two readings of the time, and a way to let it pass."""

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, for the times in messages."""

    async def sleep(self, delay_s: float) -> None:
        """Sleep for `delay_s` seconds, or until the next turn of the loop if that is below 0."""


class _SystemClock:
    def monotonic_s(self) -> float:
        return time.monotonic()

    def wall_ns(self) -> int:
        return time.time_ns()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


SYSTEM_CLOCK: Clock = _SystemClock()
