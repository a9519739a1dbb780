"""What a test says to a daemon as a service does, and what it reads of it, all through Redis."""

from __future__ import annotations

import json
import time
from typing import Any, Self, TypeAlias

import redis.asyncio as aioredis
from redis.asyncio.retry import Retry
from redis.backoff import ConstantBackoff

from spotd.keys import Keys

Json: TypeAlias = dict[str, Any]

_BETWEEN_TRIES_S = 0.02
_TRIES = 100  # for as long as a server takes to start again; every call here may be repeated


class Values:
    """One client of the values under one pair of prefixes.

    ``server`` is its URL, or a client that exists already. ``redis`` is the client itself, for
    what has no method here. Its answers may be bytes or, with ``decode_responses``, text. Calls
    are repeated while a server starts again; then every method raises what redis-py raises.
    """

    def __init__(
        self, server: str | aioredis.Redis, keys: Keys | None = None, **options: Any
    ) -> None:
        retry = Retry(ConstantBackoff(_BETWEEN_TRIES_S), _TRIES)
        self.keys = keys or Keys()
        self.redis: Any = (
            aioredis.Redis.from_url(server, **({"retry": retry} | options))
            if isinstance(server, str)
            else server
        )

    async def __aenter__(self) -> Self:
        """Connect at the first call."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connection."""
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connection."""
        await self.redis.aclose()

    # What a service says

    async def want(self, *entries: str, wake: bool = True) -> None:
        """Add entries to the set of demand, and say so on the wake channel."""
        await self.redis.sadd(self.keys.symbols, *entries)
        if wake:
            await self.wake()

    async def unwant(self, *entries: str, wake: bool = True) -> None:
        """Remove entries from the set of demand, and say so on the wake channel."""
        await self.redis.srem(self.keys.symbols, *entries)
        if wake:
            await self.wake()

    async def lease(self, *members: str, for_s: float, wake: bool = True) -> None:
        """Write or renew leases (``SPY@owner``) that lapse ``for_s`` seconds from now."""
        lapses = time.time() + for_s
        await self.redis.zadd(self.keys.leases, dict.fromkeys(members, lapses))
        if wake:
            await self.wake()

    async def wake(self) -> None:
        """Say on the wake channel that the demand changed."""
        await self.redis.publish(self.keys.wake, "")

    # What a consumer reads

    async def raw_last(self, symbol: str) -> bytes | None:
        """Return the newest update of a symbol as it is stored, None without one."""
        raw = await self.redis.hget(self.keys.last, symbol)
        return raw.encode() if isinstance(raw, str) else raw

    async def last(self, symbol: str) -> Json | None:
        """Return the newest update of a symbol, None without one."""
        return _decoded(await self.redis.hget(self.keys.last, symbol))

    async def bid(self, symbol: str) -> float | None:
        """Return the newest bid of a symbol in USD, None without one."""
        last = await self.last(symbol)
        return None if last is None else float(last["bid_price"])

    async def has(self, symbol: str, bid: float) -> bool:
        """Return whether this is the newest bid of a symbol, in USD."""
        return await self.bid(symbol) == bid

    async def all_last(self) -> dict[str, Json]:
        """Return the newest update of every symbol that has one."""
        return _all_decoded(await self.redis.hgetall(self.keys.last))

    async def states(self) -> dict[str, Json]:
        """Return the SymbolState of every symbol and of every refused entry."""
        return _all_decoded(await self.redis.hgetall(self.keys.states))

    async def state(self, symbol: str) -> str | None:
        """Return the state of one symbol, None without one."""
        state = _decoded(await self.redis.hget(self.keys.states, symbol))
        return None if state is None else str(state["state"])

    async def live(self, *symbols: str) -> bool:
        """Return whether all these symbols are live."""
        found = await self.redis.hmget(self.keys.states, symbols)
        return all((_decoded(raw) or {}).get("state") == "live" for raw in found)

    async def forgotten(self, *symbols: str) -> bool:
        """Return whether neither a price nor a state of any of these symbols is stored."""
        last = await self.redis.hmget(self.keys.last, symbols)
        states = await self.redis.hmget(self.keys.states, symbols)
        return not any((*last, *states))

    async def status(self) -> Json | None:
        """Return the DaemonStatus, None while no daemon writes one."""
        return _decoded(await self.redis.get(self.keys.status))

    async def leases(self) -> dict[str, float]:
        """Return every lease with the unix time, in seconds, at which it lapses."""
        found = await self.redis.zrange(self.keys.leases, 0, -1, withscores=True)
        return {_text(member): float(lapses) for member, lapses in found}

    async def token(self) -> str | None:
        """Return the token in the leader key, None while nobody leads."""
        token = await self.redis.get(self.keys.leader)
        return None if token is None else _text(token)

    async def subscribers(self, channel: str) -> int:
        """Return how many connections are subscribed to a channel by its name."""
        [(_, number)] = await self.redis.pubsub_numsub(channel)
        return int(number)


def _text(raw: bytes | str) -> str:
    return raw if isinstance(raw, str) else raw.decode()


def _decoded(raw: bytes | str | None) -> Json | None:
    return None if raw is None else dict(json.loads(raw))


def _all_decoded(raw: dict[Any, bytes | str]) -> dict[str, Json]:
    return {_text(name): dict(json.loads(value)) for name, value in raw.items()}
