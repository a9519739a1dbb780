"""A cluster for the tests of whatever talks to one, and profiles of Hypothesis.

No example has a deadline: how fast one runs is the machine's doing.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.kit.servers import ClusterServers

settings.register_profile("default", deadline=None)
settings.register_profile("long", deadline=None, max_examples=5_000)
settings.register_profile("fuzz", deadline=None, max_examples=100_000)
settings.load_profile("default")


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
