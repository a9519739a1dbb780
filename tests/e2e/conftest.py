"""A setup for each test: quiet, where only what the test sends happens, or with a market."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spotd.simulator import MarketModel
from tests.e2e.setup import Setup


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """Yield a simulated Alpaca that sends what the test says, and a real server."""
    async with Setup(tmp_path) as quiet:
        yield quiet


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[Setup]:
    """Yield a simulated Alpaca whose market sends quotes all the time, and a real server."""
    async with Setup(tmp_path, market=MarketModel(seed=7, quotes_per_s=200.0)) as busy:
        yield busy
