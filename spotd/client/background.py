"""An event loop in a thread of its own, to which other threads hand coroutines.

Must not know what the coroutines do.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

T = TypeVar("T")

_CLOSED = "the client is closed"
_FORKED = "this process was forked behind the client: make a client in this process"


class Background:
    """One thread with one event loop, from its making to ``close``.

    The thread does not keep the interpreter from ending. A process that is forked does not have it.
    Raises OSError where a loop needs more descriptors than there are.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()  # here, so that the caller hears why it fails
        self._stop = asyncio.Event()
        # Nothing is handed over once the end was asked for. A garbage collection within the lock
        # may collect an iterator, whose finalizer takes it again.
        self._lock = threading.RLock()
        self._closing = False
        self._tasks: set[asyncio.Future[None]] = set()  # one that nobody holds may be collected
        self._thread = threading.Thread(target=self._run, name="spotd-client", daemon=True)
        self._thread.start()

    @property
    def is_here(self) -> bool:
        """Return whether the caller runs in the thread of the loop."""
        return threading.current_thread() is self._thread

    def check_process(self) -> None:
        """Raise RuntimeError in a process that was forked: the thread is not in it."""
        if os.getpid() != self._process:
            raise RuntimeError(_FORKED)

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine on the loop; return its result, or raise its error.

        Raises TimeoutError after ``timeout_s`` seconds, and RuntimeError after ``close`` and on
        the loop's own thread, which would wait for itself, and in a process that was forked. In all
        cases, and with Ctrl-C, the coroutine is cancelled.
        """
        try:
            self.check_process()
        except RuntimeError:
            coroutine.close()
            raise
        with self._lock:
            if self._closing or self.is_here:
                coroutine.close()
                raise RuntimeError(
                    "called from the client's own thread" if self.is_here else _CLOSED
                )
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except CancelledError:
            raise RuntimeError(_CLOSED) from None
        except BaseException:
            future.cancel()
            raise

    def begin(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have the loop run a coroutine, without waiting for it. Not after ``close`` or a fork."""
        if os.getpid() != self._process:
            return

        def run() -> None:
            task = asyncio.ensure_future(begin())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        with self._lock:
            if not self._closing:
                self._loop.call_soon_threadsafe(run)

    def close(self) -> None:
        """Cancel what still runs, and end the thread. May be called twice, and from any thread."""
        if os.getpid() != self._process:
            return  # the thread and what it holds are the other process's
        with self._lock:
            first, self._closing = not self._closing, True
            if first:
                self._loop.call_soon_threadsafe(self._stop.set)
        if not self.is_here:
            self._thread.join()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())
