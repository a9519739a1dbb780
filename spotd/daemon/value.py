"""One value for each fact: its owner sets it, and whoever depends on it is woken when it changes.

How to use one: a loop has one ``WakeUp`` and names it to each value that it depends on. In each
round it reads the values whole, compares them with what it did last, does what follows, and waits.
A wake-up says only that something changed, not what. Changes between two rounds are one wake-up,
so a value may change and change back unseen. An event that must not be missed is therefore counted
in the value itself (``Leadership.term``). Values are compared without the times that they hold, so
a renewal of the leader key, every second or so, wakes nobody.

Must not decide anything, and must not copy values.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

BEAT_S = 0.5


def beat_before(at: float) -> float:
    """Return the last beat, a multiple of ``BEAT_S``, until ``at``, if it is still to come.

    Else return ``at``. Both are monotonic seconds. For a wait that may end early: what several
    loops do now and then, they do in one wake of the process, since a wake costs more than that.
    """
    beat = at // BEAT_S * BEAT_S
    return beat if beat > time.monotonic() else at


class WakeUp:
    """The event that one loop waits for. One task at a time may wait."""

    def __init__(self) -> None:
        self.is_set = False  # whether the next ``wait`` returns at once; to be read only
        self._waiting: asyncio.Future[None] | None = None

    def set(self) -> None:
        """End the wait, or the next one."""
        self.is_set = True
        _end(self._waiting)

    async def wait(self, until: float | None = None) -> bool:
        """Wait until set, or until the loop's clock, in monotonic seconds, says ``until``.

        Return whether it was set. Other tasks run meanwhile, also where it was set already. As a
        consequence, a loop that is woken in each of its rounds holds up no other.
        """
        if self.is_set:
            await asyncio.sleep(0)
        else:
            # asyncio.timeout_at ends a wait by cancelling its task, which costs several times what
            # a timer does that ends the wait itself.
            loop = asyncio.get_running_loop()
            waiting: asyncio.Future[None] = loop.create_future()
            self._waiting = waiting
            timer = None if until is None else loop.call_at(until, _end, waiting)
            try:
                await waiting
            finally:
                self._waiting = None
                if timer is not None:
                    timer.cancel()
        # The event is cleared before the caller reads, so a later change sets it again.
        was_set, self.is_set = self.is_set, False
        return was_set


def _end(waiting: asyncio.Future[None] | None) -> None:
    if waiting is not None and not waiting.done():
        waiting.set_result(None)


class Turn:
    """A function that is called in the next turn of the loop after ``set``, once however often.

    For what must not cost a task and its wake-up each time. Nothing happens before ``calls``.
    """

    def __init__(self) -> None:
        self._function: Callable[[], None] | None = None
        self._soon: asyncio.Handle | None = None

    def calls(self, function: Callable[[], None]) -> None:
        """Say which function is called."""
        self._function = function

    def set(self) -> None:
        """Have it called in the next turn."""
        if self._soon is None and self._function is not None:
            self._soon = asyncio.get_running_loop().call_soon(self.now)

    def now(self) -> None:
        """Call it in this turn."""
        self._soon = None
        if self._function is not None:
            self._function()


class Value(Generic[T]):
    """One immutable value. Only its owner may call ``set``."""

    def __init__(self, value: T) -> None:
        self._value = value
        self._wake_ups: list[WakeUp | Turn] = []

    def get(self) -> T:
        """Return the present value."""
        return self._value

    def set(self, value: T) -> bool:
        """Put ``value`` in place, and wake all dependants if it is unequal to the one before.

        Return whether it is. An equal value takes the place too: it may hold other times.
        """
        changed = value is not self._value and value != self._value
        self._value = value
        if changed:
            for wake_up in self._wake_ups:
                wake_up.set()
        return changed

    def wakes(self, *wake_ups: WakeUp | Turn) -> None:
        """Set each of these at every change from here on."""
        self._wake_ups += wake_ups
