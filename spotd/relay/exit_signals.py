"""Talks to the process: tells when it is asked to end, beside the server whose process it is.

A server such as uvicorn waits for open responses before it ends the lifespan of its application,
so an event stream would keep it from stopping. Must not change what a signal does.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def told_of_exit(tell: Callable[[], object]) -> Iterator[None]:
    """Call ``tell`` in the running loop at SIGINT and SIGTERM, then whatever handled these before.

    Nothing is done outside the main thread, which alone may handle signals, nor for a signal that
    nobody handles.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    handled = [number for number, handler in before.items() if callable(handler)]
    for number in handled:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in handled:
            # Who has taken the signal over meanwhile keeps it.
            if signal.getsignal(number) is handle:
                signal.signal(number, before[number])
