"""Reads the demand from Redis: the set, the leases, plain subscribers. Decides nothing.

A refusal of one of these keys (another type, no permission) is an answer, not an outage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

from redis.asyncio.cluster import RedisCluster

from spotd.redis.calls import Calls
from spotd.redis.errors import RefusedError

MAX_FIELDS_PER_CALL = 500  # so that the server is never held for more than about 2 ms
SCAN_ABOVE = 2_000  # a larger demand is read in slices, which hold neither us nor the server long
SCAN_COUNT = 500


class DemandCalls(Calls):
    """The calls that read the demand.

    Each raises WrongTypeError where its key has another type, and RedisUnavailableError where
    Redis does not answer.
    """

    async def demand_set(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield the entries of ``spotd:symbols``; more than ``SCAN_ABOVE`` come in slices."""
        key = self.keys.symbols
        async with self._asking(key, answer=RefusedError):
            small = await self._client.scard(key) <= SCAN_ABOVE
            entries = list(await self._client.smembers(key)) if small else []
        if small:
            yield entries
            return
        cursor = 0
        while True:
            async with self._asking(key, answer=RefusedError):
                cursor, entries = await self._client.sscan(key, cursor=cursor, count=SCAN_COUNT)
            yield entries
            if int(cursor) == 0:
                return

    async def live_leases(self, unix_s: float) -> list[bytes]:
        """Return the members of ``spotd:leases`` that have not lapsed, and remove the others.

        More than ``SCAN_ABOVE`` are read in slices.
        """
        key = self.keys.leases
        async with self._asking(key, answer=RefusedError):
            await self._client.zremrangebyscore(key, "-inf", repr(unix_s))
            count = await self._client.zcard(key)
        if count <= SCAN_ABOVE:
            async with self._asking(key, answer=RefusedError):
                return list(await self._client.zrangebyscore(key, f"({unix_s!r}", "+inf"))
        members: list[bytes] = []
        cursor = 0
        while True:
            async with self._asking(key, answer=RefusedError):
                cursor, scored = await self._client.zscan(key, cursor=cursor, count=SCAN_COUNT)
            members += [member for member, score in scored if score > unix_s]
            if int(cursor) == 0:
                return members

    async def lapsed_leases(self, unix_s: float) -> list[tuple[bytes, float]]:
        """Return members of ``spotd:leases`` that have lapsed, with their scores.

        At most ``MAX_FIELDS_PER_CALL``, those that lapsed first.
        """
        return await self._scored("-inf", repr(unix_s))

    async def leases_beyond(self, unix_s: float) -> list[tuple[bytes, float]]:
        """Return members that lapse after ``unix_s``, with their scores.

        At most ``MAX_FIELDS_PER_CALL``, those that lapse first.
        """
        return await self._scored(f"({unix_s!r}", "+inf")

    async def _scored(self, lowest: str, highest: str) -> list[tuple[bytes, float]]:
        key = self.keys.leases
        async with self._asking(key, answer=RefusedError):
            return list(
                await self._client.zrangebyscore(
                    key, lowest, highest, start=0, num=MAX_FIELDS_PER_CALL, withscores=True
                )
            )

    async def not_in_set(self, entries: Sequence[bytes]) -> list[bytes]:
        """Return those of at most ``MAX_FIELDS_PER_CALL`` entries that the set does not hold.

        Entries are asked for by name, because a scan that another server continued ends without an
        error although it found only a part of the set.
        """
        key = self.keys.symbols
        async with self._asking(key, answer=RefusedError):
            held = await self._client.smismember(key, entries)
        return [entry for entry, there in zip(entries, held, strict=True) if not there]

    async def not_leased(self, members: Sequence[bytes], unix_s: float) -> list[bytes]:
        """Return those of at most ``MAX_FIELDS_PER_CALL`` members that hold no live lease."""
        key = self.keys.leases
        async with self._asking(key, answer=RefusedError):
            scores = await self._client.zmscore(key, members)
        return [
            member
            for member, score in zip(members, scores, strict=True)
            if score is None or score <= unix_s
        ]

    async def subscribed_channels(self) -> list[bytes]:
        """Return what follows the channel prefix in every channel with a plain subscriber."""
        prefix = self.keys.channel_prefix
        pattern = "".join(f"\\{c}" if c in "*?[]^-\\" else c for c in prefix) + "*"
        async with self._asking(answer=RefusedError):
            if self._clustered:
                answer = await self._client.pubsub_channels(
                    pattern, target_nodes=RedisCluster.ALL_NODES
                )
                channels = [channel for part in _parts(answer) for channel in part]
            else:
                channels = await self._client.pubsub_channels(pattern)
        own = {self.keys.wake.encode(), self.keys.events.encode()}  # if the prefixes overlap
        return [channel[len(prefix.encode()) :] for channel in channels if channel not in own]


def _parts(answer: Any) -> list[Any]:
    """Return the answers of the nodes, in whichever shape this redis-py returns them."""
    if isinstance(answer, dict):
        return list(answer.values())
    return [answer]
