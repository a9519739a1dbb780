"""Frames of the simulator on their way into the market: counts, lag, and who is woken."""

import time

from spotd.ops.metrics import Numbers
from spotd.simulator import MarketModel, Simulator
from tests.daemon.streamkit import Bench, until


async def test_everything_is_counted_once() -> None:
    """Quotes and trades received, conflated, dropped by reason, ignored by kind."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        market = bench.shared.market
        await sim.send(
            [
                {"T": "q", "S": "SPY", "bp": 1.0},
                {"T": "q", "S": "SPY", "bp": 2.0},  # replaces one that was not published
                {"T": "q", "S": "QQQ", "bp": 0.0, "ap": 1.0},
                {"T": "q", "S": "QQQ", "bp": float("inf")},
                {"T": "t", "S": "SPY", "p": 1.5},
                {"T": "t", "S": "SPY", "p": 9.0, "c": ["I"]},
                {"T": "c", "S": "SPY"},
                {"T": "x", "S": "SPY"},
            ]
        )
        await until(lambda: market.ignored["cancel"] == 1)
        assert (market.quotes_received, market.quotes_conflated) == (4, 1)
        assert market.trades_received == 2
        assert market.dropped == {"one_sided": 1, "not_finite": 1}
        assert market.ignored == {"trade_not_last_sale": 1, "correction": 1, "cancel": 1}
        slot = market.slots["SPY"]
        assert slot.quote is not None
        assert (slot.quote.bid, slot.last_price) == (2.0, 1.5)


async def test_late_data_after_an_unsubscribe_is_dropped() -> None:
    """Alpaca may still send what it had buffered: it brings no symbol back."""
    async with Simulator() as sim, Bench(sim) as bench:
        sim.faults.late_data_s = 5.0
        bench.want("SPY", "QQQ")
        await bench.settled("SPY", "QQQ")
        bench.want("QQQ")
        await bench.settled("QQQ")
        await sim.send([{"T": "q", "S": "SPY"}, {"T": "t", "S": "SPY"}])
        market = bench.shared.market
        await until(lambda: market.dropped["not_desired"] == 1)
        assert market.ignored["trade_not_desired"] == 1
        assert market.slots.keys() == {"QQQ"}


async def test_lag_is_from_the_exchanges_time_to_ours() -> None:
    """Of the last quote or trade of a frame; one from the future counts as none in the metric."""
    async with Simulator() as sim, Bench(sim) as bench:
        shared = bench.shared
        bench.want("SPY")
        await bench.settled("SPY")
        assert (shared.lag_s, shared.last_message_unix_s) == (None, None)
        await sim.send([{"T": "q", "S": "SPY", "t": time.time_ns() - 2_000_000_000}])
        await until(lambda: shared.lag_s is not None)
        assert shared.lag_s is not None
        assert 2.0 <= shared.lag_s < 2.0 + 5.0
        assert shared.last_message_unix_s is not None
        assert time.time() - shared.last_message_unix_s < 5.0
        await sim.send([{"T": "t", "S": "SPY", "t": time.time_ns() + 60_000_000_000}])
        await until(lambda: shared.lag_s is not None and shared.lag_s < 0)
        shared.metrics.report(Numbers)
        assert b"spotd_feed_lag_seconds_count 2.0" in shared.metrics.text()


async def test_what_is_no_price_says_nothing_about_lag() -> None:
    """A correction, or a halt."""
    async with Simulator() as sim, Bench(sim) as bench:
        bench.want("SPY")
        await bench.settled("SPY")
        await sim.send([{"T": "c", "S": "SPY"}])
        await until(lambda: bench.shared.market.ignored["correction"])
        assert bench.shared.lag_s is None


async def test_the_publisher_is_woken_for_what_changed_only() -> None:
    """By a new price, not by a dropped one; since when it is due stays, whatever comes behind."""
    async with Simulator() as sim, Bench(sim) as bench:
        shared = bench.shared
        bench.want("SPY")
        await bench.settled("SPY")
        await sim.send([{"T": "q", "S": "SPY", "bp": 0.0, "ap": 1.0}])
        await until(lambda: shared.market.dropped["one_sided"])
        assert not shared.bells.publish.rung
        before = time.monotonic()
        await sim.send([{"T": "q", "S": "SPY"}])
        assert await shared.bells.publish.wait(5.0)
        assert before < (due_at := shared.market.slots["SPY"].due_at) < time.monotonic()
        await sim.send([{"T": "q", "S": "SPY"}])
        await until(lambda: shared.market.quotes_conflated == 1)
        assert shared.market.slots["SPY"].due_at == due_at


async def test_a_busy_market_with_all_its_oddities() -> None:
    """Everything the simulated market sends is taken in; what it sent is what was counted."""
    model = MarketModel(
        quotes_per_s=20_000.0, one_sided_p=0.05, locked_p=0.05, crossed_p=0.05, two_flags_p=0.05,
        received_at_p=0.05, out_of_order_p=0.05, int_price_p=0.05,
    )  # fmt: skip
    async with Simulator(market=model) as sim, Bench(sim) as bench:
        market = bench.shared.market
        bench.want("SPY", "QQQ", "AAPL", "BRK.B")
        await until(lambda: market.quotes_received > 3_000)
        sim.faults.market_closed = True
        await until(lambda: market.quotes_received == sim.stats.quotes_sent)
        assert market.trades_received == sim.stats.trades_sent
        assert market.dropped.keys() == {"one_sided"}
        assert not bench.stream.decoder.malformed
        assert bench.tries == 1
        for slot in market.slots.values():
            assert slot.quote is not None
            assert slot.quote.bid > 0
            assert slot.quote.ask > 0
