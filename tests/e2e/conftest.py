"""A world for each test: quiet, where only what the test sends happens, or with a market."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spotd.simulator import MarketModel
from tests.e2e.kit import World


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """A simulated Alpaca that sends what the test says, and a real server."""
    async with World(tmp_path) as quiet:
        yield quiet


@pytest.fixture
async def market(tmp_path: Path) -> AsyncIterator[World]:
    """The same with a market that never rests."""
    async with World(tmp_path, market=MarketModel(seed=7, quotes_per_s=200.0)) as busy:
        yield busy
