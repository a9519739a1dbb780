"""A relay that listens on a free port, with a source that the test drives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeAlias

import aiohttp
import pytest

from spotd.relay.relay import Relay
from spotd.relay.server import RelayServer
from tests.kit.waiting import GUARD_S
from tests.relay.examples import settings_of
from tests.relay.source import TestSource

Json: TypeAlias = dict[str, Any]


class Clock:
    """The monotonic clock, which a test may set forward."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        """Return monotonic seconds."""
        return time.monotonic() + self.ahead_s


class Setup:
    """One relay, its source, and a client of its HTTP."""

    def __init__(
        self, server: RelayServer, source: TestSource, http: aiohttp.ClientSession, clock: Clock
    ) -> None:
        self.server = server
        self.relay = server.relay
        self.source = source
        self.http = http
        self.clock = clock

    def websocket(self, *symbols: str, **options: Any) -> AbstractAsyncContextManager[Socket]:
        """Connect, hear the hello, and subscribe."""
        return websocket(self.http, *symbols, **options)


class Socket:
    """A websocket client."""

    def __init__(self, connection: aiohttp.ClientWebSocketResponse) -> None:
        self.connection = connection
        self.hello: Json = {}

    async def say(self, **message: Any) -> None:
        """Send one message."""
        await self.connection.send_json(message)

    async def next(self) -> Json:
        """Return the next message."""
        async with asyncio.timeout(GUARD_S):
            return dict(await self.connection.receive_json())

    async def next_of(self, kind: str) -> Json:
        """Return the next message of a type, after whatever comes before."""
        while (message := await self.next())["type"] != kind:
            pass
        return message

    async def synced(self) -> list[Json]:
        """Return what came before the answer to a ping that is sent now."""
        await self.say(action="ping")
        found = []
        while (message := await self.next())["type"] != "pong":
            found.append(message)
        return found

    async def price(self, symbol: str, seq: int) -> list[tuple[str, int]]:
        """Return the prices that come until this one, and it."""
        found: list[tuple[str, int]] = []
        while not found or found[-1] != (symbol, seq):
            message = await self.next()
            if message["type"] == "spot_price_update":
                found.append((message["update"]["symbol"], message["update"]["seq"]))
        return found

    async def closed(self) -> int | None:
        """Return the close code, after whatever comes before."""
        async with asyncio.timeout(GUARD_S):
            while True:
                message = await self.connection.receive()
                if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                    return self.connection.close_code


@asynccontextmanager
async def websocket(
    http: aiohttp.ClientSession, *symbols: str, path: str = "/ws", **options: Any
) -> AsyncIterator[Socket]:
    """Connect, hear the hello, and subscribe."""
    async with http.ws_connect(path, **options) as connection:
        socket = Socket(connection)
        socket.hello = await socket.next()
        if symbols:
            await socket.say(action="subscribe", symbols=symbols)
        yield socket


NewSetup = Callable[..., AbstractAsyncContextManager[Setup]]


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Setup]:
    """Run a relay with these settings, by field name."""
    given = settings_of(relay_port=0, **settings)
    clock = Clock()
    relay = Relay(given.limits, demand=given.relay_demand, clock=clock, every_s=0.01)
    source = TestSource(relay)
    loops = asyncio.create_task(relay.run(), name="relay")
    try:
        async with (
            RelayServer(given, relay, source) as server,
            aiohttp.ClientSession(server.address) as http,
        ):
            yield Setup(server, source, http, clock)
    finally:
        loops.cancel()
        await asyncio.wait([loops])
    assert loops.cancelled(), "a loop of the relay ended by itself"


@pytest.fixture
def new_setup() -> NewSetup:
    """Run a relay with settings of the test's own."""
    return running


@pytest.fixture
async def setup() -> AsyncIterator[Setup]:
    """A relay with the defaults, Redis and a daemon."""
    async with running() as found:
        found.source.ready()
        yield found
