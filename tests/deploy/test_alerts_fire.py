"""Each alert fires in a real Prometheus when its fault happens to real daemons and relays.

Waiting times and windows are cut short here; test_alerts.py proves the shipped ones.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from spotd.core.trading_hours import TradingDay
from spotd.simulator import MarketModel, Simulator
from tests.daemon.rig import KEY, SECRET, Rig
from tests.e2e.setup import Setup, quote
from tests.kit.ports import free_port
from tests.kit.processes import Command
from tests.kit.prometheus import Prometheus, hasty_rules
from tests.kit.waiting import until

pytestmark = pytest.mark.long


@asynccontextmanager
async def scraped(home: Path, **jobs: list[int]) -> AsyncIterator[Prometheus]:
    """Run a Prometheus with the shipped rules, made hasty."""
    async with Prometheus(home / "prometheus", jobs, hasty_rules()) as prometheus:
        yield prometheus


async def fires(prometheus: Prometheus, alert: str) -> None:
    """Wait until an alert fires."""

    async def fired() -> bool:
        return alert in await prometheus.firing()

    await until(fired, f"{alert} fires")


async def is_silent(prometheus: Prometheus, alert: str) -> None:
    """Wait until something is scraped, and the alert does not fire."""

    async def silent() -> bool:
        scraped_now = await prometheus.query("up == 1")
        return bool(scraped_now) and alert not in await prometheus.firing()

    await until(silent, f"{alert} is silent")


@asynccontextmanager
async def pair(
    home: Path, market: MarketModel | None = None, **env: str
) -> AsyncIterator[tuple[Setup, list[Command]]]:
    """Run two daemons that stream SPY."""
    async with Setup(home, market=market) as setup:
        daemons = [await setup.daemon("first", **env), await setup.daemon("second", **env)]
        await setup.streaming("SPY")
        yield setup, daemons


def ports(daemons: list[Command]) -> list[int]:
    """Return where the daemons are scraped."""
    return [daemon.http_port for daemon in daemons]


async def test_redis_dies(tmp_path: Path) -> None:
    """Nobody leads, nobody is ready, and calls fail."""
    async with (
        pair(tmp_path) as (setup, daemons),
        scraped(tmp_path, spotd=ports(daemons)) as prometheus,
    ):
        await is_silent(prometheus, "SpotdNoLeader")
        setup.server.kill()
        for alert in ("SpotdNoLeader", "SpotdNotReady", "SpotdRedisErrors"):
            await fires(prometheus, alert)


async def test_two_prefixes_in_one_job(tmp_path: Path) -> None:
    """Two daemons that were meant as a pair lead both, since their prefixes differ."""
    async with Setup(tmp_path) as setup:
        setup.sim.limits.connections = 2
        first = await setup.daemon("first")
        other = {"SPOTD_KEY_PREFIX": "other:", "SPOTD_CHANNEL_PREFIX": "others:"}
        second = await setup.daemon("second", **other)
        async with scraped(tmp_path, spotd=ports([first, second])) as prometheus:
            await fires(prometheus, "SpotdTwoLeaders")


async def test_the_standby_stops(tmp_path: Path) -> None:
    """Nobody would replace the leader; when it stops too, no daemon is scraped."""
    async with (
        pair(tmp_path) as (_, daemons),
        scraped(tmp_path, spotd=ports(daemons)) as prometheus,
    ):
        await is_silent(prometheus, "SpotdStandbyMissing")
        await daemons[1].stop()
        await fires(prometheus, "SpotdStandbyMissing")
        await daemons[0].stop()
        await fires(prometheus, "SpotdAbsent")


async def test_alpaca_is_away_by_day(tmp_path: Path) -> None:
    """The stream is down, and so is the price of each symbol, while the market is open."""
    now = datetime.now(UTC)
    today = TradingDay(now - timedelta(hours=1), now + timedelta(hours=1))
    async with AsyncExitStack() as stack:
        setup = await stack.enter_async_context(Setup(tmp_path))
        sim = await stack.enter_async_context(Simulator(keys={KEY: SECRET}))
        port = free_port()
        rig = await stack.enter_async_context(
            Rig(setup.server.url, sim, http_port=port, read_days=lambda _: (today,))
        )
        await rig.want("SPY")
        async with scraped(tmp_path, spotd=[port]) as prometheus:
            await is_silent(prometheus, "SpotdStreamDown")

            async def reconnects() -> bool:
                await sim.drop_sessions()
                return "SpotdReconnects" in await prometheus.firing()

            await until(reconnects, "SpotdReconnects fires")
            sim.faults.handshake_status = 503
            await sim.drop_sessions()
            for alert in ("SpotdStreamDown", "SpotdBreakerOpen"):
                await fires(prometheus, alert)


async def test_prices_come_late(tmp_path: Path) -> None:
    """Prices of a minute ago raise the lag."""
    async with (
        pair(tmp_path) as (setup, daemons),
        scraped(tmp_path, spotd=ports(daemons)) as prometheus,
    ):
        await is_silent(prometheus, "SpotdLagging")

        async def lags() -> bool:
            old = datetime.now(UTC) - timedelta(minutes=1)
            await setup.sim.send([quote("SPY", 1, 2, t=old.isoformat())])
            return "SpotdLagging" in await prometheus.firing()

        await setup.until(lags, "SpotdLagging fires")


async def test_symbols_are_stale_and_refused(tmp_path: Path) -> None:
    """The stream is cut and cannot come back; one entry of the demand is no symbol."""
    async with pair(tmp_path) as (setup, daemons):
        await setup.values.want("not a symbol")
        setup.sim.faults.handshake_status = 503
        await setup.sim.drop_sessions()
        async with scraped(tmp_path, spotd=ports(daemons)) as prometheus:
            for alert in ("SpotdSymbolsStale", "SpotdSymbolsRefused"):
                await fires(prometheus, alert)


async def test_a_loop_that_runs_late(tmp_path: Path) -> None:
    """A daemon that is held up by its machine says so afterwards."""
    async with (
        pair(tmp_path) as (_, daemons),
        scraped(tmp_path, spotd=ports(daemons)) as prometheus,
    ):
        await is_silent(prometheus, "SpotdLoopLag")

        async def late() -> bool:
            daemons[0].send(signal.SIGSTOP)
            await asyncio.sleep(0.3)  # how long the machine holds it up
            daemons[0].send(signal.SIGCONT)
            return "SpotdLoopLag" in await prometheus.firing()

        await until(late, "SpotdLoopLag fires")


async def test_a_relay_loses_redis_and_refuses(tmp_path: Path) -> None:
    """A relay refuses a flood of requests, and is not ready when Redis dies."""
    async with pair(tmp_path) as (setup, _):
        served = await setup.relay()
        async with scraped(tmp_path, relay=[served.http_port]) as prometheus:
            await is_silent(prometheus, "SpotdRelayNotReady")
            await is_silent(prometheus, "SpotdRelayRefuses")

            async def refuses() -> bool:
                await asyncio.gather(*(served.get("/nowhere") for _ in range(100)))
                return "SpotdRelayRefuses" in await prometheus.firing()

            await until(refuses, "SpotdRelayRefuses fires")
            setup.server.kill()
            await fires(prometheus, "SpotdRelayNotReady")


async def test_clients_that_do_not_read(tmp_path: Path) -> None:
    """A client whose connection takes nothing any more counts as slow."""
    flood = MarketModel(quotes_per_s=2000.0)
    async with pair(tmp_path, flood, SPOTD_THROTTLE_MS="0") as (setup, _):
        served = await setup.relay()
        async with scraped(tmp_path, relay=[served.http_port]) as prometheus:
            await is_silent(prometheus, "SpotdRelaySlowClients")
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.connect(("127.0.0.1", served.http_port))
                client.sendall(b"GET /sse?symbols=SPY HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                await fires(prometheus, "SpotdRelaySlowClients")  # nobody reads meanwhile
