"""The client's way to Redis: addresses, limits, and one border for foreign errors.

Must not know what is read or written. No text that leaves here holds a password.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from spotd.errors import RedisUnavailableError, SettingsError

# What redis-py lets through when Redis does not answer, or answers with an error.
FAILURES = (RedisError, RedisClusterException, OSError)

_ANSWERS = (ResponseError, AuthenticationError, AuthorizationError)
_COMMAND_LIMIT_S = 5.0
_SCHEMES = ("redis://", "rediss://", "unix://")
_TOPOLOGIES = ("redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster")


def connect(url: str) -> Redis:
    """A connection pool with the client's limits; nothing is sent yet. Raises SettingsError."""
    scheme = url.partition("://")[0]
    if scheme in _TOPOLOGIES:
        raise SettingsError(
            f"{scheme}:// is not read by the client: give it one node by redis://, rediss:// or "
            "unix://, or hand it a redis.asyncio.Redis of your own as `redis=`"
        )
    if not url.startswith(_SCHEMES):
        raise SettingsError(f"the Redis address must start with one of {', '.join(_SCHEMES)}")
    try:
        return Redis.from_url(
            url,
            protocol=2,  # pub/sub needs nothing of RESP3, and every server speaks 2
            socket_connect_timeout=_COMMAND_LIMIT_S,
            socket_timeout=_COMMAND_LIMIT_S,
            **({} if scheme == "unix" else {"socket_keepalive": True}),
            # With retries, redis-py reconnects and resubscribes unseen: a gap nobody fills.
            retry=Retry(NoBackoff(), 0),
        )
    except (ValueError, TypeError):
        # Not chained: urllib's complaint quotes the address, and so perhaps the password.
        raise SettingsError("the Redis address is not a valid URL") from None


def answered(error: BaseException | None) -> bool:
    """Whether an error, or one it came from, is Redis' own answer: then Redis is there."""
    while error is not None:
        if isinstance(error, _ANSWERS):
            return True
        error = error.__cause__ or error.__context__
    return False


def place_of(redis: Redis) -> str:
    """Where a pool leads, for people: ``host:port/db`` or ``path/db``, never a password."""
    pool = getattr(redis, "connection_pool", None)
    if pool is None:
        return "the cluster"  # has a pool per node
    where = pool.connection_kwargs
    service = getattr(pool, "service_name", None)  # Sentinel knows the host, not we
    host = service or where.get("path") or f"{where.get('host')}:{where.get('port', 6379)}"
    return f"{host}/{where.get('db') or 0}"


def reason_of(redis: Redis, error: BaseException) -> str:
    """What a foreign error says, on one line and without the password; or what it is."""
    text = " ".join(str(error).split())
    password = _password(redis)
    return (text.replace(password, "***") if password else text) or type(error).__name__


@contextmanager
def translated(redis: Redis) -> Iterator[None]:
    """Turn what redis-py raises into RedisUnavailableError."""
    try:
        yield
    except FAILURES as error:
        told = f"Redis at {place_of(redis)}: {reason_of(redis, error)}"
        # A server that does not know AUTH quotes what it was sent; then a chain would tell.
        password = _password(redis)
        quoted = bool(password) and password in str(error)
        raise RedisUnavailableError(told) from (None if quoted else error)


def _password(redis: Redis) -> str:
    # A cluster's client has a pool per node, and keeps the options of all itself.
    owner: Any = getattr(redis, "connection_pool", redis)
    return str(owner.connection_kwargs.get("password") or "")
