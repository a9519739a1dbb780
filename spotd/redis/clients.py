"""The client of Redis that an address describes: how it connects, and where, as text for people.

Shared by daemon and client. Builds clients of redis-py; sends nothing itself. Must not read
settings, and must not return a text for people that holds a password.
"""

from __future__ import annotations

from typing import Any

import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.connection import (
    Connection,
    ConnectionPool,
    SSLConnection,
    UnixDomainSocketConnection,
    parse_url,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.errors import SettingsError
from spotd.keys import Keys
from spotd.redis.addresses import REDIS_PORT, Hosts, check_address, hosts_of, service_of
from spotd.redis.cluster import ClusterClient, NodePubSub
from spotd.redis.connections import TcpConnection, TlsConnection, UnixConnection, log_in
from spotd.redis.master import Master
from spotd.redis.sentinel import SentinelMaster
from spotd.redis.tries import TRY_S

COMMAND_TIMEOUT_S = 2.0  # of one answer to a person's command


def connect(
    url: str,
    *,
    name: str = "the Redis address",
    connect_timeout_s: float = TRY_S,
    answer_timeout_s: float | None = COMMAND_TIMEOUT_S,
) -> Any:
    """Return a client for ``url``, with bytes as replies. Nothing is sent yet.

    ``connect_timeout_s`` limits each try to connect, ``answer_timeout_s`` each answer; None: the
    caller limits its calls. Options in the URL count before these. The client does not retry: a
    reconnection that nobody sees would hide that messages were missed. Raises SettingsError, which
    begins with ``name``.
    """
    limits: dict[str, Any] = {
        "socket_timeout": answer_timeout_s,
        "socket_connect_timeout": connect_timeout_s,
        # With version 3 redis-py hands out idle connections that the server closed long ago.
        "protocol": 2,
        "retry": Retry(NoBackoff(), 0),
        "redis_connect_func": log_in,
    }
    try:
        check_address(url)
    except ValueError as error:
        raise SettingsError(f"{name} {error}") from None
    scheme = url.partition("://")[0]
    try:
        if scheme.endswith("+cluster"):
            return _cluster(hosts_of(url), limits)
        if scheme.endswith("+sentinel"):
            return _through_sentinel(hosts_of(url), limits)
        return _one_server(dict(parse_url(url)), limits)
    except (ValueError, TypeError, redis.exceptions.RedisError):
        # The error is not chained: it may quote the wrong part, and so perhaps the password.
        raise SettingsError(f"{name} has an option or a value that redis-py refuses") from None


def _one_server(named: dict[str, Any], limits: dict[str, Any]) -> Any:
    options = limits | named
    kind = _CONNECTIONS[options.pop("connection_class", Connection)]
    if kind is UnixConnection:
        where: tuple[str, int] = (options["path"], 0)
    else:
        where = (options.get("host", "localhost"), options.get("port", REDIS_PORT))
    answer_s = _answer_s(options, limits)
    master = Master(*where, try_s=options["socket_connect_timeout"], answer_s=answer_s)
    return _client(kind, master, options)


def _through_sentinel(named: Hosts, limits: dict[str, Any]) -> Any:
    service, database = service_of(named)
    options = dict(named.options)
    for_sentinel = {
        name.removeprefix("sentinel_"): options.pop(name)
        for name in [name for name in options if name.startswith("sentinel_")]
    }
    # What is said of connections is meant for those to the Sentinels, too.
    shared = {k: v for k, v in options.items() if k.startswith(("ssl_", "socket_"))}
    kind = TlsConnection if options.pop("ssl", False) else TcpConnection
    for_sentinel = limits | shared | for_sentinel
    options = limits | {"db": database} | options
    answer_s = _answer_s(options, limits)
    _answer_s(for_sentinel, limits)  # a try limits the question to a Sentinel
    sentinels = [
        _client(
            kind,
            Master(host, port, try_s=for_sentinel["socket_connect_timeout"]),
            for_sentinel | {"host": host, "port": port},
        )
        for host, port in named.nodes
    ]
    try_s = options["socket_connect_timeout"]
    master = SentinelMaster(service, sentinels, try_s=try_s, answer_s=answer_s)
    return _client(kind, master, options)


def _answer_s(options: dict[str, Any], limits: dict[str, Any]) -> float | None:
    """Take the limit of an answer out of the options, where the caller limits its calls."""
    if limits["socket_timeout"] is not None:
        return None
    answer_s: float | None = options["socket_timeout"]
    options["socket_timeout"] = None
    return answer_s


_CONNECTIONS: dict[Any, Any] = {
    Connection: TcpConnection,
    SSLConnection: TlsConnection,
    UnixDomainSocketConnection: UnixConnection,
}


class _Client(aioredis.Redis):
    """A client that ends what its master began, too."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        await self.connection_pool.connection_kwargs["master"].aclose()
        await super().aclose(close_connection_pool)


def _client(kind: Any, master: Master, options: dict[str, Any]) -> Any:
    kind(master=master, **_of_connection(options))  # raises TypeError for a wrong option now
    return _Client.from_pool(ConnectionPool(connection_class=kind, master=master, **options))


def _of_connection(options: dict[str, Any]) -> dict[str, Any]:
    of_pool = {"max_connections"}
    return {name: value for name, value in options.items() if name not in of_pool}


def master_of(client: Any) -> Master | None:
    """Return what finds the server of a client that ``connect`` made, None for another client."""
    if isinstance(client, RedisCluster):
        return None
    master = client.connection_pool.connection_kwargs.get("master")
    return master if isinstance(master, Master) else None


def drop_foreign(client: Any) -> None:
    """Close all connections of a client of one server that ``connect`` did not make."""
    pool = client.connection_pool
    for connection in pool._in_use_connections:
        if connection._writer is not None:
            connection._writer.transport.abort()
    for connection in pool._available_connections:
        connection._close()  # with version 3 its end alone would not be noticed at its next use


def _cluster(named: Hosts, limits: dict[str, Any]) -> Any:
    return ClusterClient(named.nodes, **(limits | named.options))


def is_cluster(client: Any) -> bool:
    """Return whether this is the client of a cluster, ours or redis-py's."""
    return isinstance(client, ClusterClient | RedisCluster)


def check_prefix(client: Any, keys: Keys, name: str) -> None:
    """Tell a cluster's client in which slot the keys are.

    Raises SettingsError, which begins with ``name``, where a cluster would scatter them: the
    scripts of the daemon need all their keys in one slot.
    """
    names = (keys.leader, keys.seq, keys.last, keys.states, keys.status)
    slots = {key_slot(key.encode()) for key in names}
    if is_cluster(client) and len(slots) > 1:
        raise SettingsError(f"{name} must hold a hash tag in a cluster, for example {{spotd}}:")
    if isinstance(client, ClusterClient):
        client.serve(slots.pop())


async def pubsub_of(client: Any) -> PubSub:
    """Return a subscriber. The caller closes it by ``aclose``. Raises redis-py's own errors.

    Each node of a cluster receives every PUBLISH. As a consequence, any one node will do there.
    """
    if isinstance(client, ClusterClient):
        return await client.pubsub_anywhere()
    if not isinstance(client, RedisCluster):
        return client.pubsub()  # type: ignore[no-any-return]
    await client.initialize()
    node = client.get_random_node()
    options = node.connection_kwargs | {"retry": Retry(NoBackoff(), 0)}
    return NodePubSub(ConnectionPool(connection_class=node.connection_class, **options))


async def check_listed(client: Any, pubsub: PubSub) -> None:
    """Raise redis-py's ConnectionError where the node of a subscriber has left its cluster.

    Such a node goes on to answer, and hears nothing any more.
    """
    if isinstance(client, ClusterClient) and not await client.is_listed(pubsub):
        raise RedisConnectionError("the node has left the cluster")


# Clients as text


def place_of(client: Any) -> str:
    """Return where a client connects, for people: ``host:port/db``, ``path/db``.

    Behind Sentinel it is ``service/db``, with the address of the master that was named last.
    """
    if isinstance(client, ClusterClient):
        return "the cluster of {}:{}".format(*min(client.addresses))
    if isinstance(client, RedisCluster):
        return f"the cluster of {min(client.nodes_manager.startup_nodes, default='no node')}"
    where, master = client.connection_pool.connection_kwargs, master_of(client)
    if isinstance(master, SentinelMaster):
        at = "" if master.address is None else f" at {master.address[0]}:{master.address[1]}"
        return f"{master.service}/{where.get('db') or 0}{at}"
    host = where.get("path") or f"{where.get('host')}:{where.get('port', REDIS_PORT)}"
    return f"{host}/{where.get('db') or 0}"


def passwords_of(client: Any) -> list[str]:
    """Return the secrets with which a client logs in, at Redis and at the Sentinels."""
    if isinstance(client, RedisCluster):
        options = [client.connection_kwargs]
    else:
        options = [client.connection_pool.connection_kwargs]
        master = master_of(client)
        if isinstance(master, SentinelMaster):
            options += [each.connection_pool.connection_kwargs for each in master.sentinels]
    secrets = [str(each[name]) for each in options for name in _SECRETS if each.get(name)]
    return list(dict.fromkeys(secrets))


_SECRETS = ("password", "ssl_password")
