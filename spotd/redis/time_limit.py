"""A time limit that ends no call whose answer has come. Must not know what is called."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self

from spotd.core.call_limit import more_s


class TimeLimit:
    """End what is done inside at a time, with TimeoutError. ``async with`` enters it once.

    ``asyncio.timeout`` cancels in the turn of the event loop in which its time is found to be over.
    After a process stood still, that is the turn in which an answer that came meanwhile is read. As
    a consequence, each call under way would fail, although it was answered.
    """

    def __init__(self, at: float) -> None:
        """``at``: when it ends, by the loop's clock."""
        self._scope = asyncio.timeout(None)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self.set(at)

    def set(self, at: float | None) -> None:
        """Let it end at another time; None: not at all. Nothing follows once it has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._over, at)

    def _over(self, at: float) -> None:
        now = self._loop.time()
        more = more_s(now - at)
        self.set(now + more if more else None)
        if not more:
            with suppress(RuntimeError):  # it has ended
                self._scope.reschedule(now)  # in the next turn

    async def __aenter__(self) -> Self:
        """Begin."""
        await self._scope.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Raise TimeoutError if the time was over, and nothing else ended what was done inside."""
        self.set(None)
        await self._scope.__aexit__(kind, error, trace)
