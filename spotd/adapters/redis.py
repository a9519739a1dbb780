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
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot

from spotd.errors import NotLeaderError, RedisUnavailableError, SettingsError
from spotd.keys import Keys

# Short, so that after a network that swallowed packets a call is not long waited for in vain;
# connecting, with its introductions, has as long for itself.
CALL_TIMEOUT_S = 0.8
CONNECT_TIMEOUT_S = 0.5
COMMAND_TIMEOUT_S = 2.0  # of one answer to a person's command
MAX_UPDATES_PER_CALL = 500  # so that the server is never held for more than about 2 ms
SCAN_ABOVE = 2_000  # a larger demand is read in slices: neither we nor the server are held long
SCAN_COUNT = 500
# A seq is microseconds since 1970 or little above: one of a farther future is no seq of ours.
SEQ_AHEAD_S = 366 * 86_400
WAKE_SILENCE_S = 10.0  # then the connection is tried with a ping, which has as long to be answered

# A hash of ours that is none was written by somebody else: it is replaced.
_MEND = """
local kind = redis.call('TYPE', KEYS[2]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[2]) end
"""
# KEYS leader last seq; ARGV token channel-prefix highest-seq too-high-a-seq lines. A line is the
# JSON of one update, which begins {"symbol":"SPY": one argument for all costs the client far less
# than two for each. The hash is written in steps, because unpack has a limit.
# What is not newer than what was published was under way for too long. Kept first: a server that
# is out of memory then publishes nothing, instead of the same again and again.
_PUBLISH = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
local seq = redis.pcall('GET', KEYS[3])
local highest = type(seq) == 'string' and tonumber(string.match(seq, '^%d+'))
if highest and highest < tonumber(ARGV[4]) and highest >= tonumber(ARGV[3]) then return 0 end
local lines, from, fields, n = ARGV[5], 1, {{}}, 0
while true do
  local to = string.find(lines, '\\n', from, true)
  if not to then break end
  local json = string.sub(lines, from, to - 1)
  fields[n + 1] = string.match(json, '^"([^"]*)"', 11)
  fields[n + 2] = json
  n = n + 2
  from = to + 1
end
{_MEND}
for i = 1, n, 1000 do redis.call('HSET', KEYS[2], unpack(fields, i, math.min(i + 999, n))) end
redis.call('SET', KEYS[3], ARGV[3] .. ' ' .. ARGV[1])
for i = 1, n, 2 do redis.call('PUBLISH', ARGV[2] .. fields[i], fields[i + 1]) end
return 1
"""
# KEYS leader states; ARGV token events-channel, how many removed, the removed, then field json …
_WRITE_STATES = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
{_MEND}
local first = 4 + tonumber(ARGV[3])
for i = 4, first - 1 do redis.call('HDEL', KEYS[2], ARGV[i]) end
for i = first, #ARGV, 2 do
  redis.call('HSET', KEYS[2], ARGV[i], ARGV[i + 1])
  redis.call('PUBLISH', ARGV[2], ARGV[i + 1])
end
return 1
"""
# KEYS leader status; ARGV token ttl-ms json events-channel-or-empty
_WRITE_STATUS = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[3], 'PX', ARGV[2])
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], ARGV[3]) end
return 1
"""
# KEYS leader hash; ARGV token field …
_DROP_FIELDS = f"""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
{_MEND}
redis.call('HDEL', KEYS[2], unpack(ARGV, 2))
return 1
"""
# KEYS leader seq; ARGV token ttl-ms former-token. Gives 0 another's, 1 renewed, 2 acquired; and
# the seq. Renewed with SET, which fails where publishing would fail too: out of memory.
_LEAD = """
local held = redis.call('GET', KEYS[1])
local seq = redis.pcall('GET', KEYS[2])
if type(seq) ~= 'string' then seq = false end
if held and held ~= ARGV[1] and held ~= ARGV[3] then return {0, seq} end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
if held == ARGV[1] then return {1, seq} end
return {2, seq}
"""
# KEYS leader status; ARGV token
_RELEASE = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1], KEYS[2])
return 1
"""


class RefusedError(RedisUnavailableError):
    """Redis works, and refuses this: asking again does not help until somebody changes it."""


class WrongTypeError(RefusedError):
    """A key holds something of another type than it should."""


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
                _PUBLISH, _WRITE_STATES, _WRITE_STATUS, _DROP_FIELDS, _LEAD, _RELEASE,
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
                async with _translated():  # without a limit: no news is no failure
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
            _LEAD, (self.keys.leader, self.keys.seq), token, round(ttl_s * 1000), former
        )
        return LeaseAnswer(granted > 0, granted == 2, *_parse_seq(seq))

    async def release(self, token: str) -> bool:
        """Delete the leader key and the status, if we hold the key."""
        return bool(await self._call(_RELEASE, (self.keys.leader, self.keys.status), token))

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
            _PUBLISH,
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
            _WRITE_STATES,
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
            _WRITE_STATUS,
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
        for start in range(0, len(names), MAX_UPDATES_PER_CALL):
            await self._fenced(
                _DROP_FIELDS,
                (self.keys.leader, self.keys.last),
                token,
                *names[start : start + MAX_UPDATES_PER_CALL],
            )

    # Calls

    @asynccontextmanager
    async def _asking(self, key: str = "a key") -> AsyncIterator[None]:
        """One call, or a few: limited in all, and errors translated.

        What has to be connected first has one limit for that, and then another for the call.

        The limit is ours because redis-py's own uses wait_for, which in Python 3.11 may swallow
        a cancellation: a loop that was told to end would go on.
        """
        async with _translated(key), asyncio.timeout(self._limit_s) as limit:
            outer = _limit.get()
            _limit.set(limit)
            try:
                yield
            finally:
                _limit.set(outer)

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
        node = self._client.get_random_node()
        kwargs = {k: v for k, v in node.connection_kwargs.items() if k in _NODE_OPTIONS}
        return aioredis.Redis(host=node.host, port=node.port, **kwargs, **_limits(None))


# The limit of the call that is being made in this task.
_limit: ContextVar[asyncio.Timeout | None] = ContextVar("limit", default=None)


async def _introduced(connection: Any) -> None:
    """Log in and select the database; from then on the call has its whole time."""
    await connection.on_connect()
    limit = _limit.get()
    if limit is not None:
        with suppress(RuntimeError):  # it expires at this moment
            limit.reschedule(asyncio.get_running_loop().time() + CALL_TIMEOUT_S)


# Without the two round trips in which redis-py tells its own name and version.
_NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(aioredis.Redis.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
_MAX_WORDS = 180

_NODE_OPTIONS = ("username", "password", "ssl", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile")


def connect(url: str, *, call_timeout_s: float | None = COMMAND_TIMEOUT_S) -> Any:
    """A client for any of the URL forms of SPOTD_REDIS_URL.

    ``redis+sentinel://[user:password@]host:port,host:port/service[/db]`` asks Sentinels for the
    master; ``redis+cluster://[user:password@]host:port,…`` is a cluster; ``rediss+…`` uses TLS.
    Query parameters go to the connection (``ssl_ca_certs=…``; ``sentinel_username=…`` and
    ``sentinel_password=…`` to the Sentinels). Raises SettingsError for a URL that is none.
    """
    scheme = url.partition("://")[0]
    limits = _limits(call_timeout_s)
    try:
        if scheme.endswith("+sentinel"):
            return _sentinel(url, limits)
        if scheme.endswith("+cluster"):
            return _cluster(url, limits)
        if scheme == "unix":
            del limits["socket_keepalive"]
        return _checked(aioredis.Redis.from_url(url, **limits))
    except (ValueError, TypeError, redis.exceptions.RedisError) as error:
        raise SettingsError(f"SPOTD_REDIS_URL: {type(error).__name__}, see the README") from None


def _limits(call_timeout_s: float | None) -> dict[str, Any]:
    return {
        "socket_timeout": call_timeout_s,
        "socket_connect_timeout": CONNECT_TIMEOUT_S,
        "socket_keepalive": True,
        # With version 3 redis-py hands out idle connections that the server closed long ago.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": _introduced,
        **_NAMELESS,
    }


def _nodes(url: str, default_port: int) -> tuple[list[tuple[str, int]], list[str], dict[str, Any]]:
    """Hosts, path parts and connection options of a URL with several hosts."""
    scheme, _, rest = url.partition("://")
    authority, tail = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    split = urlsplit(f"//x{tail}")
    options: dict[str, Any] = {
        name: URL_QUERY_ARGUMENT_PARSERS.get(name, str)(value)
        for name, value in parse_qsl(split.query)
    }
    if username:
        options["username"] = unquote(username)
    if password:
        options["password"] = unquote(password)
    if scheme.startswith("rediss"):
        options["ssl"] = True
    nodes = []
    for host in hosts.split(","):
        parts = urlsplit(f"//{host}")
        if not parts.hostname:
            raise ValueError("no host")
        nodes.append((parts.hostname, parts.port or default_port))
    return nodes, [part for part in split.path.split("/") if part], options


def _sentinel(url: str, limits: dict[str, Any]) -> Any:
    nodes, path, options = _nodes(url, 26379)
    if not path:
        raise ValueError("no service name")
    for_sentinel = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in [name for name in options if name.startswith("sentinel_")]
    }
    if options.get("ssl"):
        for_sentinel["ssl"] = True
        for_sentinel |= {k: v for k, v in options.items() if k.startswith("ssl_")}
    database = int(path[1]) if len(path) > 1 else 0
    sentinel: Any = Sentinel(  # type: ignore[no-untyped-call]
        nodes, sentinel_kwargs={**for_sentinel, **limits}
    )
    for asked in sentinel.sentinels:
        _checked(asked)
    return _checked(
        sentinel.master_for(path[0], redis_class=_ThroughSentinel, db=database, **options, **limits)
    )


class _ThroughSentinel(aioredis.Redis):
    """A client that closes, with its own connections, those to the Sentinels."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for asked in pool.sentinel_manager.sentinels:
            await asked.aclose()


def _cluster(url: str, limits: dict[str, Any]) -> Any:
    nodes, _, options = _nodes(url, 6379)
    del limits["redis_connect_func"]  # the cluster's client has one of its own
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in nodes],
        **options,
        **(limits | {"retry": Retry(NoBackoff(), 1)}),  # 1: a moved slot is followed
    )


def _checked(client: Any) -> Any:
    """The client. Raises TypeError now, not at its first call, where an option is none."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def _parts(answer: Any) -> list[Any]:
    """Per-node answers, whichever shape this redis-py gives them."""
    if isinstance(answer, dict):
        return list(answer.values())
    return [answer]


def _seq_bound() -> int:
    """From here on a seq is not believed."""
    return round((time.time() + SEQ_AHEAD_S) * 1_000_000)


def _parse_seq(raw: bytes | None) -> tuple[int | None, str | None]:
    """``seq token`` as ``_PUBLISH`` wrote it; None for what is missing or garbage."""
    match = re.fullmatch(rb"([0-9]{1,16})(?: (.*))?", raw or b"", re.DOTALL)
    if match is None or int(match[1]) >= _seq_bound():
        return None, None
    return int(match[1]), None if match[2] is None else match[2].decode("utf-8", "replace")


@asynccontextmanager
async def _translated(key: str = "a key") -> AsyncIterator[None]:
    """Foreign errors become ours. Their texts are redis' own: host and port, no password."""
    try:
        yield
    except redis.exceptions.ResponseError as error:
        words = _words(error)
        if words.startswith("WRONGTYPE"):
            raise WrongTypeError(f"Redis: {key} is of the wrong type") from error
        if isinstance(error, redis.exceptions.NoPermissionError) or words.startswith("ACL "):
            raise RefusedError(f"Redis refused: {words}") from error
        raise RedisUnavailableError(f"Redis answered with an error: {words}") from error
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException) as error:
        raise RedisUnavailableError(f"Redis: {_words(error)}") from error
    except (TimeoutError, OSError) as error:
        raise RedisUnavailableError(f"Redis: {type(error).__name__}") from error


def _words(error: Exception) -> str:
    """Redis' own words, without the arguments it repeats: those of AUTH and HELLO are secret."""
    return str(error).partition(", with args")[0][:_MAX_WORDS]
