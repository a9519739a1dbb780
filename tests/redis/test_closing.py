"""A client that is closed leaves no connection open, and waits for no server that hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from spotd.keys import Keys
from spotd.redis.clients import connect
from spotd.redis.port import RedisPort
from tests.kit.servers import SentinelServers, Server, make_certificates, redis_server
from tests.kit.waiting import GUARD_S, until

needs_redis = pytest.mark.skipif(redis_server() is None, reason="redis-server is not installed")


class Gate:
    """A proxy that lets nothing pass until it is opened. ``connected`` counts what is connected."""

    def __init__(self, server_port: int) -> None:
        self.opened = asyncio.Event()
        self.accepted = 0
        self.connected = 0
        self.port = 0
        self._server_port = server_port

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Gate]:
        """Listen on ``port`` meanwhile."""
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self.connected += 1
        try:
            await self.opened.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
            answers = asyncio.create_task(_pump(there, writer))
            await _pump(reader, back)
            await answers
        finally:
            self.connected -= 1


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with closing(sink), suppress(ConnectionError):
        while data := await source.read(65_536):
            sink.write(data)


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Yield the port of a server, and the form of its address with a login before any call."""
    with Server(tmp_path / "plain") as server:
        yield server.port, "redis://127.0.0.1:{port}/1"


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Yield the same with TLS."""
    certificates = make_certificates(tmp_path)
    with Server(tmp_path / "tls", binary=redis_server(), tls=certificates) as server:
        yield server.port, f"rediss://127.0.0.1:{{port}}?ssl_ca_certs={certificates[0]}"


@pytest.fixture
def sentinel(sentinels: SentinelServers) -> tuple[int, str]:
    """Return the same of a Sentinel."""
    return sentinels.sentinel.port, "redis+sentinel://127.0.0.1:{port}/prices"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[tuple[int, str]]:
    """Yield the same of a node of a cluster. No slot is served, and nobody is told so here."""
    with Server(tmp_path / "node", "--cluster-enabled", "yes") as server:
        yield server.port, "redis+cluster://127.0.0.1:{port}"


@pytest.mark.parametrize(
    "where", ["plain", pytest.param("tls", marks=needs_redis), "sentinel", "node"]
)
async def test_a_call_that_connects_while_its_client_is_closed_fails(
    where: str, request: pytest.FixtureRequest
) -> None:
    """It raises an error of the network, and neither its connection nor a task is left behind."""
    server_port, address = request.getfixturevalue(where)
    async with Gate(server_port).listening() as gate:
        client = connect(address.format(port=gate.port))
        call = asyncio.ensure_future(client.get("key"))
        await until(lambda: gate.accepted, "a connection")
        await client.aclose()
        gate.opened.set()
        with pytest.raises(RedisConnectionError):
            await call
        await until(lambda: not gate.connected, "the end of all connections")


async def test_listening_to_sentinels_ends_in_whatever_turn_of_the_loop(
    sentinel: tuple[int, str],
) -> None:
    """A client that is closed a few turns after it began to connect closes."""
    server_port, address = sentinel
    for turns in range(40):
        async with Gate(server_port).listening() as gate:
            client = connect(address.format(port=gate.port))
            call = asyncio.ensure_future(client.get("key"))
            async with asyncio.timeout(GUARD_S):
                while not gate.accepted:  # noqa: ASYNC110 - the very turn counts
                    await asyncio.sleep(0)
                for _ in range(turns):
                    await asyncio.sleep(0)
                await client.aclose()
                gate.opened.set()
                with pytest.raises(RedisConnectionError):
                    await call
            await until(lambda: not gate.connected, "the end of all connections")


async def test_a_port_that_opens_its_connection_to_publish_closes(plain: tuple[int, str]) -> None:
    """Whatever turn of the loop: neither the connection nor a task is left behind."""
    server_port, address = plain
    for turns in range(40):
        async with Gate(server_port).listening() as gate:
            gate.opened.set()
            port = RedisPort(address.format(port=gate.port), Keys())
            before = asyncio.all_tasks()
            port.begin_publishing("t", b"{}\n", 1, lambda _: None)
            opening = asyncio.all_tasks() - before
            for _ in range(turns):
                await asyncio.sleep(0)
            await port.close()
            assert all(task.done() for task in opening)
            await until(lambda: not gate.connected, "the end of all connections")


async def test_a_call_that_is_cancelled_leaves_its_answer_to_nobody(server: Server) -> None:
    """In whatever turn of the loop it is cancelled, the next call gets its own answer."""
    client = connect(f"{server.url}?socket_timeout=60")
    for turns in range(20):
        assert await client.echo("ready") == b"ready"  # a connection is there
        call = asyncio.ensure_future(client.execute_command("ROLE"))
        for _ in range(turns):
            await asyncio.sleep(0)
        call.cancel()
        await asyncio.wait((call,))
        assert await client.echo(f"{turns}") == b"%d" % turns
    await client.aclose()


@needs_redis
async def test_a_server_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    """With TLS, too, where the server is asked to confirm the end, a client closes."""
    certificates = make_certificates(tmp_path)
    with Server(tmp_path / "tls", binary=redis_server(), tls=certificates) as server:
        client = connect(f"rediss://127.0.0.1:{server.port}?ssl_ca_certs={certificates[0]}")
        await client.ping()
        server.freeze()
        await client.aclose()
        server.thaw()
