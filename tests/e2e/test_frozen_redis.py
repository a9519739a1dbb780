"""Redis hangs for longer than the leader's TTL: what a daemon says of itself is what it does."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path
from typing import TypeAlias

import pytest

from tests.e2e.setup import Setup, quote
from tests.kit.processes import Command

TTL_S = 2.0  # a process may stand still for a second without losing the key
HANGS_S = 2.0 * TTL_S
Freeze: TypeAlias = Callable[[Setup], Awaitable[None]]


async def stopped(setup: Setup) -> None:
    """Stop the server's process for longer than the TTL, and let it go on."""
    setup.server.freeze()
    await _pass(setup, HANGS_S)
    setup.server.thaw()


async def asleep(setup: Setup) -> None:
    """Let the server sleep for longer than the TTL, in a command of its own."""
    await setup.redis.execute_command("DEBUG", "SLEEP", HANGS_S)


async def _pass(setup: Setup, seconds: float) -> None:
    ends = time.monotonic() + seconds
    await setup.until(lambda: time.monotonic() >= ends, "the time is over")


@pytest.fixture
async def setup(tmp_path: Path) -> AsyncIterator[Setup]:
    """Yield a quiet Alpaca that takes two sessions, and a server that knows DEBUG."""
    async with Setup(tmp_path, server_options=("--enable-debug-command", "local")) as running:
        running.sim.limits.connections = 2
        yield running


@pytest.mark.parametrize(
    "freeze",
    [stopped, pytest.param(asleep, marks=pytest.mark.long)],
    ids=lambda freeze: freeze.__name__,
)
async def test_a_daemon_that_publishes_after_a_freeze_says_so(setup: Setup, freeze: Freeze) -> None:
    """After the freeze it leads again over the same stream, and all that it says agrees."""
    daemon = await _daemon(setup, "daemon")
    await setup.streaming("SPY")
    recorder = await setup.recorder("spotd:events")
    await _published(setup, "SPY")

    await freeze(setup)

    await _published(setup, "SPY")
    said = len(recorder.daemon_states())
    await _says_that_it_streams(setup, daemon)
    await _published(setup, "SPY")
    await _says_that_it_streams(setup, daemon)
    assert "standby" not in recorder.daemon_states()[said:]
    assert len(setup.sim.received.of("connect")) == 1


@pytest.mark.long  # quick: tests/daemon/test_leader.py
async def test_after_a_freeze_one_of_two_daemons_leads(setup: Setup) -> None:
    """It is the one that held the stream, and it holds it still; the other says standby."""
    both = [await _daemon(setup, name) for name in ("first", "second")]
    await setup.streaming("SPY")
    await _published(setup, "SPY")

    await stopped(setup)

    await _published(setup, "SPY")

    async def settled() -> bool:
        states = sorted([await daemon.state() for daemon in both])
        return states == ["standby", "streaming"]

    await setup.until(settled, "one streams and one stands by")
    await _published(setup, "SPY")
    leads = [await daemon.leads() for daemon in both]
    assert leads == [True, False]
    assert len(setup.sim.received.of("connect")) == 1
    await _says_that_it_streams(setup, both[leads.index(True)])
    standby = both[leads.index(False)]
    assert await standby.state() == "standby"
    await setup.until(standby.ready, "the standby to be ready")
    assert await setup.values.last("SPY")


@pytest.mark.long  # quick: tests/daemon/test_leader.py
async def test_a_daemon_started_while_redis_hangs_leads_and_says_so(setup: Setup) -> None:
    """Its first calls are given up before they are answered; then it leads, and says so."""
    await setup.values.want("SPY", wake=False)
    setup.server.freeze()
    daemon = await setup.start(SPOTD_LEADER_TTL_S=f"{TTL_S:g}", SPOTD_THROTTLE_MS="0")
    await setup.until(daemon.unready, "it listens")
    await _pass(setup, HANGS_S)
    setup.server.thaw()

    await _published(setup, "SPY")
    await _says_that_it_streams(setup, daemon)


async def _daemon(setup: Setup, name: str) -> Command:
    return await setup.daemon(name, SPOTD_LEADER_TTL_S=f"{TTL_S:g}", SPOTD_THROTTLE_MS="0")


_prices = count(10.0)


async def _published(setup: Setup, symbol: str) -> None:
    """Send new quotes until one of them is in ``spotd:last``."""
    first = next(_prices)

    async def stored() -> bool:
        bid = next(_prices)
        await setup.sim.send([quote(symbol, bid, bid + 1)])
        return (await setup.values.bid(symbol) or 0.0) > first

    await setup.until(stored, f"{symbol} is published")


async def _says_that_it_streams(setup: Setup, daemon: Command) -> None:
    """Wait until all that a daemon says of itself is that it leads and streams."""

    async def told() -> dict[str, object]:
        return {
            "/status": await daemon.state(),
            "spotd_leader": await daemon.leads(),
            "/readyz": await daemon.ready(),
            "spotd:status": (await setup.values.status() or {}).get("state"),
            "spotd:states": await setup.values.state("SPY"),
            "spotd:last": bool(await setup.values.last("SPY")),
        }

    truth = {
        "/status": "streaming", "spotd_leader": True, "/readyz": True,
        "spotd:status": "streaming", "spotd:states": "live", "spotd:last": True,
    }  # fmt: skip

    async def true() -> bool:
        return await told() == truth

    try:
        await setup.until(true, "what it says is true")
    except AssertionError:
        assert await told() == truth, setup.logs()
        raise
