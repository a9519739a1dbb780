"""A time limit that ends no call whose answer has come. Must not know what is called."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from spotd.core.call_limit import more_s


class TimeLimit:
    """The time at which a scope of ``asyncio.timeout(None)`` ends. After its work: ``set(None)``.

    ``asyncio.timeout`` cancels in the turn of the event loop in which its time is found to be over.
    After a process stood still, that is the turn in which an answer that came meanwhile is read. As
    a consequence, each call under way would fail, although it was answered.
    """

    def __init__(self, scope: asyncio.Timeout) -> None:
        self._scope = scope
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, at: float | None) -> None:
        """Let the scope end at another time, by the loop's clock; None: not at all."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if at is None else self._loop.call_at(at, self._over, at)

    def _over(self, at: float) -> None:
        now = self._loop.time()
        if more := more_s(now - at):
            self.set(now + more)
        else:
            with suppress(RuntimeError):  # it is ending already
                self._scope.reschedule(now)  # in the next turn
