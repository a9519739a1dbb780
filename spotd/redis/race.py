"""Tries one after the other, without waiting for those that hang. Must not know what is tried."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")

NEXT_AFTER_S = 0.25  # a try that took this long is joined by the next one
TRY_LIMIT_S = 3.0
_CANCEL_AGAIN_S = 0.05


async def first_answer(
    tries: Iterable[Callable[[], Awaitable[T]]],
    *,
    next_after_s: float = NEXT_AFTER_S,
    try_limit_s: float = TRY_LIMIT_S,
) -> T:
    """Return the first answer; the other tries are cancelled then.

    Each try begins ``next_after_s`` after the one before, or when that one failed, and has
    ``try_limit_s``. Raises what the first try raised that is no timeout where all fail, and
    TimeoutError where all hang. There must be at least one try.
    """
    waiting = list(tries)
    running: set[asyncio.Task[T]] = set()
    failures: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_limited(waiting.pop(0), try_limit_s)))
            done, running = await asyncio.wait(
                running,
                timeout=next_after_s if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            for task in done:
                failure = task.exception()
                if failure is None:
                    return task.result()
                failures.append(failure)
    finally:
        await _end(running)
    raise next((each for each in failures if not isinstance(each, TimeoutError)), failures[0])


async def _limited(attempt: Callable[[], Awaitable[T]], limit_s: float) -> T:
    async with asyncio.timeout(limit_s):
        return await attempt()


async def _end(tasks: set[asyncio.Task[T]]) -> None:
    running = tasks
    while running:
        # More than once: in Python 3.11 ``asyncio.wait_for``, by which redis-py sends, may swallow
        # a cancellation.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen
