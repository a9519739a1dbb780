"""A real server, empty for each test, and one that a test may kill."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.kit.publisher import Publisher
from tests.kit.servers import Server


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that lives as long as the tests."""
    with Server(tmp_path_factory.mktemp("shared")) as server:
        yield server


@pytest.fixture
def url(shared_server: Server) -> str:
    """The URL of an empty server."""
    with shared_server.client() as admin:
        admin.flushall()
        admin.config_resetstat()
    return shared_server.url


@pytest.fixture
async def daemon(url: str) -> AsyncIterator[Publisher]:
    """The publishing side, on the same server."""
    async with Publisher(url) as publisher:
        yield publisher


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may kill and start again, at the same port."""
    with Server(tmp_path / "own") as server:
        yield server
