"""Runs blocking calls in threads for which a shutdown does not wait. Must not know what they do."""

from __future__ import annotations

import _thread
import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

_busy: set[object] = set()


async def in_daemon_thread(call: Callable[[], T]) -> T:
    """Return what ``call`` returns in a thread. A shutdown does not wait for the thread.

    It would wait for the threads of an executor. Raise what ``call`` raises, and RuntimeError where
    no thread can be started. A thread that gets no memory may end without a word, so the caller
    sets a limit.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def settle(value: T) -> None:
        if not result.done():
            result.set_result(value)

    def fail(error: BaseException) -> None:
        if not result.done():
            result.set_exception(error)

    def run() -> None:
        _busy.add(run)
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - carried to the awaiting task, all of it
            tell(fail, error)
        else:
            tell(settle, value)
        finally:
            _busy.discard(run)

    def tell(what: Callable[..., None], about: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, with its tasks
            loop.call_soon_threadsafe(what, about)

    # Thread.start() would wait until the thread runs. A thread that gets no memory never says so,
    # and the event loop would hang (https://github.com/python/cpython/issues/140746).
    _thread.start_new_thread(run, ())
    return await result


def are_busy() -> bool:
    """Return whether a call is under way in any of these threads."""
    return bool(_busy)
