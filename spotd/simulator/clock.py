"""Alpaca's clock. Tests of the market loop and of replays pass a clock that they move by hand."""

import asyncio
import time
from typing import Protocol

from spotd.simulator.knobs import Faults


class Clock(Protocol):
    """Two readings of the time, and a way to let it pass."""

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, for the times in messages."""

    async def sleep(self, delay_s: float) -> None:
        """Sleep for `delay_s` seconds, or until the next turn of the loop if that is below 0."""


class AlpacaClock:
    """This machine's clock, but that the time in messages may be behind by its fault."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def monotonic_s(self) -> float:
        """Return seconds that never go backwards."""
        return time.monotonic()

    def wall_ns(self) -> int:
        """Return nanoseconds since 1970, for the times in messages."""
        return time.time_ns() - int(self._faults.clock_behind_s * 1e9)

    async def sleep(self, delay_s: float) -> None:
        """Sleep for `delay_s` seconds, or until the next turn of the loop if that is below 0."""
        await asyncio.sleep(delay_s)
