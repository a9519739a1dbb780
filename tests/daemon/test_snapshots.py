"""New symbols get a price at once, and nothing that REST does disturbs the stream."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from spotd.daemon.shared import Bell

from spotd.alpaca.rest import Snapshots
from spotd.daemon import snapshots as prime
from spotd.daemon.snapshots import Patience, PrimeLoop
from spotd.simulator import Faults, Simulator
from tests.daemon.streamkit import Bench, answering, peer, until

QUICK = Patience(deadline_s=0.3, tries=2, retry_s=0.05)


@asynccontextmanager
async def priming(
    sim: Simulator, *, patience: Patience | None = None, **settings: Any
) -> AsyncIterator[Bench]:
    """A stream loop and a prime loop at work together."""
    async with Bench(sim, snapshots=True, **settings) as bench, primer(bench, patience):
        yield bench


@asynccontextmanager
async def primer(bench: Bench, patience: Patience | None = None) -> AsyncIterator[None]:
    """A prime loop at work beside a stream loop."""
    snapshots = Snapshots(bench.settings, socket_timeout_s=1.0)
    loop = PrimeLoop(bench.shared, snapshots, bench.intake, patience)
    task = asyncio.create_task(loop.run(), name="prime")
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait((task,))
        snapshots.close()


def price(bench: Bench, symbol: str) -> tuple[float | None, float | None]:
    """Bid and last sale of a symbol."""
    slot = bench.shared.market.slots[symbol]
    return None if slot.quote is None else slot.quote.bid, slot.last_price


def asked(sim: Simulator) -> list[list[str]]:
    """The symbols of each request to REST."""
    return [
        one.data.partition("symbols=")[2].partition("&")[0].split("%2C")
        for one in sim.received.of("rest")
    ]


async def test_a_new_symbol_has_a_price_without_a_quote_of_the_stream() -> None:
    """As when the market is closed: the latest quote and trade, and the publisher is woken."""
    async with Simulator() as sim:
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.5}, {"T": "t", "S": "SPY", "p": 1.625}])
        async with priming(sim) as bench:
            bench.want("SPY")
            await until(lambda: price(bench, "SPY") == (1.5, 1.625))
            assert len(bench.shared.conflator.ready) == 1
            assert bench.shared.bells.publish.rung
            assert sim.stats.quotes_sent == 0


@pytest.mark.parametrize("wanted", [False, True])
async def test_without_a_stream_of_trades_there_is_no_last_price(wanted: bool) -> None:
    """Not wanted, or not on this feed: one from a snapshot would stand there for ever."""
    faults = Faults(unavailable_channels={"trades"} if wanted else set())
    async with Simulator(faults=faults) as sim:
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.5}, {"T": "t", "S": "SPY", "p": 1.625}])
        async with priming(sim, trades=wanted) as bench:
            bench.want("SPY")
            await until(lambda: price(bench, "SPY")[0] == 1.5)
            assert price(bench, "SPY") == (1.5, None)


async def test_trades_that_end_take_the_last_price_with_them() -> None:
    """Known from an earlier session, unavailable in this one: null again, and published."""
    async with Simulator() as sim:
        await sim.send([{"T": "q", "S": "SPY", "bp": 1.5}, {"T": "t", "S": "SPY", "p": 1.625}])
        async with priming(sim) as bench:
            shared = bench.shared
            bench.want("SPY")
            await until(lambda: price(bench, "SPY") == (1.5, 1.625))
            shared.conflator.settle(shared.conflator.take(0.0, 9), 0.0, delivered=True)
            await shared.bells.publish.wait(0.0)
            sim.faults.unavailable_channels.add("trades")
            await sim.drop_sessions("close", 1012)
            await until(lambda: price(bench, "SPY") == (1.5, None))
            assert shared.market.slots["SPY"].changed
            assert await shared.bells.publish.wait(0.0)


async def test_what_was_named_before_is_not_forgotten() -> None:
    """The loop looks before it waits."""
    async with Simulator() as sim:
        await sim.send([{"T": "q", "S": "SPY"}])
        async with Bench(sim, snapshots=True) as bench:
            bench.want("SPY")
            await bench.settled("SPY")
            bench.shared.bells.prime = Bell()
            async with primer(bench):
                await until(lambda: price(bench, "SPY")[0])


async def test_only_what_is_new_is_asked_for() -> None:
    """Each symbol once, and again after the stream was lost: its gap is filled."""
    async with Simulator() as sim, priming(sim) as bench:
        bench.want("A", "B")
        await until(lambda: asked(sim) == [["A", "B"]])
        bench.want("A", "B", "C")
        await until(lambda: asked(sim) == [["A", "B"], ["C"]])
        await bench.settled("A", "B", "C")
        await sim.send([{"T": "q", "S": "A", "bp": 2.0}])
        await until(lambda: price(bench, "A") == (2.0, None))
        sim.faults.handshake_hang = True
        await sim.drop_sessions("close", 1012)
        await until(lambda: bench.tries == 2)
        await sim.send([{"T": "q", "S": "A", "bp": 3.0}])  # nobody hears it
        sim.faults.handshake_hang = False
        await until(lambda: asked(sim)[2:] == [["A", "B", "C"]])
        await until(lambda: price(bench, "A") == (3.0, None))


async def test_many_symbols_are_asked_for_by_the_hundred() -> None:
    """250 symbols are three requests."""
    symbols = [f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(250)]
    async with Simulator() as sim:
        await sim.send([{"T": "q", "S": symbol} for symbol in symbols])
        async with priming(sim) as bench:
            bench.want(*symbols)
            await until(lambda: all(price(bench, symbol)[0] for symbol in symbols))
            assert sorted(map(len, asked(sim))) == [50, 100, 100]
            assert sorted(symbol for one in asked(sim) for symbol in one) == symbols


async def test_a_new_symbol_does_not_wait_for_all_that_are_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The newest one is asked for with the next call, and every other one once."""
    symbols = [f"A{chr(65 + n // 26)}{chr(65 + n % 26)}" for n in range(600)]
    monkeypatch.setattr(prime, "_CALL_EVERY_S", 0.2)
    async with Simulator() as sim, priming(sim) as bench:
        bench.want(*symbols)
        await until(lambda: asked(sim))
        bench.want(*symbols, "ZZZ")
        await until(lambda: sum(map(len, asked(sim))) == 601)
        requests = asked(sim)
        assert sorted(symbol for one in requests for symbol in one) == [*symbols, "ZZZ"]
        assert len(requests) == 7
        assert "ZZZ" in [symbol for one in requests[:4] for symbol in one]


@pytest.mark.parametrize(("told_s", "expected"), [(-60, (2.0, 2.0)), (60, (1.0, 1.0))])
async def test_the_newer_one_of_stream_and_snapshot_stands(
    told_s: int, expected: tuple[float, float]
) -> None:
    """A snapshot that comes after the stream's first values replaces older ones only."""
    at = (datetime.now(UTC) + timedelta(seconds=told_s)).isoformat()
    latest = {"latestQuote": {"t": at, "bp": 1, "ap": 2}, "latestTrade": {"t": at, "p": 1}}
    body = json.dumps({"SPY": latest, "QQQ": latest}).encode()
    asked_for, go_on = asyncio.Event(), asyncio.Event()
    answer = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await go_on.wait()
        await answer(reader, writer)

    async with (
        Simulator() as sim,
        peer(behave) as port,
        priming(sim, data_url=f"http://127.0.0.1:{port}") as bench,
    ):
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        await asked_for.wait()
        await sim.send([{"T": "q", "S": "SPY", "bp": 2.0}, {"T": "t", "S": "SPY", "p": 2.0}])
        await until(lambda: price(bench, "SPY") == (2.0, 2.0))
        go_on.set()
        await until(lambda: price(bench, "QQQ") == (1.0, 1.0))
        assert price(bench, "SPY") == expected


async def test_a_trade_that_sets_no_last_sale_leaves_it_null() -> None:
    """An odd lot is the latest trade of many symbols, and no last sale."""
    async with Simulator() as sim:
        await sim.send([{"T": "q", "S": "SPY"}, {"T": "t", "S": "SPY", "c": ["@", "I"]}])
        async with priming(sim) as bench:
            bench.want("SPY")
            await until(lambda: price(bench, "SPY")[0] is not None)
            assert price(bench, "SPY")[1] is None


async def test_one_sided_and_missing_values_give_no_price() -> None:
    """Nothing is invented: the first quote of the stream will tell."""
    async with Simulator(faults=Faults(rest_null_symbols={"B"})) as sim:
        await sim.send([{"T": "q", "S": "A", "bp": 0.0, "ap": 1.0}, {"T": "q", "S": "C"}])
        async with priming(sim) as bench:
            bench.want("A", "B", "C")
            await until(lambda: price(bench, "C")[0] is not None)
            assert price(bench, "A") == price(bench, "B") == (None, None)
            await sim.send([{"T": "q", "S": "A", "bp": 1.0}])
            await until(lambda: price(bench, "A")[0] == 1.0)


async def test_a_bad_symbol_costs_no_other_its_price() -> None:
    """REST rejects a batch for one symbol that the stream takes."""
    async with Simulator(faults=Faults(rest_bad_symbols={"B"})) as sim:
        await sim.send([{"T": "q", "S": symbol} for symbol in "ABC"])
        async with priming(sim) as bench:
            bench.want("A", "B", "C")
            await until(lambda: price(bench, "A")[0] and price(bench, "C")[0])
            assert price(bench, "B") == (None, None)
            assert bench.shared.metrics.snapshots_failed == 0


async def test_a_failure_is_tried_once_more() -> None:
    """A hiccup costs no first price."""
    async with Simulator(faults=Faults(rest_status=503)) as sim:
        await sim.send([{"T": "q", "S": "SPY"}])
        async with priming(sim, patience=Patience(retry_s=0.2)) as bench:
            bench.want("SPY")
            await until(lambda: bench.shared.metrics.snapshots_failed == 1)
            sim.faults.rest_status = 0
            await until(lambda: price(bench, "SPY")[0])
            assert sim.stats.rest_requests == 2


async def test_a_rest_that_is_away_costs_first_prices_only() -> None:
    """Two tries, then the stream's quotes; later symbols are asked for all the same."""
    async with Simulator(faults=Faults(rest_status=500)) as sim:
        await sim.send([{"T": "q", "S": symbol} for symbol in "AB"])
        async with priming(sim, patience=QUICK) as bench:
            bench.want("A")
            await until(lambda: bench.shared.metrics.snapshots_failed == 2)
            await bench.settled("A")
            await sim.send([{"T": "q", "S": "A", "bp": 2.0}])
            await until(lambda: price(bench, "A")[0] == 2.0)
            sim.faults.rest_status = 0
            bench.want("A", "B")
            await until(lambda: price(bench, "B")[0])
            assert sim.stats.rest_requests == 3


async def test_a_plan_without_rest_is_asked_once_a_batch() -> None:
    """403 ends neither the daemon nor the stream: only the stream's refusal is final."""
    async with (
        Simulator(faults=Faults(rest_status=403)) as sim,
        priming(sim, patience=QUICK) as bench,
    ):
        bench.want("A")
        await until(lambda: bench.shared.metrics.snapshots_failed == 1)
        bench.want("A", "B")
        await until(lambda: bench.shared.metrics.snapshots_failed == 2)
        await bench.settled("A", "B")
        assert sim.stats.rest_requests == 2
        assert not bench.running.done()


async def test_a_hanging_rest_does_not_hold_the_stream() -> None:
    """Quotes flow while it hangs, and stopping does not wait for it."""
    async with Simulator(faults=Faults(rest_hang=True)) as sim:
        async with priming(sim) as bench:
            bench.want("SPY")
            await until(lambda: sim.stats.rest_requests == 1)
            await bench.settled("SPY")
            for number in range(1, 20):
                await sim.send([{"T": "q", "S": "SPY", "bp": float(number)}])
                await until(lambda number=number: price(bench, "SPY")[0] == number)  # type: ignore[misc]
            stopping = time.monotonic()
        assert time.monotonic() - stopping < 1.0
        sim.faults.rest_hang = False


async def test_symbols_that_nobody_wants_any_more_are_ignored() -> None:
    """The answer for one that left meanwhile brings it not back."""
    async with Simulator(faults=Faults(rest_hang=True)) as sim:
        await sim.send([{"T": "q", "S": symbol} for symbol in "AB"])
        async with priming(sim) as bench:
            bench.want("A", "B")
            await until(lambda: sim.stats.rest_requests == 1)
            bench.want("B")
            sim.faults.rest_hang = False
            await until(lambda: price(bench, "B")[0])
            assert bench.shared.market.slots.keys() == {"B"}
