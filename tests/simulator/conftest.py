"""A quiet simulator: nothing is sent but what the test says."""

from collections.abc import AsyncIterator

import pytest

from spotd.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """A simulator without market and replay, its close timeout short."""
    async with Simulator() as simulator:
        yield simulator
