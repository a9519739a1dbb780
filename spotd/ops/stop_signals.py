"""The signals that ask a process to stop: SIGTERM, SIGINT and SIGHUP. Must not know what stops."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable

SAME_WISH_S = 0.2
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def stop_on_signals(
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[], object],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Call ``stop`` on each of them. A SIGHUP that is ignored, as under nohup, stays so.

    What comes less than ``SAME_WISH_S`` after a signal that stopped is the same wish:
    ``timeout`` signals its child and then its group, and with Ctrl-C a terminal signals a process
    to which a wrapper passes the signal on, too. ``clock`` returns monotonic seconds.
    """
    called_at = float("-inf")

    def handle() -> None:
        nonlocal called_at
        now = clock()
        if now - called_at >= SAME_WISH_S:
            called_at = now
            stop()

    for number in _SIGNALS:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            loop.add_signal_handler(number, handle)
