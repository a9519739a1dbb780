"""Reads the demand from Redis: the set, the leases, plain subscribers. Decides nothing.

A refusal of one of these keys (another type, no permission) is an answer, not an outage.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from redis.exceptions import NoScriptError

from spotd.redis.calls import Calls
from spotd.redis.cluster import ClusterClient
from spotd.redis.errors import RefusedError
from spotd.redis.scripts import LEASES

MAX_FIELDS_PER_CALL = 500  # so that the server is never held for more than about 2 ms
SCAN_ABOVE = 2_000  # a larger demand is read in slices, which hold neither us nor the server long
SCAN_COUNT = 1_000  # a slice takes us about 0.5 ms, and the server less than 0.1 ms
NEVER_S = 1e12
_LEASES_SHA = hashlib.sha1(LEASES.encode(), usedforsecurity=False).hexdigest()


class LeasesRead(NamedTuple):
    """The leases of one moment, ``unix_s`` by Redis' clock.

    ``live`` have not lapsed. ``lapsed`` were removed: with their scores, at most
    ``MAX_FIELDS_PER_CALL``, those that lapsed first. ``far`` are as many that lapse far ahead.
    """

    unix_s: float
    live: list[bytes]
    lapsed: list[tuple[bytes, float]]
    far: list[tuple[bytes, float]]


class DemandRead(NamedTuple):
    """The leases, and the first entries of the set: all of them unless ``cursor`` is above 0."""

    entries: Sequence[bytes]
    cursor: int
    leases: LeasesRead


class DemandCalls(Calls):
    """The calls that read the demand.

    Each raises WrongTypeError where its key has another type, and RedisUnavailableError where
    Redis does not answer.
    """

    async def demand(self, *, far_s: float = NEVER_S) -> DemandRead | None:
        """Return what ``demand_set`` and ``leases`` do, in one round trip. ``demand_rest`` goes on.

        None: one of the two keys is refused, and asking for each alone tells which; or it is a
        cluster, whose client follows a slot that moves by single commands only.
        """
        if isinstance(self._client, ClusterClient):
            return None
        keys = self.keys
        arguments = (1, keys.leases, MAX_FIELDS_PER_CALL, SCAN_ABOVE, far_s)
        try:
            async with self._asking(answer=RefusedError):
                both: Any = self._client.pipeline(transaction=False)
                # A set of no more entries than that comes as a whole.
                both.sscan(keys.symbols, count=SCAN_ABOVE).evalsha(_LEASES_SHA, *arguments)
                scanned, leases = await both.execute(raise_on_error=False)
                if isinstance(leases, NoScriptError):  # EVAL leaves the script with the server
                    self._begin_again()
                    leases = await self._client.eval(LEASES, *arguments)
                for answer in (scanned, leases):
                    if isinstance(answer, Exception):
                        raise answer
            cursor, entries = scanned
            return DemandRead(entries, int(cursor), await self._all_leases(leases))
        except RefusedError:
            return None

    async def demand_rest(self, read: DemandRead) -> AsyncIterator[Sequence[bytes]]:
        """Yield the entries of the set of which ``read`` holds the first, these first."""
        yield read.entries
        if read.cursor:
            async for entries in self._scanned(read.cursor):
                yield entries

    async def demand_set(self) -> AsyncIterator[Sequence[bytes]]:
        """Yield the entries of ``spotd:symbols``; more than ``SCAN_ABOVE`` come in slices."""
        key = self.keys.symbols
        async with self._asking(key, answer=RefusedError):
            small = await self._client.scard(key) <= SCAN_ABOVE
            entries = list(await self._client.smembers(key)) if small else []
        if small:
            yield entries
            return
        async for some in self._scanned(0):
            yield some

    async def _scanned(self, cursor: int) -> AsyncIterator[Sequence[bytes]]:
        key = self.keys.symbols
        while True:
            async with self._asking(key, answer=RefusedError):
                answer = await self._client.sscan(key, cursor=cursor, count=SCAN_COUNT)
            cursor, entries = answer
            yield entries
            if int(cursor) == 0:
                return

    async def leases(self, *, far_s: float = NEVER_S) -> LeasesRead:
        """Return the members of ``spotd:leases`` that have not lapsed, and remove the others.

        Whether a lease has lapsed is decided by Redis' clock, in the same step as it is removed.
        Those that lapse more than ``far_s`` ahead are returned with their scores, too. More than
        ``SCAN_ABOVE`` are read in slices.
        """
        key = self.keys.leases
        async with self._asking(key, answer=RefusedError):
            answer = await self._client.eval(LEASES, 1, key, MAX_FIELDS_PER_CALL, SCAN_ABOVE, far_s)
        return await self._all_leases(answer)

    async def _all_leases(self, answer: Sequence[Any]) -> LeasesRead:
        """Return the leases that the script answered, and the members that it left out."""
        clock, lapsed, far, live = answer
        key, unix_s = self.keys.leases, float(clock)
        read = LeasesRead(unix_s, [] if live is None else live, _scored(lapsed), _scored(far))
        if live is not None:
            return read
        cursor = 0
        while True:
            async with self._asking(key, answer=RefusedError):
                cursor, scored = await self._client.zscan(key, cursor=cursor, count=SCAN_COUNT)
            read.live.extend(member for member, score in scored if score > unix_s)
            if int(cursor) == 0:
                return read

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
        """Return those of at most ``MAX_FIELDS_PER_CALL`` members that hold no live lease.

        ``unix_s`` is Redis' clock, as a read of the leases told it.
        """
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
            if isinstance(self._client, ClusterClient):
                parts = await self._client.from_all_nodes("PUBSUB", "CHANNELS", pattern)
                channels = [channel for part in parts for channel in part]
            else:
                channels = await self._client.pubsub_channels(pattern)
        names = (self.keys.wake, self.keys.events, self.keys.leaders)
        own = {name.encode() for name in names}  # if the prefixes overlap
        return [channel[len(prefix.encode()) :] for channel in channels if channel not in own]


def _scored(flat: Sequence[bytes]) -> list[tuple[bytes, float]]:
    """Return pairs of member and score, which a script returns one after the other."""
    return [(member, float(score)) for member, score in zip(flat[::2], flat[1::2], strict=True)]
