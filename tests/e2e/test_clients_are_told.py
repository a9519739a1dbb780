"""What programs on ``SpotClient`` are told when daemon or demand vanish without a word."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from spotd.client import SpotClient
from tests.client.told import Told
from tests.e2e.setup import Setup, quote, say


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """Yield a quiet Alpaca, a server and a daemon."""
    async with Setup(tmp_path) as found:
        await found.daemon()
        yield found


@pytest.mark.long  # quick, without a process: tests/client/test_follower.py
async def test_a_killed_daemon_is_told(setup: Setup) -> None:
    """A daemon that is killed announces nothing: its end is told once its status has lapsed."""
    told = Told()
    async with SpotClient(setup.server.url) as spot, spot.follow(told) as follower:
        follower.add("SPY")
        await told.until("SPY", "live")
        await setup.commands[0].kill()
        killed_at = time.monotonic()
        await told.until("daemon", None)
        say(f"the end of the daemon was told after {time.monotonic() - killed_at:.1f} s")
        assert await setup.values.status() is None


async def test_an_emptied_redis_is_told_of_the_demand_again(setup: Setup) -> None:
    """After FLUSHALL a symbol that is held without a follower is streamed again, with prices."""
    async with SpotClient(setup.server.url, lease_ttl_s=600.0) as spot, spot.want("SPY"):
        await setup.until(lambda: setup.values.live("SPY"), "SPY is live")
        await setup.redis.flushall()
        await _streams_again(setup, "FLUSHALL")


async def test_lost_leases_are_restored(setup: Setup) -> None:
    """The symbol of a follower ends with its lease, and is live again, since it is demanded."""
    told = Told()
    async with SpotClient(setup.server.url) as spot, spot.follow(told) as follower:
        follower.add("SPY")
        await told.until("SPY", "live")
        await setup.redis.delete("spotd:leases")
        await _streams_again(setup, "DEL spotd:leases")


async def _streams_again(setup: Setup, lost: str) -> None:
    lost_at = time.monotonic()

    async def demanded() -> bool:
        return bool(await setup.redis.exists("spotd:leases"))

    await setup.until(demanded, "the lease")
    say(f"leased again {time.monotonic() - lost_at:.1f} s after {lost}")
    await setup.until(lambda: setup.values.live("SPY"), "SPY is live again")
    await setup.sim.send([quote("SPY", 100.0, 100.5)])
    await setup.until(lambda: setup.values.last("SPY"), "a price")
