"""The signals that ask a process to stop: SIGTERM, SIGINT and SIGHUP. Decides nothing."""

from __future__ import annotations

import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line, which takes signals before it loads anything, needs none
    import asyncio


def stop_signals() -> list[signal.Signals]:
    """Return these signals. A SIGHUP that is ignored, as under nohup, stays so."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        numbers.append(signal.SIGHUP)
    return numbers


def stop_on_signals(loop: asyncio.AbstractEventLoop, stop: Callable[[], object]) -> None:
    """Call ``stop`` on each of them."""
    for number in stop_signals():
        loop.add_signal_handler(number, stop)
