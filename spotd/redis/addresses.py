"""Redis addresses: which URLs are valid, the client that one describes, and its secrets.

Shared by daemon and client. Builds clients of redis-py; sends nothing itself. Must not read
settings, and must not return a text for people that holds a password.

``redis://`` and ``rediss://`` (TLS) name one server, ``unix://`` a socket.
``redis+sentinel://[user:password@]host:port,host:port/service[/db]`` asks Sentinels for the
master, ``redis+cluster://[user:password@]host:port,…`` names nodes of a cluster, and ``rediss+…``
uses TLS. Query parameters are options of the connection (``ssl_ca_certs=…``), those that begin
with ``sentinel_`` are options of the connections to the Sentinels.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from inspect import signature
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel
from redis.backoff import NoBackoff
from redis.crc import key_slot

from spotd.errors import SettingsError
from spotd.keys import Keys

SCHEMES = (
    "redis",
    "rediss",
    "unix",
    "redis+sentinel",
    "rediss+sentinel",
    "redis+cluster",
    "rediss+cluster",
)

CONNECT_TIMEOUT_S = 0.5
COMMAND_TIMEOUT_S = 2.0  # of one answer to a person's command
# Sentinels are asked one after the other. A dead one must leave time for the next.
_SENTINEL_TIMEOUT_S = 1.0

_SENTINEL_PORT, _REDIS_PORT = 26379, 6379

# This is called once a new connection has logged in and selected its database. The daemon's port
# sets it in the task that makes a call, in order to give the call its whole time again.
after_login: ContextVar[Callable[[], None] | None] = ContextVar("after_login", default=None)


# Addresses as text


class _Hosts(NamedTuple):
    """A URL that names several hosts, taken apart."""

    nodes: list[tuple[str, int]]
    path: list[str]
    options: dict[str, Any]


def check_address(url: str) -> None:
    """Raise ValueError, with words that hold no part of ``url``, where it is no Redis address."""
    scheme, found, _ = url.partition("://")
    if not found or scheme not in SCHEMES:
        raise ValueError(f"must start with one of {', '.join(f'{s}://' for s in SCHEMES)}")
    try:
        if "+" not in scheme:
            parts = urlsplit(url)
            _ = parts.port  # raises ValueError where it is not a number
            hosts = [parts.netloc or scheme == "unix"]
            if scheme != "unix":  # whose path is that of the socket
                _check_database(parts.path.removeprefix("/"))
        else:
            named = _hosts_of(url)
            hosts = [host for host, _ in named.nodes]
            if scheme.endswith("+sentinel"):
                _service_of(named)
            else:
                _check_database("/".join(named.path))
    except _UnnamedServiceError:
        raise ValueError("names no service: …://host:port/service") from None
    except _WrongDatabaseError:
        raise ValueError("names a database that is no number") from None
    except ValueError:  # its text would quote the URL
        raise ValueError("is not a valid URL") from None
    if not all(hosts):
        raise ValueError("names no host")


def secrets_in(url: str) -> list[str]:
    """Return every form in which a password of ``url`` may appear in a text. Raises nothing."""
    before, _, query = url.partition("?")
    rest = before.partition("://")[2]
    secrets = []
    # A password that is not quoted may hold a slash; the path of a socket may hold an @.
    for part in (rest.partition("/")[0], rest if not rest.startswith("/") else ""):
        written = part.rpartition("@")[0].partition(":")[2]
        secrets += [written, unquote(written)]
    for option, value in parse_qsl(query):
        if "password" in option:
            secrets += [value, quote(value), quote_plus(value)]
    return list(dict.fromkeys(filter(None, secrets)))


def without_secrets(url: str) -> str:
    """Return ``url`` without what may hold a password: its user part and its query."""
    return re.sub(r"^([^/]*://)[^/].*@", r"\1", url.partition("?")[0], flags=re.DOTALL)


class _UnnamedServiceError(ValueError):
    pass


class _WrongDatabaseError(ValueError):
    pass


def _service_of(named: _Hosts) -> tuple[str, int]:
    """Return Sentinel's service and the number of the database. Raises ValueError."""
    if not named.path:
        raise _UnnamedServiceError
    service, *database = named.path
    _check_database("/".join(database))
    return service, int(database[0]) if database else 0


def _check_database(text: str) -> None:
    """Raise ValueError where this is no number of a database. redis-py would take 0 instead."""
    if not re.fullmatch(r"[0-9]*/?", text):
        raise _WrongDatabaseError


def _hosts_of(url: str) -> _Hosts:
    """Return the parts of a URL that names several hosts. Raises ValueError."""
    scheme, _, rest = url.partition("://")
    authority, tail = re.fullmatch(r"([^/?]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    credentials, _, hosts = authority.rpartition("@")
    username, _, password = credentials.partition(":")
    split = urlsplit(f"//x{tail}")
    default_port = _SENTINEL_PORT if scheme.endswith("+sentinel") else _REDIS_PORT
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
        nodes.append((parts.hostname or "", parts.port or default_port))
    return _Hosts(nodes, [part for part in split.path.split("/") if part], options)


# Clients


def connect(
    url: str,
    *,
    name: str = "the Redis address",
    connect_timeout_s: float = CONNECT_TIMEOUT_S,
    answer_timeout_s: float | None = COMMAND_TIMEOUT_S,
) -> Any:
    """Return a client for ``url``, with bytes as replies. Nothing is sent yet.

    ``connect_timeout_s`` limits each TCP connection, ``answer_timeout_s`` each answer; None: the
    caller limits its calls. The client does not retry: a reconnection that nobody sees would hide
    that messages were missed. Raises SettingsError, which begins with ``name``.
    """
    limits = {
        "socket_timeout": answer_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        "socket_keepalive": True,
        # With version 3 redis-py hands out idle connections that the server closed long ago.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": _log_in,
        **_NAMELESS,
    }
    try:
        check_address(url)
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from None
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith("+sentinel"):
            return _through_sentinel(_hosts_of(url), limits)
        if scheme.endswith("+cluster"):
            return _cluster(_hosts_of(url), limits)
        if scheme == "unix":
            del limits["socket_keepalive"]
        return _checked(aioredis.Redis.from_url(url, **limits))
    except (ValueError, TypeError, redis.exceptions.RedisError):
        # The error is not chained: it may quote the wrong part, and so perhaps the password.
        raise SettingsError(f"{name} has an option or a value that redis-py refuses") from None


async def _log_in(connection: Any) -> None:
    await connection.on_connect()
    then = after_login.get()
    if then is not None:
        then()


# This saves the two round trips in which redis-py tells the server its own name and version.
_NAMELESS: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in signature(aioredis.Redis.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


def _through_sentinel(named: _Hosts, limits: dict[str, Any]) -> Any:
    service, database = _service_of(named)
    options = named.options
    for_sentinel = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in [name for name in options if name.startswith("sentinel_")]
    }
    if options.get("ssl"):
        for_sentinel["ssl"] = True
        for_sentinel |= {k: v for k, v in options.items() if k.startswith("ssl_")}
    for_sentinel |= limits | {
        option: min(limits[option], _SENTINEL_TIMEOUT_S)
        for option in ("socket_connect_timeout", "socket_timeout")
        if limits[option] is not None
    }
    sentinel: Any = Sentinel(named.nodes, sentinel_kwargs=for_sentinel)  # type: ignore[no-untyped-call]
    for asked in sentinel.sentinels:
        _checked(asked)
    return _checked(
        sentinel.master_for(service, redis_class=_ThroughSentinel, db=database, **options, **limits)
    )


class _ThroughSentinel(aioredis.Redis):
    """A client that closes, with its own connections, those to the Sentinels."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await super().aclose(close_connection_pool)
        pool: Any = self.connection_pool
        for asked in pool.sentinel_manager.sentinels:
            await asked.aclose()


def _cluster(named: _Hosts, limits: dict[str, Any]) -> Any:
    del limits["redis_connect_func"]  # the cluster's client has one of its own
    return RedisCluster(
        startup_nodes=[ClusterNode(host, port) for host, port in named.nodes],
        **named.options,
        **(limits | {"retry": Retry(NoBackoff(), 1)}),  # 1: a slot that moved is followed
    )


def _checked(client: Any) -> Any:
    """Return the client. Raises TypeError for a wrong option now, not at the first call."""
    pool = client.connection_pool
    pool.connection_class(**pool.connection_kwargs)
    return client


def is_cluster(client: Any) -> bool:
    """Return whether this is the client of a cluster."""
    return isinstance(client, RedisCluster)


def check_prefix(client: Any, keys: Keys, name: str) -> None:
    """Raise SettingsError, which begins with ``name``, where a cluster would scatter the keys.

    The scripts of the daemon need all their keys in one slot.
    """
    names = (keys.leader, keys.seq, keys.last, keys.states, keys.status)
    if is_cluster(client) and len({key_slot(key.encode()) for key in names}) > 1:
        raise SettingsError(f"{name} must hold a hash tag in a cluster, for example {{spotd}}:")


async def pubsub_of(client: Any) -> PubSub:
    """Return a subscriber. The caller closes it by ``aclose``. Raises redis-py's own errors.

    Each node of a cluster receives every PUBLISH. As a consequence, any one node will do there.
    """
    if not is_cluster(client):
        return client.pubsub()  # type: ignore[no-any-return]
    await client.initialize()
    node = client.get_random_node()
    options = node.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
    return _NodePubSub(ConnectionPool(connection_class=node.connection_class, **options))


class _NodePubSub(PubSub):
    """A subscriber of one node, with a connection pool of its own that it closes too."""

    async def aclose(self) -> None:
        await super().aclose()  # type: ignore[no-untyped-call]
        await self.connection_pool.aclose()


# Clients as text


def place_of(client: Any) -> str:
    """Return where a client connects, for people: ``host:port/db``, ``path/db``, ``service/db``."""
    if is_cluster(client):
        return f"the cluster of {min(client.nodes_manager.startup_nodes, default='no node')}"
    where = client.connection_pool.connection_kwargs
    # Behind Sentinel the host may be another one at each connection.
    service = getattr(client.connection_pool, "service_name", None)
    host = service or where.get("path") or f"{where.get('host')}:{where.get('port', _REDIS_PORT)}"
    return f"{host}/{where.get('db') or 0}"


def passwords_of(client: Any) -> list[str]:
    """Return the passwords with which a client logs in, at Redis and at the Sentinels."""
    if is_cluster(client):
        options = [client.connection_kwargs]
    else:
        pool = client.connection_pool
        sentinel = getattr(pool, "sentinel_manager", None)
        options = [pool.connection_kwargs, getattr(sentinel, "sentinel_kwargs", {})]
    return [str(each["password"]) for each in options if each.get("password")]
