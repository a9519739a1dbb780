"""Servers for the tests of whatever talks to some, and profiles of Hypothesis.

A directory or module that needs a server of another kind has a fixture of the same name.

No example has a deadline: how fast one runs is the machine's doing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from tests.kit.publisher import Publisher, status_of
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import ClusterServers, SentinelServers, Server

# Rooms whose tests start processes and wait for them. Begun last, one of their modules would run
# alone at the end. The modules of a room keep their order, which is random.
_FIRST = ("e2e", "redis", "bench", "soak", "cli", "client", "daemon", "relay", "docs", "deploy")

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.register_profile("fuzz", deadline=None, max_examples=100_000)
settings.load_profile("default")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the rooms whose tests take longest."""
    ranks = {room: rank for rank, room in enumerate(_FIRST)}
    root = Path(__file__).parent
    items.sort(key=lambda item: ranks.get(item.path.relative_to(root).parts[0], len(ranks)))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server of this test's own: it may be killed, frozen and emptied."""
    with Server(tmp_path / "server") as own:
        yield own


@pytest.fixture
async def daemon(server: Server) -> AsyncIterator[Publisher]:
    """Yield the part of a daemon that streams."""
    async with Publisher(server.url) as publisher:
        await publisher.redis.set(publisher.keys.status, status_of().to_json())
        yield publisher


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    """Yield the server to which ``address`` leads, and its successor."""
    with ExitStack() as stack:
        old, new = (stack.enter_context(Server(tmp_path / name)) for name in ("old", "new"))
        yield old, new


@pytest.fixture
async def address(servers: tuple[Server, Server]) -> AsyncIterator[RedisProxy]:
    """Yield an address that leads to another server one day."""
    async with RedisProxy.to(servers[0]) as proxy:
        yield proxy


@pytest.fixture
def sentinels(tmp_path: Path) -> Iterator[SentinelServers]:
    """Yield a master, a replica and a Sentinel."""
    with SentinelServers(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def cluster_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterServers]:
    """Yield three masters."""
    with ClusterServers(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(cluster_servers: ClusterServers) -> ClusterServers:
    """Return the three masters, empty."""
    for node in cluster_servers.nodes:
        with node.client() as client:
            client.flushall()
    return cluster_servers
