"""The signals that ask a process to stop: SIGTERM, SIGINT and SIGHUP. Must not know what stops."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line, which takes signals before it loads anything, needs none
    import asyncio

SAME_WISH_S = 0.2


def stop_signals() -> list[signal.Signals]:
    """Return these signals. A SIGHUP that is ignored, as under nohup, stays so."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def stop_on_signals(
    loop: asyncio.AbstractEventLoop,
    stop: Callable[[], object],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Call ``stop`` on each of them.

    What comes less than ``SAME_WISH_S`` after a signal that called ``stop`` is the same wish:
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

    for number in stop_signals():
        loop.add_signal_handler(number, handle)


def ignore_stop_signals() -> None:
    """Ignore these signals from now on: the process ends anyway.

    An event loop that closes takes its handlers along. As a consequence, the second signal of one
    wish would kill a process that stopped quickly, and its exit code would be that of the signal.
    """
    for number in stop_signals():
        signal.signal(number, signal.SIG_IGN)
