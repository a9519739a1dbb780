"""Ends the process when its event loop hangs, with the stacks of all threads on stderr.

A daemon whose loop hangs holds Alpaca's one session and serves nobody. systemd and Kubernetes end
it by themselves; Docker restarts only what ends. Must not judge why the loop hangs.

Only ticks of this thread count, not the clock: a process that was stopped and goes on (SIGSTOP, a
machine that slept) did not hang. Memory may be used up, so nothing new is needed to end.
"""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from collections.abc import Callable

THREAD = "hang detector"
LIMIT_S = 15.0  # as the watchdog of the systemd unit
_TICKS = 15
_STDERR = 2
_EXIT_CODE = 1  # a defect
_SAID = b'{"event": "the event loop hung: this is a defect", "level": "critical"}\n'


def end_when_hung(pulses: Callable[[], int], limit_s: float = LIMIT_S) -> threading.Event:
    """End this process when ``pulses`` does not change for ``limit_s``, until the event is set.

    ``pulses`` returns a number that the event loop changes more often than each ``limit_s / 15``.
    """
    over = threading.Event()

    def run() -> None:
        before, missed = pulses(), 0
        while not over.is_set():
            time.sleep(limit_s / _TICKS)
            try:
                now = pulses()
            except MemoryError:
                now = before
            missed = missed + 1 if now == before else 0
            before = now
            if missed > _TICKS:
                _end()

    threading.Thread(target=run, name=THREAD, daemon=True).start()
    return over


def _end() -> None:
    try:
        os.write(_STDERR, _SAID)
        faulthandler.dump_traceback(_STDERR, all_threads=True)
    finally:
        os._exit(_EXIT_CODE)
