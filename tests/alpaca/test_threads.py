"""Blocking calls run in threads for which nobody waits."""

from __future__ import annotations

import asyncio
import threading

import pytest

from spotd.alpaca.threads import in_daemon_thread
from tests.kit.waiting import GUARD_S


async def test_what_the_call_returns_or_raises_is_handed_on() -> None:
    """The call runs in a daemon thread of the given name."""
    name, daemon = await in_daemon_thread(
        lambda: (threading.current_thread().name, threading.current_thread().daemon), "a call"
    )
    assert (name, daemon) == ("a call", True)

    def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await in_daemon_thread(fails, "a call")


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_that_nobody_awaits_any_more_is_forgotten(fails: bool) -> None:
    """Its result, or its error, comes too late, and raises nothing."""
    go_on = threading.Event()

    def call() -> None:
        go_on.wait(GUARD_S)
        if fails:
            raise LookupError("gone")

    waiting = asyncio.create_task(in_daemon_thread(call, "late"))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    [late] = [thread for thread in threading.enumerate() if thread.name == "late"]
    go_on.set()
    await asyncio.to_thread(late.join, GUARD_S)
    assert not late.is_alive()
