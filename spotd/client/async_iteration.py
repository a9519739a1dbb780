"""The asynchronous face of an iteration. Must not talk to anything."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from spotd.client.closing import ClosedByAsyncWith
from spotd.client.iterations import Iteration

T = TypeVar("T")

_closing: set[asyncio.Task[None]] = set()  # a task that nobody holds may be collected


class AsyncIteration(ClosedByAsyncWith, AsyncIterator[T], Generic[T]):
    """What ``updates`` and ``events`` of a ``SpotClient`` return: an asynchronous iterator.

    It begins with the first step. A step that is cancelled, or that has waited ``timeout`` seconds
    and raises TimeoutError, does not end it: the next step goes on. It ends with ``aclose``, with
    its ``async with``, with the client, with an error, and when it is collected.
    """

    def __init__(
        self, iteration: Iteration[T], timeout: float | None, check_open: Callable[[], None]
    ) -> None:
        self.iteration = iteration  # the synchronous face takes it over
        self._timeout = timeout
        self._check_open = check_open
        self._ready = asyncio.Event()
        self._begun = False
        iteration.wake = self._ready.set

    @property
    def skipped(self) -> int:
        """How many values were replaced by newer ones before they were taken."""
        return self.iteration.skipped

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        if not self._begun:
            self._check_open()
            self._begun = True
            loop = asyncio.get_running_loop()
            weakref.finalize(self, _close_later, loop, self.iteration).atexit = False
        if self.iteration.opened and (value := self.iteration.take()) is not None:
            return value
        if self._timeout is None:
            return await self._next()
        async with asyncio.timeout(self._timeout):
            return await self._next()

    async def aclose(self) -> None:
        """End it, and the leases with it. May be called twice."""
        await self.iteration.aclose()

    async def _next(self) -> T:
        iteration, ready = self.iteration, self._ready
        await iteration.open()
        while True:
            ready.clear()
            if (value := iteration.take()) is not None:
                return value
            if iteration.closed:
                raise StopAsyncIteration
            if (defect := iteration.defect) is not None:
                await iteration.aclose()
                raise defect
            wait_s = iteration.wait_s()
            if wait_s is None:
                await ready.wait()
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        await ready.wait()


def _close_later(loop: asyncio.AbstractEventLoop, iteration: Iteration[Any]) -> None:
    """Close a collected iteration, perhaps from another thread."""

    def close() -> None:
        if not iteration.closed:
            task = loop.create_task(iteration.aclose(), name="spotd-client-close")
            _closing.add(task)
            task.add_done_callback(_closing.discard)

    with suppress(RuntimeError):  # the loop is closed, so nothing of the iteration runs any more
        loop.call_soon_threadsafe(close)
