"""One call to Redis: its time limit, its outcome, and its errors as spotd's own. Decides nothing.

Every call has a time limit, none is retried here (the loops ask again), and every foreign error
becomes RedisUnavailableError. Must not know what is read or written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.addresses import (
    after_login,
    check_prefix,
    connect,
    is_cluster,
)
from spotd.redis.errors import LoginRefusedError, RefusedError, translated

# Short: while a network swallows packets, a call is given up soon, and the next one, which may get
# through, carries newer values.
CALL_TIMEOUT_S = 0.8


class Outcome(NamedTuple):
    """How one call to Redis ended.

    ``sent_at`` and ``at`` are its begin and end, in monotonic seconds. ``failure`` says why Redis
    cannot be relied on; None: Redis answered. ``refused``: Redis works and said no.
    """

    sent_at: float
    at: float
    failure: str | None
    refused: bool = False


def ignore(_: Outcome) -> None:
    """Do nothing with an outcome."""


class Calls:
    """Calls over one pool of connections, each with its limit and its outcome.

    ``outcome`` takes the outcome of every call that was not cancelled.
    """

    def __init__(
        self,
        url: str,
        keys: Keys,
        outcome: Callable[[Outcome], None],
        *,
        call_timeout_s: float,
        connect_timeout_s: float,
    ) -> None:
        self.keys = keys
        # The limit of a call is ours, because redis-py's own uses wait_for, which in Python 3.11
        # may swallow a cancellation: a loop that was told to end would go on.
        self._client = connect(
            url,
            name="SPOTD_REDIS_URL",
            connect_timeout_s=connect_timeout_s,
            answer_timeout_s=None,
        )
        check_prefix(self._client, keys, "SPOTD_KEY_PREFIX")
        self._clustered = is_cluster(self._client)
        self._outcome = outcome
        self._call_timeout_s = call_timeout_s
        # Any host may be dead. Then the next one is asked only after the try to connect timed out.
        self._limit_s = call_timeout_s + connect_timeout_s * url.count(",")

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _asking(
        self, key: str = "a key", *, answer: type[RefusedError] | tuple[()] = ()
    ) -> AsyncIterator[None]:
        """Make one call, or a few that count as one, and report the outcome.

        ``answer``: an error of this type concerns this one key, so it counts as an answer. Raises
        RedisUnavailableError.
        """
        sent_at = time.monotonic()
        try:
            async with self._limited(key):
                yield
        except RedisUnavailableError as error:
            failure = None if isinstance(error, answer) else str(error)
            refused = isinstance(error, RefusedError | LoginRefusedError)
            self._outcome(Outcome(sent_at, time.monotonic(), failure, refused))
            raise
        self._outcome(Outcome(sent_at, time.monotonic(), None))

    @asynccontextmanager
    async def _limited(self, key: str = "a key") -> AsyncIterator[None]:
        """Limit the time of a call that is made inside, and translate its errors.

        A new connection has one limit until it is logged in. Then the call gets its own.
        """
        loop = asyncio.get_running_loop()
        with translated(self._client, key):
            async with asyncio.timeout(self._limit_s) as limit:

                def begin_again() -> None:
                    with suppress(RuntimeError):  # the limit expires at this moment
                        limit.reschedule(loop.time() + self._call_timeout_s)

                outer = after_login.get()
                after_login.set(begin_again)
                try:
                    yield
                finally:
                    after_login.set(outer)
