"""The daemon's port to Redis, as tests use it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.kit.waiting import GUARD_S


def patient(url: str, keys: Keys, **options: Any) -> RedisPort:
    """Return a port whose limits only guard against hanging, for tests not about limits."""
    limits = {"call_timeout_s": GUARD_S, "connect_timeout_s": GUARD_S}
    return RedisPort(url, keys, **(limits | options))


async def led(port: RedisPort, token: str) -> float:
    """Ask for the leader key until an answer comes within the limit of a port, which may be low.

    Return how many seconds that answer took. The port takes Redis' clock to be later than it is, by
    as much at most. As a consequence, a call may be carried out that long after it was given up.
    """
    async with asyncio.timeout(GUARD_S):
        while True:
            began_at = time.monotonic()
            with suppress(RedisUnavailableError):
                await port.lead(token, 600.0)
                return time.monotonic() - began_at


def clock_after(seconds: float) -> Callable[[], bool]:
    """Return a function that tells whether this time is over."""
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


async def publish(port: RedisPort, token: str, lines: bytes, highest_seq: int) -> None:
    """Publish and store updates as the daemon does, wait for the end, and raise its error."""
    end: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    port.begin_publishing(token, lines, highest_seq, end.set_result)
    error = await end
    if error is not None:
        raise error


async def lead_and_publish(port: RedisPort, token: str = "t") -> str:
    """Ask for the leader key and publish a line for SPY. Return whose the key was."""
    answer = await port.lead(token, 60.0)
    await publish(port, token, b'{"symbol":"SPY"}\n', (answer.highest_seq or 0) + 1)
    return answer.held
