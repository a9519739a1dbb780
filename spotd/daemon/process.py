"""Runs one daemon as a process: logs, signals, garbage, exit code. Must not know its parts."""

from __future__ import annotations

import asyncio
import gc
import os
import threading

from spotd.alpaca import threads
from spotd.daemon.daemon import Daemon
from spotd.ops import hang, logs
from spotd.ops.stop_signals import stop_on_signals
from spotd.settings import Settings


def run_daemon(settings: Settings, *, hang_limit_s: float = hang.LIMIT_S) -> int:
    """Run one daemon in this process until it is asked to stop. Return the exit code.

    A daemon whose event loop hangs for ``hang_limit_s`` ends the process with 1.
    """
    logs.configure(settings.log_level, settings.log_format, secrets=settings.secrets())
    with asyncio.Runner() as runner:
        code = runner.run(_main(settings, hang_limit_s))
        if _threads_are_busy():
            # The interpreter would wait minutes for a name look-up that hangs. While it ends, it
            # ends its daemon threads, which aborts the process where one is within C++ (pandas).
            logs.drain()
            os._exit(code)
    return code


def _threads_are_busy() -> bool:
    """Return whether a thread runs that is not this one, and none of those that never end."""
    own = {threading.current_thread().name, logs.THREAD, hang.THREAD}
    return threads.are_busy() or any(t.name not in own for t in threading.enumerate())


async def _main(settings: Settings, hang_limit_s: float) -> int:
    daemon = Daemon(settings)
    # Imported modules are never garbage. A search through all of them would hold the loop for
    # about 50 ms, sooner or later in the middle of a busy market.
    gc.freeze()
    loop = asyncio.get_running_loop()
    stop_on_signals(loop, daemon.stop)
    async with hang.ended_when_hung(hang_limit_s):
        return await daemon.run()
