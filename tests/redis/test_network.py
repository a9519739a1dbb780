"""Networks that swallow packets, and slow ones: calls are given up in time, and work again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import SCAN_ABOVE, RedisPort
from tests.kit.servers import Server

KEYS = Keys()
PASSWORD = "hunter2-hunter2"


class Network:
    """All that passes between a client and a server."""

    def __init__(self, server_port: int) -> None:
        self.delay_s = 0.0  # of each answer
        self.swallows = False  # connections stay, and nothing passes
        self.port = 0
        self._server_port = server_port
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> asyncio.Server:
        """Listen."""
        listening = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = listening.sockets[0].getsockname()[1]
        return listening

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._server_port)
        for pump in (self._pump(reader, back, 0.0), self._pump(there, writer, None)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay_s: float | None
    ) -> None:
        try:
            while data := await source.read(65_536):
                if not self.swallows:
                    await asyncio.sleep(self.delay_s if delay_s is None else delay_s)
                    sink.write(data)
        except ConnectionError:
            pass
        finally:
            sink.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with a password."""
    with Server(tmp_path_factory.mktemp("network")) as running:
        with running.client() as client:
            client.execute_command("ACL", "SETUSER", "u", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield running


@pytest.fixture
async def network(server: Server) -> AsyncIterator[Network]:
    """The way to it."""
    with server.client() as client:
        client.flushall()
    way = Network(server.port)
    async with await way.start():
        yield way


async def test_a_call_into_the_void_is_given_up_within_a_second(network: Network) -> None:
    """So that soon after the network's return the next one brings the newest values out."""
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", KEYS)
    fresh = RedisPort(f"redis://127.0.0.1:{network.port}/0", KEYS)
    await port.lead("t", 60.0)
    network.swallows = True
    for each in (port, port, fresh):
        started = time.monotonic()
        with pytest.raises(RedisUnavailableError):
            await each.publish("t", b'{"symbol":"SPY"}\n', 1)
        assert time.monotonic() - started < 0.95
    given_up = asyncio.create_task(port.publish("t", b'{"symbol":"SPY"}\n', 1))
    await asyncio.sleep(0.05)
    network.swallows = False
    healed = time.monotonic()
    with pytest.raises(RedisUnavailableError):
        await given_up
    await port.publish("t", b'{"symbol":"SPY"}\n', 2)
    assert time.monotonic() - healed < 1.0
    await port.close()
    await fresh.close()


async def test_a_slow_server_still_works(network: Network, server: Server) -> None:
    """0.3 s for each answer: connecting has its own limit beside that of the call."""
    with server.client() as client:
        client.script_flush()
    network.delay_s = 0.3
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", KEYS)
    assert (await port.lead("t", 60.0)).acquired
    await port.publish("t", b'{"symbol":"SPY"}\n', 1)
    assert await port.live_leases(0.0) == []
    await port.close()


async def test_the_largest_demand_fits_into_the_limit(network: Network, server: Server) -> None:
    """As many entries as are read at once, from a slow server, on a new connection."""
    with server.client() as client:
        client.sadd(KEYS.symbols, *(f"S{n}" for n in range(SCAN_ABOVE)))
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/0", KEYS)
    network.delay_s = 0.1
    found = [entry async for some in port.demand_set() for entry in some]
    assert len(found) == SCAN_ABOVE
    await port.close()


async def test_connecting_costs_no_round_trip_of_its_own(network: Network) -> None:
    """Without credentials and database there is nothing to say first."""
    port = RedisPort(f"redis://127.0.0.1:{network.port}/0", KEYS)
    network.delay_s = 0.3
    started = time.monotonic()
    await port.leader()
    assert time.monotonic() - started < 0.55
    await port.close()
