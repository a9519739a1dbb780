"""A mute stream is found by asking REST, ended and opened anew; a silent market is left alone.

When REST is asked, and what its answer means, is proved in tests/core/test_freshness.py.
"""

from __future__ import annotations

import asyncio
from itertools import cycle
from typing import Any

from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

SILENCE_S = 0.1
EARLIER, LATER = "2026-01-05T15:00:00Z", "2026-01-05T15:00:30Z"


async def begin(daemon: Rig) -> None:
    """Have SPY live, with one price of the earlier time."""
    await daemon.want("SPY")
    await daemon.send(quote("SPY", 100.0, t=EARLIER))
    await until(lambda: daemon.values.bid("SPY"), "the first price")
    await until(lambda: daemon.values.live("SPY"), "live")


async def go_mute(sim: Simulator, *messages: dict[str, Any]) -> None:
    """Have Alpaca withhold messages from the stream that REST knows."""
    sim.faults.mute = True
    await sim.send(messages)


async def asked(sim: Simulator, times: int) -> None:
    """Wait until REST was asked ``times`` more."""
    before = sim.stats.rest_requests
    await until(lambda: sim.stats.rest_requests >= before + times, "REST to be asked")


async def test_a_mute_stream_is_stale_and_opened_anew_with_the_prices_of_rest(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """When REST is ahead of a silent stream, its price is published and the stream reopened."""
    async with Recorder(server.url) as recorder, rig(silence_s=SILENCE_S) as daemon:
        await begin(daemon)
        sim.faults.handshake_hang = True  # until the test has seen that SPY is stale
        await go_mute(sim, quote("SPY", 101.0, t=LATER))
        await until(lambda: recorder.bids("SPY") == [100.0, 101.0], "the price of REST")
        await until(lambda: recorder.states("SPY")[-1] == "stale", "stale")

        sim.faults.mute = False
        sim.faults.handshake_hang = False
        await until(lambda: recorder.states("SPY")[-1] == "live", "live again")
        await daemon.send(quote("SPY", 102.0, t="2026-01-05T15:00:31Z"))
        await until(lambda: recorder.bids("SPY") == [100.0, 101.0, 102.0], "the new session")
        assert daemon.daemon.metrics.reconnects == {"mute": 1}


async def test_a_mute_stream_is_found_while_the_demand_changes(rig: NewRig, sim: Simulator) -> None:
    """An acknowledgement is no data, however many come."""
    async with rig(silence_s=0.5) as daemon:
        await begin(daemon)
        sim.faults.rest_hang = True  # until enough have come
        await go_mute(sim, quote("SPY", 101.0, t=LATER))

        async def change() -> None:
            for symbol in cycle(("QQQ", "IWM")):
                await daemon.want_only("SPY", symbol)

        before = len(sim.received.messages("subscribe"))
        changing = asyncio.create_task(change())
        await until(lambda: len(sim.received.messages("subscribe")) > before + 2, "some changes")
        sim.faults.rest_hang = False
        await until(lambda: daemon.daemon.metrics.reconnects["mute"], "the verdict")
        changing.cancel()


async def test_rest_brings_no_last_price_where_trades_are_not_streamed(
    rig: NewRig, sim: Simulator
) -> None:
    """Only REST's quote replaces that of a mute stream."""
    async with rig(silence_s=SILENCE_S, trades=False) as daemon:
        await begin(daemon)
        await go_mute(sim, quote("SPY", 101.0, t=LATER), trade("SPY", 101.5, t=LATER))

        async def from_rest() -> Any:
            last = await daemon.values.last("SPY")
            return last if last and last["bid_price"] == 101.0 else None

        assert (await until(from_rest, "the price of REST"))["last_price"] is None


async def test_a_silent_market_is_not_taken_for_a_mute_stream(rig: NewRig, sim: Simulator) -> None:
    """While REST knows nothing newer, the stream stays open, however often REST is asked."""
    async with rig(silence_s=SILENCE_S) as daemon:
        await begin(daemon)
        await asked(sim, 3)
        assert daemon.daemon.metrics.reconnects_total == 0
        assert daemon.status["state"] == "streaming"


async def test_a_rest_that_fails_says_nothing_about_the_stream(rig: NewRig, sim: Simulator) -> None:
    """When REST cannot be asked, the stream is left alone, and REST is asked again later."""
    async with rig(silence_s=SILENCE_S) as daemon:
        await begin(daemon)
        sim.faults.rest_status = 503
        await go_mute(sim, quote("SPY", 101.0, t=LATER))
        await asked(sim, 2)
        assert daemon.daemon.metrics.reconnects_total == 0
        sim.faults.rest_status = 0
        await until(lambda: daemon.daemon.metrics.reconnects["mute"], "REST to be asked again")


async def test_quotes_withdrawn_at_the_close_are_not_taken_for_a_mute_stream(
    rig: NewRig, sim: Simulator
) -> None:
    """The stream brought the one-sided quote that REST holds, although its price is not kept."""
    async with rig(silence_s=SILENCE_S) as daemon:
        await begin(daemon)
        await daemon.send(quote("SPY", 0.0, t=LATER))
        await asked(sim, 3)
        assert daemon.daemon.metrics.reconnects_total == 0


async def test_an_answer_about_a_session_that_has_ended_is_void(
    rig: NewRig, sim: Simulator
) -> None:
    """The next session is called mute only after REST was asked about that one."""
    async with rig(silence_s=SILENCE_S) as daemon:
        await begin(daemon)
        sim.faults.rest_hang = True
        await go_mute(sim, quote("SPY", 101.0, t=LATER))
        before = sim.stats.rest_requests
        await asked(sim, 1)
        await sim.drop_sessions("abort")
        await until(lambda: daemon.daemon.metrics.reconnects_total, "the session's end")
        await until(lambda: daemon.active, "the next session")
        sim.faults.rest_hang = False
        await until(lambda: daemon.daemon.metrics.reconnects["mute"], "the next session's end")
        assert sim.stats.rest_requests == before + 2


async def test_a_symbol_without_a_price_gets_it_when_rest_knows_one(
    rig: NewRig, sim: Simulator
) -> None:
    """Its first snapshot may have failed, and its market may be silent."""
    async with rig(silence_s=SILENCE_S) as daemon:
        await daemon.want("SPY")
        await go_mute(sim, quote("SPY", 100.0, t=EARLIER))
        await until(lambda: daemon.values.bid("SPY"), "the price of REST")
        assert daemon.daemon.metrics.reconnects_total == 0
