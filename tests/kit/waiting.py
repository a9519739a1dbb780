"""Waiting for a condition. A limit here guards against hanging; it never states how fast."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

GUARD_S = 60.0  # at least ten times what anything takes that tests wait for
_CHECK_EVERY_S = 0.005
_CANCEL_EVERY_S = 0.5


async def until(
    condition: Callable[[], Any],
    what: str,
    *,
    guard_s: float = GUARD_S,
    logs: Callable[[], str] = str,
) -> Any:
    """Wait until ``condition`` returns, or resolves to, something true, and return that.

    Raise AssertionError that names ``what`` and ends with ``logs()`` after ``guard_s``.
    """
    deadline = time.monotonic() + guard_s
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {guard_s:g} s for {what}\n{logs()}")
        await asyncio.sleep(_CHECK_EVERY_S)


async def cancelled(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks until they have ended.

    In Python 3.11 ``asyncio.wait_for``, by which redis-py sends, may swallow a cancellation.
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_EVERY_S)


def until_sync(condition: Callable[[], object], what: str, *, guard_s: float = GUARD_S) -> None:
    """Wait, blocking this thread, until ``condition`` returns something true."""
    deadline = time.monotonic() + guard_s
    while not condition():
        if time.monotonic() >= deadline:
            raise AssertionError(f"waited {guard_s:g} s for {what}")
        time.sleep(_CHECK_EVERY_S)
