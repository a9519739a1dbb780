"""Waking whoever waits for a condition, without polling.

One bell per simulator: it rings when something was received, sent or turned. It knows nothing about
what it is rung for; whoever waits looks again by himself.
"""

import asyncio
from collections.abc import Callable


class Bell:
    """Something to wait for: `ring` makes every waiter look at its condition again."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def ring(self) -> None:
        """Wake every waiter."""
        if self._waiters:
            waiters, self._waiters = self._waiters, set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return as soon as `condition()` is true; looked at now and after each ring."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
