"""The daemon's port to Redis, as tests use it."""

from __future__ import annotations

import asyncio
from typing import Any

from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.kit.waiting import GUARD_S


def patient(url: str, keys: Keys, **options: Any) -> RedisPort:
    """Return a port whose limits only guard against hanging, for tests not about limits."""
    limits = {"call_timeout_s": GUARD_S, "connect_timeout_s": GUARD_S}
    return RedisPort(url, keys, **(limits | options))


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
