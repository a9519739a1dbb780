"""Calls to Redis with one more try each. Must not know what is called.

A call that a server refuses because it takes no writes closes all connections of the client. The
second try then goes to the server to which the address leads by now.
"""

from __future__ import annotations

import logging
from typing import Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random

from spotd.redis.errors import leave_wrong_server

log = logging.getLogger("spotd.client")


class Calls:
    """Calls that may be sent twice, through the pooled connections of one client of redis-py."""

    def __init__(self, redis: Any) -> None:
        self.redis = redis
        self._logged = False  # that the daemon cannot be woken up

    async def __call__(self, *command: str | bytes | float) -> Any:
        """Return the reply. Raises what redis-py raises."""
        trying = AsyncRetrying(
            retry=retry_if_exception(self._is_worth_a_try),
            stop=stop_after_attempt(2),
            wait=wait_random(0.02, 0.1),
            reraise=True,
        )
        return await trying(self.redis.execute_command, *command)

    async def wake(self, channel: str, owner: str) -> None:
        """Wake the daemon up, if our user may: it finds changes by itself, too.

        Raises what redis-py raises for anything else.
        """
        try:
            await self("PUBLISH", channel, owner)
        except NoPermissionError as error:
            if not self._logged:
                self._logged = True
                log.warning("not waking the daemon up, which finds changes by itself: %s", error)

    def _is_worth_a_try(self, error: BaseException) -> bool:
        wrong = leave_wrong_server(self.redis, error)
        # A pooled connection may have died meanwhile.
        return wrong or isinstance(error, RedisConnectionError)
