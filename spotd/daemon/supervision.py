"""Awaits the end of a daemon, whichever it is, and limits the steps of its stop.

Must not know what the loops and the steps do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import structlog

from spotd.errors import RedisUnavailableError, SpotdError

log = structlog.get_logger("spotd.daemon")


async def first_end(loops: list[asyncio.Task[None]], stop_asked: asyncio.Event) -> tuple[int, str]:
    """Wait until a loop ends or a stop is asked for. Return the exit code, and the reason."""
    stopping = asyncio.create_task(stop_asked.wait(), name="stop")
    try:
        await asyncio.wait((*loops, stopping), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        await asyncio.wait((stopping,))
    for loop in loops:
        if not loop.done():
            continue
        failure = loop.exception()
        if isinstance(failure, SpotdError) and failure.exit_code != 1:
            log.critical("giving up", why=str(failure))
            return failure.exit_code, str(failure)
        log.critical("a loop ended: this is a defect", loop=loop.get_name(), exc_info=failure)
        return 1, f"a defect: the loop {loop.get_name()!r} ended"
    return 0, "the daemon was asked to stop"


async def within(work: Coroutine[Any, Any, Any], limit_s: float, end: float, what: str) -> None:
    """Await one step of a stop, for at most ``limit_s``, and until ``end`` at the latest.

    ``end`` is monotonic seconds. Each step has at least 0.05 s. A failure is logged as ``what``.
    """
    try:
        async with asyncio.timeout(max(0.05, min(limit_s, end - time.monotonic()))):
            await work
    except (TimeoutError, RedisUnavailableError) as error:
        log.warning("could not finish", what=what, why=str(error) or "no answer in time")
    except Exception:  # the other steps of the stop have to be done all the same
        log.exception("could not finish: this is a defect", what=what)
