"""Reads the demand from Redis: the set, the leases, plain subscribers. Decides nothing.

A refusal of one of these keys (another type, no permission) is an answer, not an outage.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

from spotd.redis.calls import Calls
from spotd.redis.cluster import ClusterClient
from spotd.redis.errors import RefusedError
from spotd.redis.scripts import DEMAND, LEASES

MAX_FIELDS_PER_CALL = 500  # so that the server is never held for more than about 2 ms
SCAN_ABOVE = 2_000  # a larger demand is read in slices, which hold neither us nor the server long
# A digest holds the server for 1 to 3 ms then, and for five times that at 120,000. The whole market
# and 10,000 entries of garbage are fewer.
DIGEST_UP_TO = 25_000
SCAN_COUNT = 1_000  # a slice takes us about 0.5 ms, and the server less than 0.1 ms
NEVER_S = 1e12


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
    """Leases and set of one moment, and the ``digest`` of both; empty: the server told none.

    It tells none of more than ``DIGEST_UP_TO``. ``entries`` of the set are None where they are more
    than ``SCAN_ABOVE``. ``leased`` and ``size`` are the numbers of all leases and of all entries.
    """

    leases: LeasesRead
    digest: bytes
    leased: int
    size: int
    entries: Sequence[bytes] | None

    @property
    def at_once(self) -> bool:
        """Whether neither is scanned. A scan may bring what is no part of that moment."""
        return self.entries is not None and self.leased <= SCAN_ABOVE


class SameDemand(NamedTuple):
    """Leases and set are those of a known digest, at ``unix_s`` by Redis' clock."""

    unix_s: float


class DemandCalls(Calls):
    """The calls that read the demand.

    Each raises WrongTypeError where its key has another type, and RedisUnavailableError where
    Redis does not answer.
    """

    async def demand(
        self, known: bytes = b"", *, far_s: float = NEVER_S
    ) -> DemandRead | SameDemand | None:
        """Return what ``demand_set`` and ``leases`` do, in one round trip.

        ``known``: the digest of a demand that need not be returned again. ``demand_entries`` yields
        what is too large for one round trip. None: one of the two keys is refused, and asking for
        each alone tells which.
        """
        keys = self.keys
        most = (MAX_FIELDS_PER_CALL, SCAN_ABOVE, far_s)
        arguments = (1, keys.leases, *most, known, keys.symbols, DIGEST_UP_TO)
        try:
            async with self._asking(answer=RefusedError):
                answer = await self._evaluate(DEMAND, lambda: arguments)
            if len(answer) == 1:
                return SameDemand(float(answer[0]))
            *leases, digest, leased, size, entries = answer
            return DemandRead(await self._all_leases(leases), digest, leased, size, entries)
        except RefusedError:
            return None

    async def demand_entries(self, read: DemandRead) -> AsyncIterator[Sequence[bytes]]:
        """Yield the entries of the set of which ``read`` was read: all at once, or in slices."""
        if read.entries is not None:
            yield read.entries
            return
        async for entries in self._scanned():
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
        async for some in self._scanned():
            yield some

    async def _scanned(self) -> AsyncIterator[Sequence[bytes]]:
        key, cursor = self.keys.symbols, 0
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
