"""The end of a task. Must not know what the task does."""

from __future__ import annotations

import asyncio
from typing import Any

_CANCEL_AGAIN_S = 1.0


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended. What they raise is dropped."""
    running = {task for task in tasks if not task.done()}
    while running:
        # More than once, since in Python 3.11 redis-py's wait_for may swallow a cancellation.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen
