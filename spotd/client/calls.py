"""Calls to Redis with one more try each. Must not know what is called."""

from __future__ import annotations

from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random


class Calls:
    """Calls that may be sent twice, through the pooled connections of one client of redis-py."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis

    async def __call__(self, *command: str | bytes | float) -> Any:
        """Return the reply. Raises what redis-py raises."""
        trying = AsyncRetrying(
            # A pooled connection may have died meanwhile.
            retry=retry_if_exception_type(RedisConnectionError),
            stop=stop_after_attempt(2),
            wait=wait_random(0.02, 0.1),
            reraise=True,
        )
        return await trying(self.redis.execute_command, *command)
