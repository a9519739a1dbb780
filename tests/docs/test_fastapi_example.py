"""docs/examples/fastapi_app.py runs as its docstring says, beside a real Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from tests.kit.ports import free_port
from tests.kit.processes import environment
from tests.kit.publisher import Publisher
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
SUBSCRIBE = "/api/positions/subscribe-spot-prices"
SIGNED_IN = {"Cookie": "session=mine"}


@pytest.fixture
async def port() -> int:
    """A port for the example."""
    return free_port()


@pytest.fixture
async def process(server: Server, port: int) -> AsyncIterator[Process]:
    """The example under uvicorn's command."""
    command = ("-m", "uvicorn", "fastapi_app:app", "--ws-per-message-deflate", "false")
    root = str(EXAMPLES.parent.parent)
    running = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, "--port", str(port)),
        cwd=EXAMPLES,
        env=environment(
            REDIS_URL=server.url,
            POSITIONS_SESSION="mine",
            PYTHONPATH=os.pathsep.join((root, os.environ.get("PYTHONPATH", ""))),
        ),
        stderr=PIPE,
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
            await running.communicate()


@pytest.fixture
async def http(process: Process, port: int) -> AsyncIterator[aiohttp.ClientSession]:
    """A client that is signed in."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}", headers=SIGNED_IN) as session:

        async def listens() -> bool:
            assert process.returncode is None, "uvicorn has ended"
            try:
                async with session.get("/api/positions") as answer:
                    return answer.status == 200
            except aiohttp.ClientConnectionError:
                return False

        await until(listens, "uvicorn to listen")
        yield session


async def test_the_underlyings_of_positions_get_prices(
    http: aiohttp.ClientSession, daemon: Publisher
) -> None:
    """From the positions by POST to the websocket, as the front end does it."""
    async with http.get("/api/positions") as answer:
        symbols = [position["underlying"] for position in await answer.json()]
    async with http.post(SUBSCRIBE, json={"symbols": symbols}) as answer:
        assert (await answer.json())["symbols"] == symbols == ["SPY", "QQQ"]
    async with http.ws_connect("/ws") as websocket, asyncio.timeout(GUARD_S):
        await websocket.send_json({"action": "subscribe", "symbols": symbols})
        await daemon.publish("SPY", 1)
        while (message := await websocket.receive_json())["type"] != "spot_price_update":
            pass
        assert message["update"]["seq"] == 1
    async with http.get("/spotd.js") as answer:
        assert answer.status == 200


async def test_who_is_not_signed_in_is_refused(http: aiohttp.ClientSession, port: int) -> None:
    """On the router's paths as on the application's own."""
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as stranger:
        async with stranger.get("/api/positions") as answer:
            assert answer.status == 401
        async with stranger.post(SUBSCRIBE, json={"symbols": ["SPY"]}) as answer:
            assert answer.status == 401
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await stranger.ws_connect("/ws")
        assert refused.value.status == 401


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_it_stops_though_streams_are_open(
    http: aiohttp.ClientSession, process: Process, daemon: Publisher, number: signal.Signals
) -> None:
    """Event streams end, websockets are closed with "try again", and no demand is left."""
    async with (
        http.get("/sse?symbols=SPY") as events,
        http.ws_connect("/ws") as websocket,
    ):
        await websocket.send_json({"action": "subscribe", "symbols": ["SPY"]})

        async def demanded() -> bool:
            return len(await daemon.leases()) == 1

        await until(demanded, "the demand")
        process.send_signal(number)
        async with asyncio.timeout(GUARD_S):
            while (await websocket.receive()).type is aiohttp.WSMsgType.TEXT:
                pass
            await events.read()
            _, stderr = await process.communicate()
        # Where uvicorn is quicker than the router, its own code: the service restarts.
        assert websocket.close_code in (4000, 1012)
    assert b"Traceback" not in stderr
    assert await daemon.leases() == {}
