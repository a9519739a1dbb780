"""The clock of the Redis server, by which leases lapse. Asked now and then, kept in between.

Talks to Redis. Must not know for what the time is needed, or when the server may be another one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any


class RedisClock:
    """The server's clock in unix seconds. Our own wall clock plays no part.

    ``call`` sends a command and returns the reply.
    """

    def __init__(self, call: Callable[[str], Awaitable[Any]]) -> None:
        self._call = call
        self._ahead_s: float | None = None  # of the loop's clock; None: not known yet

    async def ask(self) -> float:
        """Return what the server says now. Raises what ``call`` raises."""
        seconds, microseconds = await self._call("TIME")
        unix_s = float(seconds) + float(microseconds) / 1_000_000
        self._ahead_s = unix_s - asyncio.get_running_loop().time()
        return unix_s

    async def unix_s(self) -> float:
        """Return the time by the last answer; ask, if there was none."""
        if self._ahead_s is None:
            return await self.ask()
        return asyncio.get_running_loop().time() + self._ahead_s
