"""Cancelled, corrected and late trades, from Alpaca's stream and REST to what Redis holds.

Which trade is the last sale is proved in tests/core/test_last_sales.py.
"""

from __future__ import annotations

import time
from typing import Any

from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.waiting import until


async def last_price(daemon: Rig, expected: float | None) -> dict[str, Any]:
    """Wait until Redis holds this last price of SPY. Return the update."""

    async def found() -> dict[str, Any] | None:
        last = await daemon.values.last("SPY")
        return last if last is not None and last["last_price"] == expected else None

    update: dict[str, Any] = await until(found, f"the last price {expected}")
    return update


async def test_a_cancelled_trade_gives_way_to_the_sale_before(rig: NewRig, sim: Simulator) -> None:
    """It gives way to null where none is known. Both are counted, and a new trade counts again."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.send(
            quote("SPY", 600_000.0),
            trade("SPY", 600_000.0, i=1, x="N"),
            trade("SPY", 185.1, i=2, x="N"),
        )
        await last_price(daemon, 185.1)
        await sim.send([{"T": "x", "S": "SPY", "i": 2, "x": "N", "p": 185.1}])
        await last_price(daemon, 600_000.0)
        await sim.send([{"T": "x", "S": "SPY", "i": 1, "x": "N"}])
        await last_price(daemon, None)
        await daemon.send(trade("SPY", 600_001.0, i=3, x="N"))
        await last_price(daemon, 600_001.0)
        assert daemon.metric("spotd_trades_cancelled_total") == 2.0


async def test_a_corrected_trade_gives_way_to_its_correction(rig: NewRig, sim: Simulator) -> None:
    """Another trade may have come in between, and the correction may be cancelled later."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.send(quote("SPY", 39.0), trade("SPY", 1.0, i=1), trade("SPY", 2.0, i=2))
        await sim.send([{"T": "c", "S": "SPY", "oi": 2, "op": 2.0, "ci": 5, "cp": 39.01}])
        await last_price(daemon, 39.01)
        await sim.send([{"T": "c", "S": "SPY", "oi": 1, "op": 1.0, "ci": 6, "cp": 39.02}])
        await sim.send([{"T": "x", "S": "SPY", "i": 5}])
        await last_price(daemon, 39.02)
        assert daemon.metric("spotd_trades_corrected_total") == 2.0


async def test_a_late_print_replaces_no_newer_sale(rig: NewRig, sim: Simulator) -> None:
    """A print of ten minutes ago, without a condition that says so, changes nothing."""
    now_ns = time.time_ns()
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.send(quote("SPY", 1.0, t=now_ns), trade("SPY", 1.5, t=now_ns))
        before = await last_price(daemon, 1.5)
        await daemon.send(trade("SPY", 9.0, t=now_ns - 600_000_000_000))
        await daemon.send(quote("SPY", 1.1, t=now_ns))
        await until(lambda: daemon.values.bid("SPY"), "the next quote")
        after = await last_price(daemon, 1.5)
        assert after["timestamp"] == before["timestamp"]
        assert daemon.metric('spotd_messages_ignored_total{kind="trade_late"}') == 1.0


async def test_a_trade_of_rest_can_be_cancelled(rig: NewRig, sim: Simulator) -> None:
    """REST still shows it after a reconnect, when it is not taken in again."""
    await sim.send([quote("SPY", 1.0), trade("SPY", 0.01, i=7)])
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY")
        await last_price(daemon, 0.01)
        await sim.send([{"T": "x", "S": "SPY", "i": 7}])
        await last_price(daemon, None)
        asked = sim.stats.rest_requests
        await sim.drop_sessions("close", 1012)
        await until(lambda: sim.stats.rest_requests > asked, "the next snapshot")
        await daemon.want("SPY")
        await daemon.quote("SPY", 2.0)
        await until(lambda: daemon.values.has("SPY", 2.0), "the next price")
        await last_price(daemon, None)
