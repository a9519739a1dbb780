"""What a person asks Redis about: status, states, the demand with its owners, the server itself.

Reads only, so it may be used beside a daemon. Decides nothing. Where our user may not ask, or a
managed server knows no such command, an answer about the server is None. A daemon replaces what it
cannot read of its own status and states, so that counts as absent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.models import DaemonStatus, SymbolState
from spotd.redis.calls import Calls, ignore
from spotd.redis.clients import COMMAND_TIMEOUT_S
from spotd.redis.cluster import ClusterClient
from spotd.redis.errors import RefusedError, WrongTypeError, answered
from spotd.redis.tries import TRY_S

T = TypeVar("T")


class DemandSeen(NamedTuple):
    """Entries of the set, and members and scores of all leases; ``unix_s`` by Redis' clock."""

    entries: list[bytes]
    leases: list[tuple[bytes, float]]
    unix_s: float


class Observer(Calls):
    """Reads what the daemon and the services wrote. Each call raises RedisUnavailableError.

    Raises SettingsError for an address or a key prefix that cannot work.
    """

    def __init__(self, url: str, keys: Keys) -> None:
        super().__init__(
            url, keys, ignore, call_timeout_s=COMMAND_TIMEOUT_S, connect_timeout_s=TRY_S
        )

    async def status(self) -> DaemonStatus | None:
        """Return the status; None where there is none that can be read."""
        try:
            async with self._asking(self.keys.status):
                raw = await self._client.get(self.keys.status)
            return None if raw is None else DaemonStatus.from_json(raw)
        except (WrongTypeError, msgspec.DecodeError):
            return None

    async def led(self) -> bool | None:
        """Return whether a daemon holds the leader key; None where our user may not read it."""
        try:
            async with self._asking(self.keys.leader):
                return await self._client.get(self.keys.leader) is not None
        except WrongTypeError:  # nobody can hold it
            return False
        except RefusedError:
            return None

    async def states(self, *names: str) -> dict[str, SymbolState]:
        """Return the states of these symbols or entries; without names, of all there are."""
        try:
            async with self._asking(self.keys.states):
                if names:
                    stored = await self._client.hmget(self.keys.states, names)
                else:
                    stored = await self._client.hvals(self.keys.states)
        except WrongTypeError:
            return {}
        found = {}
        for raw in filter(None, stored):
            try:
                state = SymbolState.from_json(raw)
            except msgspec.DecodeError:
                continue
            found[state.symbol] = state
        return found

    async def demand(self) -> DemandSeen:
        """Return the entries of the set and all leases. None is removed."""
        entries = await self.entries()
        unix_s = await self.unix_s()
        async with self._asking(self.keys.leases):
            leases = await self._client.zrangebyscore(
                self.keys.leases, "-inf", "+inf", withscores=True
            )
        return DemandSeen(entries, [tuple(each) for each in leases], unix_s)

    async def entries(self) -> list[bytes]:
        """Return the entries of the set."""
        async with self._asking(self.keys.symbols):
            return list(await self._client.smembers(self.keys.symbols))

    async def unix_s(self) -> float:
        """Return Redis' clock in unix seconds."""
        async with self._asking():
            seconds, microseconds = await self._client.time()
        return float(seconds) + float(microseconds) / 1_000_000

    # What our user may not be allowed to ask

    async def subscribers(self, *symbols: str) -> dict[str, int] | None:
        """Return how many plain subscribers the channel of each symbol has.

        In a cluster those of all nodes count.
        """
        channels = [self.keys.channel(symbol) for symbol in symbols]

        async def ask() -> list[Any]:
            if isinstance(self._client, ClusterClient):
                return await self._client.from_all_nodes("PUBSUB", "NUMSUB", *channels)
            return [await self._client.execute_command("PUBSUB", "NUMSUB", *channels)]

        parts = await self._if_allowed(ask)
        if parts is None:
            return None
        counts = [sum(map(int, each)) for each in zip(*(flat[1::2] for flat in parts), strict=True)]
        return dict(zip(symbols, counts, strict=True))

    async def info(self) -> Mapping[str, str]:
        """Return what the server says of itself; nothing where it does not."""
        told = await self._if_allowed(self._client.info)
        return {name: str(value) for name, value in (told or {}).items()}

    async def config(self, *names: str) -> Mapping[str, str] | None:
        """Return settings of the server."""
        told: dict[str, str] | None = await self._if_allowed(
            lambda: self._client.config_get(*names)
        )
        return told

    async def demand_elsewhere(self) -> list[int] | None:
        """Return the other databases that hold a demand of the same names, which is not read.

        A cluster has no other database.
        """

        async def has_demand(database: Any) -> bool:
            types = [await database.type(key) for key in (self.keys.symbols, self.keys.leases)]
            return any(each != b"none" for each in types)

        found = await self._if_allowed(lambda: self._elsewhere(has_demand))
        return None if found is None else [number for number, there in found.items() if there]

    async def _if_allowed(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        """Return the answer; None where the server says no to the question."""
        try:
            async with self._asking():
                return await ask()
        except RedisUnavailableError as error:
            if answered(error):
                return None
            raise
