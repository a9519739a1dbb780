"""Networks that swallow packets, and slow ones: calls are given up, and work again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress

import pytest

from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.port import SCAN_ABOVE, RedisPort
from tests.kit.servers import Server
from tests.kit.waiting import until

KEYS = Keys()
PASSWORD = "hunter2-hunter2"
LINE = b'{"symbol":"SPY"}\n'


class Network:
    """All that passes between a client and a server."""

    def __init__(self, server_port: int) -> None:
        self.delay_s = 0.0  # of each answer
        self.swallows = False  # connections stay, and nothing passes
        self.requests = 0  # that passed, in pieces as they arrived
        self.swallowed = 0  # requests that did not pass
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
        for pump in (self._requests(reader, back), self._answers(there, writer)):
            task = asyncio.create_task(pump)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _requests(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with closing(sink), suppress(ConnectionError):
            while data := await source.read(65_536):
                if self.swallows:
                    self.swallowed += 1
                else:
                    self.requests += 1
                    sink.write(data)

    async def _answers(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with closing(sink), suppress(ConnectionError):
            while data := await source.read(65_536):
                if not self.swallows:
                    await asyncio.sleep(self.delay_s)
                    sink.write(data)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield a server with a password."""
    with Server(tmp_path_factory.mktemp("network")) as running:
        with running.client() as client:
            client.execute_command("ACL", "SETUSER", "u", "on", f">{PASSWORD}", "~*", "&*", "+@all")
        yield running


@pytest.fixture
async def network(server: Server) -> AsyncIterator[Network]:
    """Yield the network between client and server."""
    with server.client() as client:
        client.flushall()
    way = Network(server.port)
    async with await way.start():
        yield way


async def test_a_call_into_the_void_is_given_up(network: Network) -> None:
    """It fails while nothing passes, so that the next call carries the newest values out."""
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", KEYS)
    fresh = RedisPort(f"redis://127.0.0.1:{network.port}/0", KEYS)
    await port.lead("t", 60.0)
    network.swallows = True
    for each in (port, port, fresh):
        with pytest.raises(RedisUnavailableError):
            await each.publish("t", LINE, 1)
    sent, network.swallowed = network.requests, 0
    given_up = asyncio.create_task(port.publish("t", LINE, 1))
    await until(lambda: network.swallowed > 0, "the call to be sent")
    network.swallows = False
    with pytest.raises(RedisUnavailableError):
        await given_up
    assert network.requests == sent  # it was not sent again
    await port.publish("t", LINE, 2)
    await port.close()
    await fresh.close()


async def test_a_slow_server_still_works(network: Network, server: Server) -> None:
    """To log in may take nearly one limit, and the call that follows has another for itself."""
    with server.client() as client:
        client.script_flush()
    network.delay_s = 0.6
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/1", KEYS, call_timeout_s=2.0)
    # Two answers while logging in, and two to the call, which sends the script that is missing.
    assert (await port.lead("t", 60.0)).held == "acquired"
    await port.publish("t", LINE, 1)
    assert (await port.leases()).live == []
    await port.close()


async def test_the_largest_demand_fits_into_the_limit(network: Network, server: Server) -> None:
    """As many entries as are read at once come within one call's limit from a slow server."""
    with server.client() as client:
        client.sadd(KEYS.symbols, *(f"S{n}" for n in range(SCAN_ABOVE)))
    port = RedisPort(f"redis://u:{PASSWORD}@127.0.0.1:{network.port}/0", KEYS)
    network.delay_s = 0.1
    found = [entry async for some in port.demand_set() for entry in some]
    assert len(found) == SCAN_ABOVE
    await port.close()


async def test_connecting_costs_no_round_trip_of_its_own(network: Network) -> None:
    """Without credentials and database there is nothing to say before the call."""
    port = RedisPort(f"redis://127.0.0.1:{network.port}/0", KEYS)
    await port.leader()
    assert network.requests == 1
    await port.close()
