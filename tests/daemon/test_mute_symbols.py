"""One symbol that is dead while others flow is found, renewed, and gets REST's prices meanwhile.

Whom to ask about, and what counts as mute, is proved in tests/core/test_mute_symbols.py.
"""

from __future__ import annotations

import time
from typing import Any

from spotd.core.mute_symbols import MuteSymbolTimes
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

BRISK: dict[str, Any] = {
    "mute_symbols": MuteSymbolTimes(
        silent_s=1.0, grace_s=0.1, round_s=0.05, retry_s=0.05, renew_every_s=0.3
    ),
    "flow_every_s": 0.02,
}


def seconds_ago(seconds: float) -> int:
    """Return a time as Alpaca's, in nanoseconds since 1970."""
    return time.time_ns() - int(seconds * 1e9)


async def begin(daemon: Rig) -> None:
    """Have SPY, which flows, and DEAD live, the latter with a quote of a minute ago."""
    await daemon.want("SPY", "DEAD")
    await daemon.send(quote("SPY", 10.0), quote("DEAD", 100.0, t=seconds_ago(60)))
    await until(lambda: daemon.values.bid("DEAD"), "its price")


async def flow(daemon: Rig) -> None:
    """Have the stream bring SPY."""
    await daemon.quote("SPY", 10.0)


async def until_mute(daemon: Rig) -> None:
    """Have the stream bring SPY until DEAD is mute."""

    async def mute() -> bool:
        await flow(daemon)
        return "DEAD" in daemon.daemon.prices.mute.get()

    await until(mute, "DEAD to be mute")


async def test_a_dead_symbol_is_stale_renewed_and_priced_by_rest(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """It is stale for as long as REST alone brings its prices, and live at its next quote."""
    async with Recorder(server.url) as recorder, rig(timing=BRISK) as daemon:
        await begin(daemon)
        await until(lambda: recorder.states("DEAD")[-1:] == ["live"], "live")
        sim.faults.mute_symbols = {"DEAD"}
        await sim.send([quote("DEAD", 101.0, t=seconds_ago(30))])
        await until_mute(daemon)
        await until(lambda: recorder.states("DEAD")[-1] == "stale", "stale")
        [stale] = [event for event in recorder.events("symbol") if event["state"] == "stale"]
        assert (stale["symbol"], stale["code"]) == ("DEAD", "mute")
        await until(lambda: recorder.bids("DEAD") == [100.0, 101.0], "the price of REST")
        renewed = [{"action": "unsubscribe", "quotes": ["DEAD"], "trades": ["DEAD"]}]
        await until(lambda: sim.received.messages("unsubscribe")[:1] == renewed, "unsubscribed")
        await until(lambda: "DEAD" in daemon.active, "subscribed again")
        assert await daemon.values.state("DEAD") == "stale"

        await sim.send([quote("DEAD", 102.0, t=seconds_ago(20))])

        async def refreshed() -> bool:
            await flow(daemon)
            return recorder.bids("DEAD")[-1] == 102.0

        await until(refreshed, "the next price of REST")
        assert recorder.states("DEAD")[-1] == "stale"

        sim.faults.mute_symbols = set()

        async def live() -> bool:  # a quote that comes while it is renewed is lost
            await sim.send([quote("DEAD", 103.0)])
            return recorder.states("DEAD")[-1] == "live"

        await until(live, "live")
        assert "stale" not in recorder.states("SPY")
        assert daemon.daemon.metrics.reconnects_total == 0


async def test_symbols_that_are_only_sleepy_raise_no_alarm(rig: NewRig, sim: Simulator) -> None:
    """REST is asked about them in every round, and knows nothing newer."""
    async with rig(timing=BRISK) as daemon:
        await begin(daemon)

        async def asked() -> bool:
            await flow(daemon)
            return sim.stats.rest_requests >= 5

        await until(asked, "REST to be asked")
        assert not daemon.daemon.prices.mute.get()
        assert not sim.received.messages("unsubscribe")


async def test_a_failing_rest_proves_nothing(rig: NewRig, sim: Simulator) -> None:
    """It is asked again after a while, and the symbol is found then."""
    async with rig(timing=BRISK) as daemon:
        await begin(daemon)
        sim.faults.mute_symbols = {"DEAD"}
        sim.faults.rest_status = 503
        await sim.send([quote("DEAD", 101.0, t=seconds_ago(30))])

        async def asked() -> bool:
            await flow(daemon)
            return sim.stats.rest_requests >= 3

        await until(asked, "REST to be asked")
        assert not daemon.daemon.prices.mute.get()
        sim.faults.rest_status = 0
        await until_mute(daemon)


async def test_a_silent_stream_is_left_to_the_silence(rig: NewRig, sim: Simulator) -> None:
    """Without quotes of any symbol, nobody is asked about single ones."""
    async with rig(timing=BRISK) as daemon:
        await daemon.want("SPY", "DEAD")
        sim.faults.mute = True
        await sim.send([quote("DEAD", 101.0)])
        await until(lambda: daemon.values.live("DEAD"), "live")
        assert sim.stats.rest_requests == 0


async def test_a_mute_symbol_of_the_whole_market_is_priced_by_rest(
    rig: NewRig, sim: Simulator
) -> None:
    """It cannot be subscribed by itself, so only its price is taken."""
    async with rig(timing=BRISK, allow_wildcard=True) as daemon:
        await daemon.want("*")
        await daemon.send(quote("SPY", 10.0), quote("DEAD", 100.0, t=seconds_ago(60)))
        sim.faults.mute_symbols = {"DEAD"}
        await sim.send([quote("DEAD", 101.0, t=seconds_ago(30)), trade("SPY", 10.0)])
        await until_mute(daemon)
        await until(lambda: daemon.values.has("DEAD", 101.0), "the price of REST")
        assert not sim.received.messages("unsubscribe")
