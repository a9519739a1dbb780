"""Two relays behind nginx with the configuration that spotd ships, and what clients notice."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.setup import Setup, quote
from tests.kit.nginx import NGINX, Nginx
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.spot_clients import SpotClients, node_command
from tests.kit.waiting import GUARD_S

if not os.environ.get("TEST_SPOTD_BROWSER"):
    pytest.skip("many processes: set TEST_SPOTD_BROWSER=1 to run it", allow_module_level=True)
if NGINX is None:
    pytest.skip("needs nginx (apt-get install nginx)", allow_module_level=True)

needs_node = pytest.mark.skipif(
    node_command() is None, reason="needs Node.js 20 or newer (node), with WebSocket"
)
SYMBOLS = ("SPY", "QQQ")
CLIENTS = 6
PORTS = (free_port(), free_port())
TOKEN = "behind-nginx-token"


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Nginx]:
    """Yield nginx before the two ports, whether relays listen there or not."""
    with Nginx(tmp_path / "nginx", PORTS) as own:
        yield own


@pytest_asyncio.fixture
async def relays(setup: Setup, nginx: Nginx) -> AsyncIterator[list[Command]]:
    """Yield two relays, behind which a daemon runs. All are ready."""
    await setup.daemon()
    yield [await setup.relay(f"relay-{port}", port) for port in PORTS]


async def clients_of(relay: Command) -> int:
    """Return how many clients a relay has, by its own word."""
    return int((await relay.metrics()).get("spotd_relay_clients{websocket}", 0))


async def sent(setup: Setup, bid: float) -> None:
    """Have Alpaca send a quote of each symbol, the mid price 1 USD above the bid."""
    await setup.sim.send([quote(symbol, bid, bid + 2) for symbol in SYMBOLS])


async def hold(setup: Setup, clients: SpotClients, mid: float) -> None:
    """Wait until all clients are connected, and hold this price of every symbol, live."""

    async def held() -> bool:
        prices = await clients.prices()
        return all(clients.live()) and all(
            {symbol: price for symbol, (_, price) in one.items()} == dict.fromkeys(SYMBOLS, mid)
            for one in prices
        )

    await setup.until(held, f"all clients hold {mid}")


@needs_node
async def test_clients_of_a_killed_relay_are_back_on_the_other(
    setup: Setup, nginx: Nginx, relays: list[Command]
) -> None:
    """They hold the newest price, which came while they were away; the others lose nothing."""
    killed, left = relays
    async with SpotClients.running(nginx.url, CLIENTS, SYMBOLS, len(SYMBOLS)) as clients:
        await setup.until(lambda: setup.values.live(*SYMBOLS), "the symbols are live")
        await sent(setup, 100)
        await hold(setup, clients, 101)
        assert [await clients_of(relay) for relay in relays] == [CLIENTS / 2, CLIENTS / 2]

        before = await clients.prices()
        await killed.kill()
        await sent(setup, 200)
        await hold(setup, clients, 201)
        assert await clients_of(left) == CLIENTS

        lost = [codes for codes in clients.codes() if codes]
        assert len(lost) == CLIENTS / 2
        assert {codes[0] for codes in lost} == {"code_1006"}
        after = await clients.prices()
        for old, new in zip(before, after, strict=True):
            assert all(new[symbol][0] > old[symbol][0] for symbol in SYMBOLS)

        again = await setup.relay("relay-again", killed.http_port)

        async def let_in() -> bool:
            async with aiohttp.ClientSession(nginx.url) as http, http.ws_connect("/ws") as new:
                await new.receive_json()
                return await clients_of(again) == 1

        await setup.until(let_in, "nginx sends a new client to the relay that runs again")


@needs_node
async def test_clients_wait_for_relays_that_are_both_away(
    setup: Setup, nginx: Nginx, relays: list[Command]
) -> None:
    """They say that none can be reached, not that websockets are blocked, and come back."""
    async with SpotClients.running(nginx.url, CLIENTS, SYMBOLS, len(SYMBOLS)) as clients:
        await setup.until(lambda: setup.values.live(*SYMBOLS), "the symbols are live")
        await sent(setup, 100)
        await hold(setup, clients, 101)
        for relay in relays:
            await relay.kill()
        await setup.until(lambda: all(len(codes) >= 2 for codes in clients.codes()), "a try each")
        await sent(setup, 200)
        await setup.relay("relay-again", PORTS[1])
        await hold(setup, clients, 201)
        for first, *others in clients.codes():
            assert first == "code_1006"
            assert set(others) == {"unreachable"}


async def test_tokens_origins_and_events_pass_nginx(setup: Setup, nginx: Nginx) -> None:
    """A page of nginx's own address is let in, another's is not; errors have the relay's form.

    No token reaches a log.
    """
    await setup.daemon()
    relay = await setup.relay("relay", PORTS[0], SPOTD_RELAY_TOKEN=TOKEN)
    async with aiohttp.ClientSession(
        nginx.url, timeout=aiohttp.ClientTimeout(total=GUARD_S)
    ) as http:
        assert "spotd" in await (await http.get("/")).text()
        for origin, status in ((nginx.url, 200), ("http://elsewhere.test", 403)):
            asked = {"Origin": origin, "Authorization": f"Bearer {TOKEN}"}
            answer = await http.get("/api/spot-prices?symbols=SPY", headers=asked)
            assert answer.status == status
        async with http.ws_connect(f"/ws?token={TOKEN}", origin=nginx.url) as websocket:
            assert (await websocket.receive_json())["type"] == "hello"
        async with http.get(f"/sse?symbols=SPY&token={TOKEN}") as events:
            assert (await events.content.readline()).startswith(b"event: hello")
        assert (await http.get("/metrics")).status == 404
        for size in (65_536, 65_537):  # refused by the relay, since no token comes along; by nginx
            wrong = await http.post("/api/positions/subscribe-spot-prices", data=b"x" * size)
            assert wrong.status == (401 if size == 65_536 else 413)
            assert (await wrong.json())["status"] == "error"

        await relay.kill()
        for path in (f"/ws?token={TOKEN}", f"/sse?symbols=SPY&token={TOKEN}"):
            assert (await http.get(path)).status == 502
        assert TOKEN not in nginx.logged()
        assert (await http.get("/api/spot-prices?symbols=")).status == 502
        assert "/api/spot-prices" in nginx.logged()
