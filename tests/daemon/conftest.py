"""A simulated Alpaca for each test, and daemons between it and a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from spotd.simulator import Simulator
from tests.daemon.rig import KEY, SECRET, NewRig, Rig
from tests.kit.servers import Server


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
