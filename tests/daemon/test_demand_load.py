"""A demand that is large, foul, or changes all the time: no price waits for it, and it is met."""

from __future__ import annotations

import random
import time

from spotd.simulator import Simulator
from tests.daemon.rig import NewRig
from tests.kit.waiting import until


async def test_symbols_that_come_and_go_without_end(rig: NewRig, sim: Simulator) -> None:
    """After 3,000 SADD and SREM, each with a wake, exactly the last demand is active."""
    chance, symbols = random.Random(1), [f"S{chr(65 + n)}" for n in range(26)]
    wanted = {"SPY"}
    async with rig() as daemon:
        await daemon.want("SPY")
        keys, redis = daemon.settings.keys, daemon.values.redis
        for number in range(30):
            async with redis.pipeline(transaction=False) as batch:
                for _ in range(100):
                    symbol = chance.choice(symbols)
                    wanted ^= {symbol}
                    (batch.sadd if symbol in wanted else batch.srem)(keys.symbols, symbol)
                    batch.publish(keys.wake, "")
                await batch.execute()
            await daemon.quote("SPY", number + 1)
        await until(lambda: daemon.values.has("SPY", 30), "the newest price")
        await until(lambda: daemon.active == wanted, "the last demand")
        await until(lambda: daemon.values.live(*wanted), "its states")
        assert daemon.works()
    assert len(sim.received.of("connect")) == 1


async def test_fifty_thousand_leases(rig: NewRig, sim: Simulator) -> None:
    """Those of 500 services for 100 symbols: each symbol is asked for once, and ends with them."""
    symbols = [f"L{chr(65 + n // 10)}{chr(65 + n % 10)}" for n in range(100)]
    async with rig() as daemon:
        keys, redis = daemon.settings.keys, daemon.values.redis
        ends = time.time() + 3_600
        for owner in range(500):
            await redis.zadd(keys.leases, {f"{symbol}@service-{owner}": ends for symbol in symbols})
        await until(lambda: daemon.active == set(symbols), "all symbols")
        await daemon.quote(symbols[0], 1)
        await until(lambda: daemon.values.has(symbols[0], 1), "the price")
        asked = [
            symbol
            for message in sim.received.messages("subscribe")
            for symbol in message.get("quotes", ())
        ]
        assert sorted(asked) == symbols
        await redis.delete(keys.leases)
        await until(lambda: not daemon.active, "their end")


async def test_entries_of_ten_megabytes(rig: NewRig, sim: Simulator) -> None:
    """They are refused under their first 64 characters; all other symbols are served."""
    async with rig() as daemon:
        await daemon.values.redis.sadd(daemon.settings.keys.symbols, "x" * 10_000_000, "SPY")
        await daemon.values.wake()
        await until(lambda: daemon.active == {"SPY"}, "SPY")
        await daemon.quote("SPY", 1)
        await until(lambda: daemon.values.has("SPY", 1), "the price")
        await until(lambda: daemon.values.state("x" * 64), "the refusal")
        assert await daemon.values.state("x" * 64) == "refused"
        await until(daemon.works, "calm")
