"""Frames of the simulator on their way into the prices: counts, lag, and what is published.

What a message changes in the price cache is proved in tests/core/test_prices.py.
"""

from __future__ import annotations

import time

from spotd.core.demand import Demand, step_between
from spotd.core.freshness import Silence
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value
from spotd.ops.metrics import Metrics
from spotd.simulator import MarketModel, Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

NONE = frozenset[str]()


async def test_everything_is_counted_once(rig: NewRig, sim: Simulator) -> None:
    """The metrics tell what came in one frame, and what became of it."""
    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.send(
            quote("SPY", 1.0),
            quote("SPY", 2.0),  # it replaces one that was not published
            quote("QQQ", 0.0, 1.0),
            quote("QQQ", float("inf"), 1.0),
            trade("SPY", 1.5, i=1),
            trade("SPY", 9.0, i=2, c=["I"]),
            {"T": "c", "S": "SPY", "oi": 9},
            {"T": "x", "S": "SPY", "i": 9},
        )
        metrics = daemon.daemon.metrics_text().decode().splitlines()
        for line in (
            "spotd_quotes_received_total 4.0",
            "spotd_quotes_conflated_total 1.0",
            "spotd_trades_received_total 2.0",
            'spotd_quotes_dropped_total{reason="one_sided"} 1.0',
            'spotd_quotes_dropped_total{reason="not_finite"} 1.0',
            'spotd_messages_ignored_total{kind="trade_not_last_sale"} 1.0',
            'spotd_messages_ignored_total{kind="correction"} 1.0',
            'spotd_messages_ignored_total{kind="cancel"} 1.0',
            "spotd_trades_corrected_total 1.0",
            "spotd_trades_cancelled_total 1.0",
        ):
            assert line in metrics
        assert daemon.status["quotes_received"] == 4


async def test_late_data_after_an_unsubscribe_is_dropped(rig: NewRig, sim: Simulator) -> None:
    """Alpaca may still send what it had buffered; it brings no symbol back."""
    sim.faults.late_data_s = 60.0
    async with rig() as daemon:
        await daemon.want_only("SPY", "QQQ")
        await daemon.want_only("QQQ")
        await daemon.send(quote("SPY", 1.0), trade("SPY", 1.5))
        await daemon.quote("QQQ", 2.0)
        await until(lambda: daemon.values.bid("QQQ"), "the price of the other")
        cache = daemon.daemon.prices.cache
        assert cache.dropped == {"not_desired": 1}
        assert cache.ignored == {"trade_not_desired": 1}
        assert (await daemon.values.all_last()).keys() == {"QQQ"}


async def test_lag_is_from_the_exchanges_time_to_ours(rig: NewRig, sim: Simulator) -> None:
    """A time in the future is a negative lag in status and gauge, and none in the histogram."""
    async with rig() as daemon:
        await daemon.want("SPY")
        assert (daemon.status["lag_ms"], daemon.status["last_message_at"]) == (None, None)
        await daemon.send(quote("SPY", 1.0, t=time.time_ns() - 100_000_000_000))
        assert daemon.status["last_message_at"] is not None
        assert daemon.status["lag_ms"] >= 100_000.0
        assert daemon.metric("spotd_lag_seconds") >= 100.0
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.send(quote("SPY", 1.0, t=time.time_ns() + 3_600_000_000_000))
        assert float(daemon.status["lag_ms"]) < 0
        assert daemon.metric("spotd_lag_seconds") < 0
        assert daemon.metric("spotd_feed_lag_seconds_sum") == 0.0


async def test_a_late_trade_is_no_lag(rig: NewRig, sim: Simulator) -> None:
    """Trades of the overnight feed are 15 minutes late by design, so only quotes count."""
    async with rig() as daemon:
        await daemon.want("SPY")
        late = time.time_ns() - 900_000_000_000
        await daemon.send(trade("SPY", 1.0, t=late))
        assert daemon.status["lag_ms"] is None

        async def measured() -> bool:  # a lag is read once in a while at most
            await daemon.send(quote("SPY", 1.0), trade("SPY", 1.0, t=late))
            return daemon.status["lag_ms"] is not None

        await until(measured, "the lag of the quote in front of the trade")
        assert daemon.metric("spotd_lag_seconds") < 900.0


async def test_what_is_no_price_says_nothing_about_lag(rig: NewRig, sim: Simulator) -> None:
    """A correction leaves the lag as it is."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await sim.send([{"T": "c", "S": "SPY"}])
        await until(lambda: daemon.daemon.prices.cache.ignored["correction"], "the correction")
        assert daemon.status["lag_ms"] is None


async def test_only_a_price_that_changed_is_published(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """A quote that is dropped publishes nothing; neither does a trade that is no last sale."""
    async with rig() as daemon, Recorder(server.url) as recorder:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1.0)
        await until(lambda: recorder.of("SPY"), "the first price")
        await daemon.quote("SPY", 0.0, 5.0)
        await daemon.send(trade("SPY", 9.0, c=["I"]))
        await daemon.quote("SPY", 2.0)
        await until(lambda: 2.0 in recorder.bids("SPY"), "the last price")
        assert recorder.bids("SPY") == [1.0, 2.0]
        assert recorder.updates("SPY")[-1]["last_price"] is None


def test_what_the_whole_market_covers_again_is_not_dropped() -> None:
    """A symbol that came back with the whole market keeps prices that Redis still holds."""
    demand = Value(Demand(frozenset("*")))
    prices = Prices(
        throttle_s=0.0,
        demand=demand,
        silence=Silence(),
        metrics=Metrics(),
    )
    priced = {"ANY", "SPY"}

    def change_to(after: Demand) -> None:
        before = demand.get()
        demand.set(after)
        prices.follow(step_between(before, after, active=NONE, priced=priced, limited=False))

    change_to(Demand())
    assert prices.dropping == priced
    change_to(Demand(frozenset("*")))
    assert not prices.dropping


async def test_a_busy_market_with_all_its_oddities(server: Server) -> None:
    """Everything that the simulated market sends is taken in, on one session."""
    model = MarketModel(
        quotes_per_s=20_000.0, one_sided_p=0.05, locked_p=0.05, crossed_p=0.05, two_flags_p=0.05,
        received_at_p=0.05, out_of_order_p=0.05, int_price_p=0.05,
    )  # fmt: skip
    async with Simulator(market=model) as sim, Rig(server.url, sim) as daemon:
        cache = daemon.daemon.prices.cache
        await daemon.want("SPY", "QQQ", "AAPL", "BRK.B")
        await until(lambda: cache.quotes_received > 3_000, "3,000 quotes")
        sim.faults.market_closed = True
        await until(lambda: cache.quotes_received == sim.stats.quotes_sent, "the last quote")
        assert cache.trades_received == sim.stats.trades_sent
        assert cache.dropped.keys() == {"one_sided"}
        assert sim.stats.connections == 1
        assert cache.slots.keys() == {"SPY", "QQQ", "AAPL", "BRK.B"}
        for slot in cache.slots.values():
            assert slot.bid > 0.0
            assert slot.ask > 0.0
        malformed = [
            line
            for line in daemon.daemon.metrics_text().decode().splitlines()
            if line.startswith("spotd_") and "malformed" in line and not line.endswith(" 0.0")
        ]
        assert not malformed
