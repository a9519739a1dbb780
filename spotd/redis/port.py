"""Talks to Redis: demand in; updates, states, status and the lease out. Decides nothing.

Whatever a leader writes goes through a script that first checks that the leader key still holds
our token: a daemon that froze and woke can write nothing. Every call has a time limit, none is
retried here (the loops look again), and every foreign error becomes RedisUnavailableError.

One server, Sentinel and Cluster differ only in how the client is built. In a cluster the scripts
need their keys in one slot: ``SPOTD_KEY_PREFIX={spotd}:``.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import redis.exceptions
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot

from spotd.errors import NotLeaderError, RedisUnavailableError, SettingsError
from spotd.keys import Keys
from spotd.redis.addresses import (
    CALL_TIMEOUT_S,
    CONNECT_TIMEOUT_S,
    client_of,
    connect,
    current_limit,
)
from spotd.redis.errors import WrongTypeError, translated
from spotd.redis.scripts import (
    DROP_FIELDS,
    LEAD,
    PUBLISH,
    RELEASE,
    WRITE_STATES,
    WRITE_STATUS,
)

MAX_FIELDS_PER_CALL = 500  # so that the server is never held for more than about 2 ms
SCAN_ABOVE = 2_000  # a larger demand is read in slices: neither we nor the server are held long
SCAN_COUNT = 500
# A seq is microseconds since 1970 or little above: one of a farther future is no seq of ours.
SEQ_AHEAD_S = 366 * 86_400
WAKE_SILENCE_S = 10.0  # then the connection is tried with a ping, which has as long to be answered


@dataclass(frozen=True, slots=True)
class LeaseAnswer:
    """What Redis said to an attempt to lead: ``acquired`` implies ``granted``.

    ``highest_seq`` is the highest seq ever published and ``published_by`` the token of who did;
    None where Redis knows none.
    """

    granted: bool
    acquired: bool
    highest_seq: int | None = None
    published_by: str | None = None


class RedisPort:
    """All of spotd's traffic with Redis, except the pub/sub of ``wakes``, over one pool."""

    def __init__(self, url: str, keys: Keys) -> None:
        self.keys = keys
        self._client = connect(url, call_timeout_s=None)
        # Each host beside the first may have to be found dead, before another is asked.
        self._limit_s = CALL_TIMEOUT_S + CONNECT_TIMEOUT_S * url.count(",")
        self._clustered = isinstance(self._client, RedisCluster)
        if self._clustered and key_slot(keys.leader.encode()) != key_slot(keys.last.encode()):
            raise SettingsError(
                "SPOTD_KEY_PREFIX must hold a hash tag in a cluster, for example {spotd}:"
            )
        self._shas = {
            script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            for script in (
                PUBLISH, WRITE_STATES, WRITE_STATUS, DROP_FIELDS, LEAD, RELEASE,
            )
        }  # fmt: skip

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ping(self) -> dict[str, Any]:
        """Ask the server for its INFO section ``server``."""
        async with self._asking():
            if self._clustered:
                await self._client.ping()
                return {"redis_mode": "cluster"}
            return dict(await self._client.info("server"))

    # Demand

    async def demand_set(self) -> AsyncIterator[Sequence[bytes]]:
        """Entries of ``spotd:symbols``, in slices where there are very many.

        Raises WrongTypeError where the key holds something else.
        """
        async with self._asking(self.keys.symbols):
            if await self._client.scard(self.keys.symbols) <= SCAN_ABOVE:
                entries = list(await self._client.smembers(self.keys.symbols))
                scanning = False
            else:
                scanning = True
        if not scanning:
            yield entries
            return
        cursor = 0
        while True:
            async with self._asking(self.keys.symbols):
                cursor, entries = await self._client.sscan(
                    self.keys.symbols, cursor=cursor, count=SCAN_COUNT
                )
            yield entries
            if int(cursor) == 0:
                return

    async def live_leases(self, unix_s: float) -> list[bytes]:
        """Members of ``spotd:leases`` that have not lapsed; the lapsed are removed.

        Read in slices, too, where there are very many.
        """
        key = self.keys.leases
        async with self._asking(key):
            await self._client.zremrangebyscore(key, "-inf", repr(unix_s))
            count = await self._client.zcard(key)
        if count <= SCAN_ABOVE:
            async with self._asking(key):
                return list(await self._client.zrangebyscore(key, f"({unix_s!r}", "+inf"))
        members: list[bytes] = []
        cursor = 0
        while True:
            async with self._asking(key):
                cursor, scored = await self._client.zscan(key, cursor=cursor, count=SCAN_COUNT)
            members += [member for member, score in scored if score > unix_s]
            if int(cursor) == 0:
                return members

    async def not_in_set(self, entries: Sequence[bytes]) -> list[bytes]:
        """Those of at most ``MAX_FIELDS_PER_CALL`` entries that ``spotd:symbols`` does not hold.

        A scan that went on at another server ends without an error, and with a part of the set.
        """
        key = self.keys.symbols
        async with self._asking(key):
            held = await self._client.smismember(key, entries)
        return [entry for entry, there in zip(entries, held, strict=True) if not there]

    async def not_leased(self, members: Sequence[bytes], unix_s: float) -> list[bytes]:
        """Those of at most ``MAX_FIELDS_PER_CALL`` members of ``spotd:leases`` that do not live."""
        key = self.keys.leases
        async with self._asking(key):
            scores = await self._client.zmscore(key, members)
        return [
            member
            for member, score in zip(members, scores, strict=True)
            if score is None or score <= unix_s
        ]

    async def subscribed_channels(self) -> list[bytes]:
        """What follows the channel prefix in every channel that has a plain subscriber."""
        prefix = self.keys.channel_prefix
        pattern = "".join(f"\\{c}" if c in "*?[]^-\\" else c for c in prefix) + "*"
        async with self._asking():
            if self._clustered:
                answer = await self._client.pubsub_channels(
                    pattern, target_nodes=RedisCluster.ALL_NODES
                )
                channels = [c for part in _parts(answer) for c in part]
            else:
                channels = await self._client.pubsub_channels(pattern)
        own = {self.keys.wake.encode(), self.keys.events.encode()}  # if the prefixes overlap
        return [channel[len(prefix.encode()) :] for channel in channels if channel not in own]

    async def wakes(self) -> AsyncIterator[None]:
        """Yield once when listening to ``spotd:wake`` began, then at every message.

        Raises RedisUnavailableError when the connection is lost.
        """
        client = await self._pubsub_client()
        pubsub = client.pubsub(ignore_subscribe_messages=False)
        pinged = False
        try:
            async with self._asking():
                await pubsub.subscribe(self.keys.wake)
            while True:
                async with translated():  # without a limit: no news is no failure
                    message = await pubsub.get_message(timeout=WAKE_SILENCE_S)
                    if message is None:
                        if pinged:
                            raise RedisUnavailableError("Redis: no answer to a ping")
                        await pubsub.ping()
                pinged = message is None
                if message is not None and message["type"] in ("subscribe", "message"):
                    yield None
        finally:
            await pubsub.aclose()
            if client is not self._client:
                await client.aclose()

    # Leading

    async def lead(self, token: str, ttl_s: float, *, former: str = "") -> LeaseAnswer:
        """Renew the leader key if it holds our token, take it if it is free.

        ``former``: a token that we gave up, and whose key we may take over.
        """
        granted, seq = await self._call(
            LEAD, (self.keys.leader, self.keys.seq), token, round(ttl_s * 1000), former
        )
        return LeaseAnswer(granted > 0, granted == 2, *_parse_seq(seq))

    async def release(self, token: str) -> bool:
        """Delete the leader key and the status, if we hold the key."""
        return bool(await self._call(RELEASE, (self.keys.leader, self.keys.status), token))

    async def leader(self) -> str | None:
        """The token of whoever leads."""
        async with self._asking():
            held = await self._client.get(self.keys.leader)
        return None if held is None else held.decode("utf-8", "replace")

    async def publish(self, token: str, lines: bytes, highest_seq: int) -> None:
        """Publish and keep updates: the JSON of each, and a line feed behind each.

        Raises NotLeaderError where nothing was published because the key is not ours or
        ``highest_seq`` is not above what was published before, and RedisUnavailableError where
        it is not known whether it was.
        """
        await self._fenced(
            PUBLISH,
            (self.keys.leader, self.keys.last, self.keys.seq),
            token,
            self.keys.channel_prefix,
            highest_seq,
            # One of our own is not to stop what follows it, whatever became of the clock.
            max(_seq_bound(), highest_seq + SEQ_AHEAD_S * 1_000_000),
            lines,
        )

    async def write_states(
        self, token: str, changed: Mapping[str, bytes], removed: Sequence[str]
    ) -> None:
        """Write and announce changed states, remove others."""
        pairs = [part for pair in changed.items() for part in pair]
        await self._fenced(
            WRITE_STATES,
            (self.keys.leader, self.keys.states),
            token,
            self.keys.events,
            len(removed),
            *removed,
            *pairs,
        )

    async def write_status(self, token: str, json: bytes, ttl_s: float, *, announce: bool) -> None:
        """Write the status for ``ttl_s`` seconds, and announce it where it changed."""
        channel = self.keys.events if announce else ""
        await self._fenced(
            WRITE_STATUS,
            (self.keys.leader, self.keys.status),
            token,
            round(ttl_s * 1000),
            json,
            channel,
        )

    async def last_fields(self) -> set[str]:
        """Symbols in ``spotd:last``."""
        return await self._fields(self.keys.last)

    async def last_prices(self) -> list[bytes]:
        """All JSON in ``spotd:last``, as it stands."""
        try:
            async with self._asking(self.keys.last):
                return list(await self._client.hvals(self.keys.last))
        except WrongTypeError:
            return []

    async def state_fields(self) -> set[str]:
        """Symbols and entries in ``spotd:states``."""
        return await self._fields(self.keys.states)

    async def drop_last(self, token: str, symbols: Iterable[str]) -> None:
        """Remove the last prices of symbols that nobody wants."""
        names = list(symbols)
        for start in range(0, len(names), MAX_FIELDS_PER_CALL):
            await self._fenced(
                DROP_FIELDS,
                (self.keys.leader, self.keys.last),
                token,
                *names[start : start + MAX_FIELDS_PER_CALL],
            )

    # Calls

    @asynccontextmanager
    async def _asking(self, key: str = "a key") -> AsyncIterator[None]:
        """One call, or a few: limited in all, and errors translated.

        What has to be connected first has one limit for that, and then another for the call.

        The limit is ours because redis-py's own uses wait_for, which in Python 3.11 may swallow
        a cancellation: a loop that was told to end would go on.
        """
        async with translated(key), asyncio.timeout(self._limit_s) as limit:
            outer = current_limit.get()
            current_limit.set(limit)
            try:
                yield
            finally:
                current_limit.set(outer)

    async def _fields(self, key: str) -> set[str]:
        try:
            async with self._asking(key):
                return {field.decode("utf-8", "replace") for field in await self._client.hkeys(key)}
        except WrongTypeError:
            return set()  # the next write replaces it

    async def _fenced(self, script: str, keys: Sequence[str], *args: str | bytes | int) -> None:
        if not await self._call(script, keys, *args):
            raise NotLeaderError("the leader key does not hold our token")

    async def _call(self, script: str, keys: Sequence[str], *args: str | bytes | int) -> Any:
        async with self._asking(keys[0]):
            try:
                return await self._client.evalsha(self._shas[script], len(keys), *keys, *args)
            except redis.exceptions.NoScriptError:
                # The server is new to us, or was restarted. EVAL leaves the script with it.
                return await self._client.eval(script, len(keys), *keys, *args)

    async def _pubsub_client(self) -> Any:
        """A client that can subscribe: in a cluster, any one node hears every PUBLISH."""
        if not self._clustered:
            return self._client
        async with self._asking():
            await self._client.initialize()
        return client_of(self._client.get_random_node())


def _parts(answer: Any) -> list[Any]:
    """Per-node answers, whichever shape this redis-py gives them."""
    if isinstance(answer, dict):
        return list(answer.values())
    return [answer]


def _seq_bound() -> int:
    """From here on a seq is not believed."""
    return round((time.time() + SEQ_AHEAD_S) * 1_000_000)


def _parse_seq(raw: bytes | None) -> tuple[int | None, str | None]:
    """``seq token`` as ``PUBLISH`` wrote it; None for what is missing or garbage."""
    match = re.fullmatch(rb"([0-9]{1,16})(?: (.*))?", raw or b"", re.DOTALL)
    if match is None or int(match[1]) >= _seq_bound():
        return None, None
    return int(match[1]), None if match[2] is None else match[2].decode("utf-8", "replace")
