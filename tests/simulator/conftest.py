"""A quiet simulator: it sends only what the test sends."""

from collections.abc import AsyncIterator

import pytest

from spotd.simulator import Simulator


@pytest.fixture
async def sim() -> AsyncIterator[Simulator]:
    """Yield a simulator without market and replay."""
    async with Simulator() as simulator:
        yield simulator
