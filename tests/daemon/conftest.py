"""A real server and a simulated Alpaca for each test, and daemons between them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from spotd.simulator import Simulator
from tests.daemon.rig import KEY, SECRET, NewRig, Rig
from tests.kit.servers import Server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server of this test's own: it may be killed, frozen and emptied."""
    with Server(tmp_path / "server") as own:
        yield own


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Yield a simulated Alpaca that sends what the test says."""
    async with Simulator(keys={KEY: SECRET}) as own:
        yield own


@pytest.fixture
def rig(server: Server, sim: Simulator) -> NewRig:
    """Make a daemon, with settings. ``async with`` runs it."""

    def make(**settings: Any) -> Rig:
        return Rig(server.url, sim, **settings)

    return make
