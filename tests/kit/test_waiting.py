"""Tasks that are cancelled have ended."""

from __future__ import annotations

import asyncio

from tests.kit.waiting import cancelled


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    """It has ended when the wait is over."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while not swallowed:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)  # it waits
    await cancelled(task)
    assert task.cancelled()
    assert swallowed == 1
