"""The simulator with Alpaca's own Python SDK, which spotd builds on."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from spotd.simulator import Simulator
from tests.kit.waiting import GUARD_S, until

pytest.importorskip("alpaca")

from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.live import StockDataStream
from alpaca.data.requests import StockLatestQuoteRequest, StockSnapshotRequest


@asynccontextmanager
async def streaming(sim: Simulator, symbols: list[str]) -> AsyncIterator[list[Any]]:
    """Yield what the SDK's handlers receive of quotes, trades and statuses of these symbols."""
    stream = StockDataStream("demo-key", "demo-secret", url_override=sim.stream_url())
    received: list[Any] = []
    arrived = asyncio.Event()

    async def handle(message: Any) -> None:
        received.append(message)
        arrived.set()

    stream.subscribe_quotes(handle, *symbols)
    stream.subscribe_trades(handle, *symbols)
    stream.subscribe_trading_statuses(handle, *symbols)
    task = asyncio.create_task(stream._run_forever())
    try:
        await until(lambda: sim.sessions and sim.sessions[0].statuses, "subscriptions")
        yield received
        async with asyncio.timeout(GUARD_S):
            await arrived.wait()
    finally:
        await stream.stop_ws()
        await sim.send(
            [{"T": "q", "S": symbols[0]}]
        )  # after a frame the SDK checks whether to stop
        await task


async def test_the_python_sdk_subscribes_and_receives(sim: Simulator) -> None:
    """Its fragments are understood, its models accept the data, and it closes cleanly."""
    async with streaming(sim, ["SPY", "BRK.B"]) as received:
        assert sim.sessions[0].quotes == {"SPY", "BRK.B"}
        await sim.send(
            [
                {"T": "q", "S": "SPY", "bp": 421.35, "ap": 421.39},
                {"T": "t", "S": "BRK.B", "p": 498.5, "c": ["@", "I"]},
                {"T": "q", "S": "BRK.B", "bp": 498, "ap": 0.0, "ax": " ", "as": 0},
            ]
        )
        await sim.halt("SPY")
    kinds = [type(one).__name__ for one in received]
    assert kinds[:3] == ["Quote", "Trade", "Quote"]
    assert (received[0].bid_price, received[0].ask_price) == (421.35, 421.39)
    assert received[1].conditions == ["@", "I"]
    await until(lambda: not sim.sessions, "the session to end")
    assert sim.received.of("close")[-1].data == 1000


async def test_thousands_of_symbols_in_fragments(sim: Simulator) -> None:
    """A subscribe may come in several frames of 32 KiB and an empty last one."""
    letters = "ABCDEFGHIJKLMNOPQRST"
    symbols = [a + b + c for a in letters for b in letters for c in letters]
    async with streaming(sim, symbols):
        assert sim.sessions[0].quotes == set(symbols)
        await sim.send([{"T": "q", "S": "TTT"}])


async def test_the_python_sdk_reads_rest(sim: Simulator) -> None:
    """It accepts latest quotes and snapshots, also null ones."""
    await sim.send([{"T": kind, "S": "AAPL"} for kind in "qtbd"])
    client = StockHistoricalDataClient("demo-key", "demo-secret", url_override=sim.data_url)
    quotes = await asyncio.to_thread(
        client.get_stock_latest_quote,
        StockLatestQuoteRequest(symbol_or_symbols=["AAPL", "BRK.B"], feed="iex"),
    )
    assert {symbol: one.ask_price for symbol, one in quotes.items()} == {"AAPL": 100.02}
    snapshots = await asyncio.to_thread(
        client.get_stock_snapshot, StockSnapshotRequest(symbol_or_symbols=["AAPL", "NONE"])
    )
    assert set(snapshots) == {"AAPL"}
    assert snapshots["AAPL"].latest_trade.price == 100.0
    client._session.close()
