"""The simulator with a client that others wrote: Alpaca's JavaScript SDK from npm."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from spotd.simulator import MarketModel, Simulator
from tests.kit.npm import asked_for, package
from tests.kit.waiting import until

SDK = "@alpacahq/alpaca-trade-api@4.0.2"
SCRIPT = Path(__file__).parent / "js" / "receive.cjs"
RUN_S = 60

pytestmark = [asked_for, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def sdk() -> Path:
    """Return a directory with the SDK, outside the checkout and kept between runs."""
    return package(SDK)


async def receive(sim: Simulator, sdk: Path, symbols: list[str]) -> list[dict[str, Any]]:
    """Return what the SDK printed until it had a quote and a trade of each symbol."""
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), sim.stream_url(), "demo-key", "demo-secret", *symbols,
        cwd=sdk, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RUN_S):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.decode().splitlines()]


async def test_the_javascript_sdk_understands_every_field(sdk: Path, sim: Simulator) -> None:
    """It subscribes, and it decodes quotes, trades and statuses as they were sent."""
    hearing = asyncio.create_task(receive(sim, sdk, ["SPY", "BRK.B"]))
    subscribed = asyncio.create_task(
        until(lambda: sim.sessions and sim.sessions[0].statuses, "subscriptions", guard_s=RUN_S)
    )
    await asyncio.wait({hearing, subscribed}, return_when=asyncio.FIRST_COMPLETED)
    if not subscribed.done():
        subscribed.cancel()
        await hearing  # the script failed: raise with its errors
    when = "2026-01-20T15:12:00.123456789Z"
    await sim.halt("SPY")
    await sim.send(
        [{"T": kind, "S": symbol, "t": when} for symbol in ("SPY", "BRK.B") for kind in "qt"]
    )
    heard = await hearing
    [subscription, *_] = [one["value"] for one in heard if one["kind"] == "subscription"]
    assert subscription["quotes"] == subscription["trades"] == ["BRK.B", "SPY"]
    quotes = {one["value"]["symbol"]: one["value"] for one in heard if one["kind"] == "quote"}
    trades = {one["value"]["symbol"]: one["value"] for one in heard if one["kind"] == "trade"}
    assert set(quotes) == set(trades) == {"SPY", "BRK.B"}
    assert (quotes["SPY"]["bidPrice"], quotes["SPY"]["askPrice"]) == (100.0, 100.02)
    assert quotes["SPY"]["timestampRaw"] == when
    assert (trades["BRK.B"]["price"], trades["BRK.B"]["conditions"]) == (100.0, ["@"])
    assert [one["value"]["symbol"] for one in heard if one["kind"] == "status"] == ["SPY"]
    assert not [one for one in heard if one["kind"] == "error"]
    await until(lambda: not sim.sessions, "the session to end")


async def test_the_javascript_sdk_follows_the_simulated_market(sdk: Path) -> None:
    """Quotes and trades of the market arrive, without an error."""
    model = MarketModel(quotes_per_s=500, trades_per_quote=0.5)
    async with Simulator(market=model) as sim:
        heard = await receive(sim, sdk, ["SPY", "AAPL"])
    assert {one["kind"] for one in heard} >= {"quote", "trade", "subscription"}
    assert not [one for one in heard if one["kind"] == "error"]
