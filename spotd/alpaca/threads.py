"""Runs blocking calls in threads for which a shutdown does not wait. Must not know what they do."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_daemon_thread(call: Callable[[], T], name: str) -> T:
    """Return what ``call`` returns in a thread. A shutdown does not wait for the thread.

    It would wait for the threads of an executor. Raise what ``call`` raises, and RuntimeError where
    no thread can be started.
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
        try:
            value = call()
        except BaseException as error:  # noqa: BLE001 - carried to the awaiting task, all of it
            tell(fail, error)
        else:
            tell(settle, value)

    def tell(what: Callable[..., None], about: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile, with its tasks
            loop.call_soon_threadsafe(what, about)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await result
