"""One call to Redis: its time limit, its outcome, and its errors as spotd's own. Decides nothing.

Every call has a time limit, none is retried here (the loops ask again), and every foreign error
becomes RedisUnavailableError. Must not know what is read or written.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from redis.exceptions import NoScriptError

from spotd.core.call_limit import CallLimit
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.clients import check_prefix, connect, is_cluster, master_of, place_of
from spotd.redis.connections import Progress, progress
from spotd.redis.errors import LoginRefusedError, RefusedError, translated
from spotd.redis.scripts import digest_of
from spotd.redis.time_limit import TimeLimit

T = TypeVar("T")

CALL_TIMEOUT_S = 0.8  # of a call to a Redis that is near; see ``core.call_limit``


class Outcome(NamedTuple):
    """How one call to Redis ended.

    ``sent_at`` and ``at`` are its begin and end, in monotonic seconds. ``failure`` says why Redis
    cannot be relied on; None: Redis answered. ``refused``: Redis works and said no.
    """

    sent_at: float
    at: float
    failure: str | None
    refused: bool = False


@dataclass(slots=True)
class Sent:
    """When a call was sent, in seconds of the loop's clock: after its connection was opened."""

    at: float


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
        self._outcome = outcome
        self._master = master_of(self._client)
        self._limit = CallLimit(call_timeout_s)
        if self._master is not None:
            self._limit = CallLimit(self._master.answer_s or call_timeout_s)
            self._master.on_drop(self._dropped)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    @asynccontextmanager
    async def _asking(
        self, key: str = "a key", *, answer: type[RefusedError] | tuple[()] = ()
    ) -> AsyncIterator[Sent]:
        """Make one call, or a few that count as one, and report the outcome.

        ``answer``: an error of this type concerns this one key, so it counts as an answer. Raises
        RedisUnavailableError.
        """
        sent_at = time.monotonic()
        try:
            async with self._limited(key) as sent:
                yield sent
        except RedisUnavailableError as error:
            failure = None if isinstance(error, answer) else str(error)
            refused = isinstance(error, RefusedError | LoginRefusedError)
            self._outcome(Outcome(sent_at, time.monotonic(), failure, refused))
            raise
        self._outcome(Outcome(sent_at, time.monotonic(), None))

    @asynccontextmanager
    async def _limited(self, key: str = "a key") -> AsyncIterator[Sent]:
        """Limit the time of a call that is made inside, and translate its errors.

        While a connection is opened, the limits of that count. Then the call has its own.
        """
        loop = asyncio.get_running_loop()
        sent = Sent(loop.time())
        with translated(self._client, key):
            async with asyncio.timeout(None) as scope:
                limit = TimeLimit(scope)
                limit.set(sent.at + self._limit.limit_s)

                def opening() -> None:
                    limit.set(None)

                def ready() -> None:
                    sent.at = loop.time()
                    limit.set(sent.at + self._limit.limit_s)

                outer = progress.get()
                progress.set(Progress(opening, ready, self._limit.answered))
                try:
                    yield sent
                finally:
                    limit.set(None)
                    progress.set(outer)
            self._limit.answered(loop.time() - sent.at)

    async def _elsewhere(self, ask: Callable[[Any], Awaitable[T]]) -> dict[int, T]:
        """Return what ``ask`` returns of each other database that holds keys. Only inside a call.

        A cluster has one database.
        """
        found: dict[int, T] = {}
        if is_cluster(self._client):
            return found
        own = self._client.connection_pool.connection_kwargs.get("db") or 0
        async with self._client.client() as one:
            numbers = [int(name.removeprefix("db")) for name in await one.info("keyspace")]
            try:
                for number in sorted(number for number in numbers if number != own):
                    await one.execute_command("SELECT", number)
                    found[number] = await ask(one)
            finally:
                await one.execute_command("SELECT", own)
        return found

    async def _evaluate(
        self, script: str, arguments: Callable[[], Sequence[str | bytes | int | float]]
    ) -> Any:
        """Return what a script returns. Only inside a call.

        ``arguments`` returns the number of keys, the keys and ARGV, as of the moment of sending.
        """
        try:
            return await self._client.evalsha(digest_of(script), *arguments())
        except NoScriptError:
            # The server is new to us, or was restarted. EVAL leaves the script with it. After an
            # answer the call is granted its whole time again.
            told = progress.get()
            if told is not None:
                told.ready()
            return await self._client.eval(script, *arguments())

    def _dropped(self, why: str) -> None:
        # What was written to the wrong server is lost, as if Redis had been away.
        now = time.monotonic()
        self._outcome(Outcome(now, now, f"Redis at {place_of(self._client)}: {why}"))
