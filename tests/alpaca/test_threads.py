"""Blocking calls run in threads for which nobody waits."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading

import pytest

from spotd.alpaca import threads
from spotd.alpaca.threads import in_daemon_thread
from tests.kit.waiting import GUARD_S, until


async def test_what_the_call_returns_or_raises_is_handed_on() -> None:
    """The call runs in another thread, which is busy meanwhile."""
    thread, busy = await in_daemon_thread(lambda: (threading.get_ident(), threads.are_busy()))
    assert thread != threading.get_ident()
    assert busy

    def fails() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError, match="gone"):
        await in_daemon_thread(fails)


@pytest.mark.parametrize("fails", [False, True])
async def test_a_call_that_nobody_awaits_any_more_is_forgotten(fails: bool) -> None:
    """Its result, or its error, comes too late, and raises nothing."""
    begun, go_on = threading.Event(), threading.Event()

    def call() -> None:
        begun.set()
        go_on.wait(GUARD_S)
        if fails:
            raise LookupError("gone")

    waiting = asyncio.create_task(in_daemon_thread(call))
    await until(begun.is_set, "the call")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert threads.are_busy()
    go_on.set()
    await until(lambda: not threads.are_busy(), "its end")


_DIES = """
import asyncio, sys, threading
from spotd.alpaca.threads import in_daemon_thread

def gets_no_memory(*_):
    raise MemoryError

sys.unraisablehook = lambda *_: None
threading.Thread._bootstrap = gets_no_memory

async def main():
    try:
        async with asyncio.timeout(0.2):
            await in_daemon_thread(int)
    except TimeoutError:
        pass
    print("the loop turns")

asyncio.run(main())
"""


def test_a_thread_that_gets_no_memory_does_not_hang_the_loop() -> None:
    """Such a thread never says that it runs, so nobody waits for that."""
    done = subprocess.run(
        [sys.executable, "-c", _DIES], capture_output=True, text=True, timeout=GUARD_S, check=True
    )
    assert done.stdout == "the loop turns\n"
