"""How tasks run together, and end. Must not know what they do."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

_CANCEL_AGAIN_S = 1.0


async def stop(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait until they have ended. What they raise is dropped."""
    running = {task for task in tasks if not task.done()}
    while running:
        # More than once, because a cancellation may be swallowed; see below.
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # marks it as seen


async def until_first_ends(bodies: Mapping[str, Coroutine[Any, Any, object]]) -> None:
    """Run all, each as a task of its name, until one ends; stop the others.

    Raises the error of the one that ended.
    """
    tasks = [asyncio.create_task(body, name=name) for name, body in bodies.items()]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await stop(*tasks)


def raise_if_cancelled() -> None:
    """Raise CancelledError in a task that was cancelled, and did not notice.

    In Python 3.11 ``asyncio.wait_for`` swallows a cancellation in the turn in which its body ends.
    redis-py sends by it. Connections of ours raise it themselves, those of a client that a program
    brings do not. A loop of ours that calls redis-py therefore calls this in each round.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
