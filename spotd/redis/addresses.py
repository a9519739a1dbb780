"""Builds clients for one server, Sentinel and Cluster, from the URL of the settings."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from contextvars import ContextVar
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

from spotd.errors import SettingsError

# Short, so that after a network that swallowed packets a call is not long waited for in vain;
# connecting, with its introductions, has as long for itself.
CALL_TIMEOUT_S = 0.8
CONNECT_TIMEOUT_S = 0.5
COMMAND_TIMEOUT_S = 2.0  # of one answer to a person's command

# The limit of the call that is being made in this task.
current_limit: ContextVar[asyncio.Timeout | None] = ContextVar("limit", default=None)


async def _introduced(connection: Any) -> None:
    """Log in and select the database; from then on the call has its whole time."""
    await connection.on_connect()
    limit = current_limit.get()
    if limit is not None:
        with suppress(RuntimeError):  # it expires at this moment
            limit.reschedule(asyncio.get_running_loop().time() + CALL_TIMEOUT_S)


# Without the two round trips in which redis-py tells its own name and version.
_NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(aioredis.Redis.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)
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


def client_of(node: ClusterNode) -> Any:
    """A client of one node of a cluster, such as can subscribe."""
    kwargs = {k: v for k, v in node.connection_kwargs.items() if k in _NODE_OPTIONS}
    return aioredis.Redis(host=node.host, port=int(node.port), **kwargs, **_limits(None))


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
