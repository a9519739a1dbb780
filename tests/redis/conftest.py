"""One server for the tests of a module that leave it running, and a client of it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis

from tests.kit.servers import Server


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Yield one server for all tests of a module."""
    with Server(tmp_path_factory.mktemp("redis")) as running:
        yield running


@pytest.fixture
def db(process: Server) -> Iterator[redis.Redis]:
    """Yield the server of the module, empty, for what the test itself says and reads."""
    with process.client() as client:
        client.flushall()
        yield client
