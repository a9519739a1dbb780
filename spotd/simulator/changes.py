"""Waiting for conditions of the simulator, without polling.

Each simulator has one `Changes`. It does not know what changed: each waiter checks its own
condition.
"""

import asyncio
from collections.abc import Callable


class Changes:
    """Waiters for conditions. `wake_up` makes each of them check its condition again."""

    def __init__(self) -> None:
        self._waiters: set[asyncio.Future[None]] = set()

    def wake_up(self) -> None:
        """Wake up every waiter: something was received or sent, or a knob was turned."""
        if self._waiters:
            waiters, self._waiters = self._waiters, set()
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def until(self, condition: Callable[[], object]) -> None:
        """Return as soon as `condition()` is true. It is checked now and after each wake-up."""
        while not condition():
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            finally:
                self._waiters.discard(waiter)
