"""Ends the process when its event loop hangs, with the stacks of all threads on stderr.

A daemon whose loop hangs holds Alpaca's one session and serves nobody. systemd and Kubernetes end
it by themselves; Docker restarts only what ends. Must not judge why the loop hangs.

Only ticks of this thread count, not the clock: a process that was stopped and goes on (SIGSTOP, a
machine that slept) did not hang. Memory may be used up, and nobody may read stderr: neither keeps
the process from ending.
"""

from __future__ import annotations

import asyncio
import faulthandler
import os
import select
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

THREAD = "hang detector"
LIMIT_S = 15.0  # as the watchdog of the systemd unit
_TICKS = 5  # few: each one wakes the process twice
_SMALL = 200  # Python keeps integers up to 256, so counting needs no memory
_STDERR = 2
_EXIT_CODE = 1  # a defect
_SAID = b'{"event": "the event loop hung: this is a defect", "level": "critical"}\n'


@asynccontextmanager
async def ended_when_hung(limit_s: float = LIMIT_S) -> AsyncIterator[None]:
    """End this process with 1 when its event loop does not turn for ``limit_s``.

    The end comes up to two ticks later, after 1.4 times that at the latest. A loop each turn of
    which takes more than half of that may be ended, too, since it serves nobody either. A loop that
    holds Python's lock while it hangs, within a library in C, is not found.
    """
    turns = _Turns()
    detector = threading.Thread(
        target=_detect, args=(turns, limit_s / _TICKS), name=THREAD, daemon=True
    )
    detector.start()
    counting = asyncio.create_task(turns.count(limit_s / _TICKS), name=THREAD)
    try:
        yield
    finally:
        turns.over = True
        counting.cancel()
        await asyncio.wait([counting])


class _Turns:
    """How often the event loop turned. The loop writes it, and the detector reads it."""

    __slots__ = ("number", "over")

    def __init__(self) -> None:
        self.number = 0
        self.over = False

    async def count(self, every_s: float) -> None:
        while True:
            await asyncio.sleep(every_s)
            self.number = (self.number + 1) % _SMALL


def _detect(turns: _Turns, every_s: float) -> None:
    before, missed = 0, 0
    while not turns.over:
        time.sleep(every_s)
        now = turns.number
        missed = missed + 1 if now == before else 0
        before = now
        if missed > _TICKS:
            _end()


def _end() -> None:
    try:
        # A write to a full pipe that nobody reads would hang this thread, too.
        if not select.select([], [_STDERR], [], 0)[1]:
            return
        os.write(_STDERR, _SAID)
        faulthandler.dump_traceback(_STDERR, all_threads=True)
    finally:
        os._exit(_EXIT_CODE)
