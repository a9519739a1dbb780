"""A client of a Redis cluster: one connection pool to the node that owns the slot of our keys.

Talks to Redis. ``cluster_nodes`` decides which node that is, and whom to ask for it.

redis-py's RedisCluster is not used here: it waits for each node that hangs, it learns of a
promotion only from an answer, and it forgets the addresses that it was given. It is still accepted
from a program that brings its own client.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import redis.asyncio as aioredis
from redis.asyncio.client import PubSub
from redis.asyncio.connection import ConnectionPool
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MovedError,
    RedisClusterException,
    RedisError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from spotd.redis.cluster_nodes import Address, ClusterNodes, SlotRange
from spotd.redis.connections import TcpConnection, TlsConnection
from spotd.redis.dial import Connect, Discard, dial, first_answer
from spotd.redis.master import Master

_REDIRECTIONS = 4  # of one call, while slots move from node to node
_OVERDUE_S = 0.3  # an owner that has not answered by then may hang: the others are asked
_ASK_AGAIN_S = 0.2  # the pause between two such questions
_ANSWER_LIMIT_S = 0.5  # of one node, where all are asked

_REPLACED = "another node owns the slot now"

T = TypeVar("T")

_FAILURES = (RedisError, RedisClusterException, OSError)


class ClusterClient(aioredis.Redis):
    """A client whose commands go to the owner of our slot.

    ``serve`` names the slot; without it the first MOVED does. When another node becomes the owner,
    all connections of ``master`` are closed: calls that are under way raise redis-py's
    ConnectionError, and the next ones go to the new owner.
    """

    def __init__(
        self,
        addresses: list[Address],
        *,
        ssl: bool = False,
        max_connections: int | None = None,
        redis_connect_func: Callable[..., Any] | None = None,
        **options: Any,
    ) -> None:
        self.nodes = ClusterNodes(addresses)
        self.addresses = tuple(addresses)
        self._plain_class: Any = TlsConnection if ssl else TcpConnection
        self._options = options
        self._asking: asyncio.Task[None] | None = None
        self._replacing: asyncio.Task[None] | None = None
        self._under_way: dict[asyncio.Timeout, float] = {}  # calls, and when each is overdue
        self._clients: dict[Address, aioredis.Redis] = {}
        # Tries the options now, in order to raise TypeError before the first call.
        self._plain_class(host=addresses[0][0], port=addresses[0][1], **options)
        self.master = OwnerOfSlot(self, try_s=options["socket_connect_timeout"])
        self.master.on_drop(self._end_calls)
        pool = ConnectionPool(
            connection_class=self._plain_class,
            max_connections=max_connections,
            master=self.master,
            redis_connect_func=redis_connect_func,
            **options,
        )
        super().__init__(connection_pool=pool)

    def serve(self, slot: int) -> None:
        """Take note in which slot all keys are."""
        self.nodes.slot = slot

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Close all connections, and ask no node any more."""
        await self.master.aclose()
        tasks = [task for task in (self._asking, self._replacing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().aclose(close_connection_pool)
        await self.connection_pool.aclose()
        for client in self._clients.values():
            await client.aclose()

    # Commands

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Return the owner's answer; a redirection is followed. Raises redis-py's errors."""
        for left in reversed(range(_REDIRECTIONS)):
            try:
                async with self.until_replaced():
                    return await self._at_owner(*args, **options)
            except MovedError as error:
                former = self.nodes.owner
                self.nodes.moved(error.slot_id, (error.host, error.port))
                self._leave(former)
                if not left:
                    raise
            except AskError as error:
                return await self._ask_once(error, *args, **options)
            except (ClusterDownError, RedisConnectionError, RedisTimeoutError):
                self.nodes.doubt()
                raise
            except asyncio.CancelledError:
                self.nodes.doubt()  # the caller's limit was over
                raise
        raise AssertionError("the last redirection raises")

    async def _at_owner(self, *args: Any, **options: Any) -> Any:
        return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    async def _ask_once(self, error: AskError, *args: Any, **options: Any) -> Any:
        """Return the answer of the node to which the key is being moved."""
        target: Any
        async with self._client_of((error.host, error.port)).client() as target:
            await target.execute_command("ASKING")
            return await target.execute_command(*args, **options)

    @asynccontextmanager
    async def until_replaced(self) -> AsyncIterator[None]:
        """Ask the other nodes while what is done inside is overdue.

        Raises redis-py's ConnectionError when another node has become the owner.
        """
        loop = asyncio.get_running_loop()
        limit = asyncio.timeout(None)
        self._under_way[limit] = loop.time() + _OVERDUE_S
        overdue = loop.call_later(_OVERDUE_S, self._find_replacement)
        try:
            async with limit:
                yield
        except TimeoutError:
            if limit.expired():
                raise RedisConnectionError(_REPLACED) from None
            raise
        finally:
            overdue.cancel()
            del self._under_way[limit]

    def _find_replacement(self) -> None:
        if self._replacing is None or self._replacing.done():
            self._replacing = asyncio.create_task(self._replace(), name="spotd-redis-replacement")

    async def _replace(self) -> None:
        """Ask the nodes until the owner is another one, or no call is overdue any more."""
        now = asyncio.get_running_loop().time
        owner = self.nodes.owner
        while any(now() >= overdue_at for overdue_at in self._under_way.values()):
            self.nodes.doubt()
            with suppress(*_FAILURES):
                await self._ask()
            if self.nodes.owner != owner:
                return
            await asyncio.sleep(_ASK_AGAIN_S)

    def _leave(self, former: Address | None) -> None:
        """Close all connections to a node that owns our slot no longer."""
        if former is not None and former != self.nodes.owner:
            self.master.drop(_REPLACED)

    def _end_calls(self, _: str) -> None:
        """End the calls that wait for a connection, too."""
        now = asyncio.get_running_loop().time()
        for limit in tuple(self._under_way):
            with suppress(RuntimeError):  # it expires at this moment
                limit.reschedule(now)

    # Nodes

    async def owner(self) -> Address:
        """Return the node that owns our slot. The nodes are asked where it is in doubt."""
        if self.nodes.owner is None or self.nodes.is_doubtful:
            await self._ask()
        if self.nodes.owner is None:
            raise RedisClusterException("no node owns the slot of our keys")
        return self.nodes.owner

    async def _ask(self) -> None:
        """Ask the nodes who the owner is. Raises redis-py's errors where no node can say it.

        All callers wait for the same answer. It is not given up where one of them is cancelled,
        so a network that is slower than the limit of a call needs only another call.
        """
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_any(), name="spotd-redis-cluster")
            self._asking.add_done_callback(_mark_seen)
        try:
            await asyncio.shield(self._asking)
        except TimeoutError:
            raise RedisTimeoutError("no node of the cluster answers in time") from None
        except asyncio.CancelledError:
            self.master.check_open()  # the question was cancelled by ``aclose``, not its caller
            raise

    async def _ask_any(self) -> None:
        await first_answer([_bound(self._ask_node, each) for each in self.nodes.to_ask()])

    async def _ask_node(self, asked: Address) -> None:
        connection = self._plain_class(host=asked[0], port=asked[1], **self._options)
        try:
            await connection.connect()
            await connection.send_command("CLUSTER", "SLOTS")
            ranges = _ranges(await connection.read_response())
        finally:
            await connection.disconnect(nowait=True)
        former = self.nodes.owner
        if not self.nodes.answered(asked, ranges):
            raise RedisClusterException(f"{asked[0]}:{asked[1]} knows no owner of our slot")
        self._leave(former)

    async def pubsub_anywhere(self) -> PubSub:
        """Return a subscriber of any node that answers: each receives every PUBLISH.

        The caller closes it by ``aclose``. Raises redis-py's errors.
        """
        await self.owner()
        nodes = self.nodes.to_subscribe()
        host, port = await first_answer([_bound(self._ping, node) for node in nodes])
        options = self._options | {"host": host, "port": port}
        return NodePubSub(ConnectionPool(connection_class=self._plain_class, **options))

    async def _ping(self, node: Address) -> Address:
        await self._ask_node(node)
        return node

    async def is_listed(self, subscriber: PubSub) -> bool:
        """Return whether the node of a subscriber still belongs to the cluster.

        A node that was taken out of the cluster goes on to answer, and hears nothing any more.
        Raises redis-py's errors.
        """
        await self._ask()
        where = subscriber.connection_pool.connection_kwargs
        return (where["host"], where["port"]) in self.nodes.known

    async def from_all_nodes(self, *command: str) -> list[Any]:
        """Return the answers of all nodes that answer in time, at least one.

        Raises redis-py's errors where none does.
        """
        await self.owner()
        nodes = self.nodes.known
        answers = await asyncio.gather(
            *(self._from_node(node, *command) for node in nodes), return_exceptions=True
        )
        found = [answer for answer in answers if not isinstance(answer, BaseException)]
        failure = next((each for each in answers if isinstance(each, BaseException)), None)
        if failure is not None:
            self.nodes.doubt()  # a node that is gone need not be asked again
            if not found or not isinstance(failure, (TimeoutError, *_FAILURES)):
                raise failure
        return found

    async def _from_node(self, node: Address, *command: str) -> Any:
        async with asyncio.timeout(_ANSWER_LIMIT_S):
            client: Any = self._client_of(node)
            return await client.execute_command(*command)

    def _client_of(self, node: Address) -> aioredis.Redis:
        """Return the client of one node, for what does not go to the owner."""
        client = self._clients.get(node)
        if client is None:
            options = self._options | {"host": node[0], "port": node[1]}
            pool = ConnectionPool(connection_class=self._plain_class, **options)
            client = self._clients[node] = aioredis.Redis.from_pool(pool)
        return client


class OwnerOfSlot(Master):
    """The node that owns our slot, as the nodes of the cluster name it."""

    def __init__(self, cluster: ClusterClient, *, try_s: float) -> None:
        super().__init__("", 0, try_s=try_s)
        self.address = None
        self._cluster = cluster

    async def open(self, connect: Connect[T], discard: Discard[T]) -> T:
        """Return a new connection to the owner; see ``Master.open``."""
        self.address = await self._cluster.owner()
        async with self._cluster.until_replaced():
            return await dial(*self.address, connect, discard, try_s=self.try_s)

    def answered_wrong(self, why: str) -> None:
        """Take in that the owner answered as one that takes no writes; see ``Master``."""
        self._cluster.nodes.doubt()
        super().answered_wrong(why)


class NodePubSub(PubSub):
    """A subscriber of one node, with a connection pool of its own that it closes too."""

    async def aclose(self) -> None:
        """Close it, and its pool."""
        await super().aclose()  # type: ignore[no-untyped-call]
        await self.connection_pool.aclose()


def _ranges(answer: Any) -> list[SlotRange]:
    """Return the lines of CLUSTER SLOTS. A node whose host nobody knows (``?``) is left out."""
    return [
        SlotRange(first, last, [node for node in map(_host_and_port, nodes) if node[0] != "?"])
        for first, last, *nodes in answer
    ]


def _host_and_port(node: Any) -> Address:
    host = node[0] or b""
    return host if isinstance(host, str) else host.decode(), int(node[1])


def _bound(ask: Any, address: Address) -> Any:
    return lambda: ask(address)


def _mark_seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()
