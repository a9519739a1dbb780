"""The life of a symbol: demanded, published, leased, removed; and the end of the daemon."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from datetime import datetime
from functools import partial
from itertools import pairwise
from statistics import median

import pytest

from tests.e2e.kit import STOP_S, Command, World, quote, trade

SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT", "BRK.B")


async def test_a_demanded_symbol_is_published_within_a_second(world: World) -> None:
    """A new entry of the set has its price on its channel within 1 s, without any wake."""
    await world.daemon()
    recorder = await world.recorder()
    took = []
    for number, symbol in enumerate(SYMBOLS):
        await world.sim.send([quote(symbol, 100.0 + number, 100.5 + number)])
        before = time.monotonic()
        await world.want(symbol, wake=False)
        await world.until(partial(recorder.of, symbol), 5, f"{symbol} is published")
        took.append(recorder.of(symbol)[0].at - before)

    assert sorted(took)[-2] < 1.0, took  # one of the five may meet a busy machine
    assert recorder.prices("SPY") == [(100.0, 100.5)]


async def test_a_wake_takes_a_symbol_to_alpaca_within_100_ms(world: World) -> None:
    """After a message on the wake channel, Alpaca is asked for the symbol within 100 ms."""
    await world.daemon()
    await world.streaming("IBM")
    took = []
    for symbol in SYMBOLS:
        before = time.monotonic()
        await world.want(symbol)
        asked = await world.until(partial(world.asked, "subscribe", symbol), 5, "subscribe")
        took.append(asked - before)

    assert median(took) < 0.1, took  # without the wake it would be a quarter of a second


async def test_a_wake_unsubscribes_a_removed_symbol_within_100_ms(world: World) -> None:
    """After a message on the wake channel it is gone from Alpaca, and then from the hashes."""
    await world.daemon()
    await world.streaming("IBM", *SYMBOLS)
    await world.sim.send([quote(symbol, 10, 11) for symbol in SYMBOLS])
    for symbol in SYMBOLS:
        await world.until(partial(world.last, symbol), 5, f"{symbol} published")
    took = []
    for symbol in SYMBOLS:
        before = time.monotonic()
        await world.redis.srem("spotd:symbols", symbol)
        await world.redis.publish("spotd:wake", "look")
        asked = await world.until(partial(world.asked, "unsubscribe", symbol), 5, "unsubscribe")
        took.append(asked - before)
        await world.until(partial(_no_fields, world, symbol), 1, "no field is left")

    assert median(took) < 0.1, took
    assert await world.live("IBM")


async def test_entries_are_trimmed_and_upper_cased(world: World) -> None:
    """``  spy `` is SPY, and what is no symbol is refused without disturbing any other."""
    await world.daemon()
    await world.sim.send([quote("SPY", 10, 11)])
    await world.want("  spy ", "not a symbol", "1234", "*")
    await world.until(lambda: world.live("SPY"), 5, "SPY live")

    await world.until(lambda: world.last("SPY"), 5, "SPY published")
    for entry in ("not a symbol", "1234", "*"):
        assert await world.symbol_state(entry) == "refused"


async def test_a_lease_lives_as_long_as_it_is_renewed(world: World) -> None:
    """A lease that lapses is unsubscribed and leaves no field; one that is renewed lives on."""
    await world.daemon()
    await world.sim.send([quote("IBM", 10, 11), quote("KO", 20, 21)])
    lapses = time.time() + 2.0
    await world.redis.zadd("spotd:leases", {"IBM@web-1": lapses, "KO@web-2": lapses})
    await world.redis.publish("spotd:wake", "")
    await world.until(lambda: world.live("IBM", "KO"), 5, "both live")
    await world.until(lambda: world.last("IBM"), 5, "IBM published")

    async def gone() -> bool:
        """Renew one, and look whether the other has left."""
        await world.redis.zadd("spotd:leases", {"KO@web-2": time.time() + 2.0})
        return await world.symbol_state("IBM") is None and await world.last("IBM") is None

    await world.until(gone, 5, "IBM's fields are gone")
    left = time.time() - lapses
    assert -0.05 <= left < 1.5, left
    assert world.asked("unsubscribe", "IBM")
    assert await world.redis.zrange("spotd:leases", 0, -1) == [b"KO@web-2"]
    assert world.asked("unsubscribe", "KO") is None
    assert await world.live("KO")
    assert await world.last("KO")


async def test_one_of_two_leases_is_enough(world: World) -> None:
    """A symbol stays as long as any of its leases, or the set, wants it."""
    await world.daemon()
    now = time.time()
    await world.redis.zadd("spotd:leases", {"IBM@a": now + 1.0, "IBM@b": now + 60})
    await world.streaming("KO")

    async def removed() -> bool:
        return await world.redis.zscore("spotd:leases", "IBM@a") is None

    await world.until(removed, 5, "the first lease is over")

    assert world.asked("unsubscribe", "IBM") is None
    assert await world.live("IBM")


async def test_a_removed_symbol_is_unsubscribed_and_leaves_no_field(world: World) -> None:
    """SREM ends the subscription within 1 s, and the fields in ``last`` and ``states`` go."""
    await world.daemon()
    await world.streaming("SPY", "QQQ")
    await world.sim.send([quote("SPY", 10, 11), quote("QQQ", 20, 21)])
    await world.until(lambda: world.last("SPY"), 5, "SPY published")
    before = time.monotonic()
    await world.redis.srem("spotd:symbols", "SPY")

    asked = await world.until(lambda: world.asked("unsubscribe", "SPY"), 5, "unsubscribe")
    assert asked - before < 1.0
    await world.until(lambda: _no_fields(world, "SPY"), 1, "no field is left")
    assert await world.live("QQQ")
    assert await world.last("QQQ")


async def test_late_data_of_a_removed_symbol_brings_nothing_back(world: World) -> None:
    """Quotes that Alpaca still sends after the unsubscribe are not published."""
    await world.daemon()
    world.sim.faults.late_data_s = 3.0
    await world.streaming("SPY", "QQQ")
    recorder = await world.recorder()
    await world.redis.srem("spotd:symbols", "SPY")
    await world.until(lambda: _no_fields(world, "SPY"), 3, "no field is left")
    await world.sim.send([quote("SPY", 66, 67), quote("QQQ", 20, 21)])

    await world.until(lambda: recorder.of("QQQ"), 3, "QQQ published")
    assert recorder.of("SPY") == []
    assert await _no_fields(world, "SPY")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_an_asked_for_stop_is_orderly(world: World, number: signal.Signals) -> None:
    """Within 5 s: pending value out, close frame sent, leader key and status gone, code 0."""
    daemon = await world.daemon(SPOTD_THROTTLE_MS="30000")
    recorder = await world.recorder()
    await world.streaming("SPY")
    await world.sim.send([quote("SPY", 10, 11)])
    await world.until(lambda: recorder.of("SPY"), 3, "the first value")
    await world.sim.send([quote("SPY", 12, 13), trade("SPY", 12.5)])
    await world.until(lambda: _took_in(daemon), 3, "the second came in")
    assert recorder.prices("SPY") == [(10, 11)]

    code, took = await daemon.stop(number)

    assert code == 0
    assert took < STOP_S
    await world.until(lambda: len(recorder.of("SPY")) == 2, 1, "the pending value")
    assert recorder.prices("SPY") == [(10, 11), (12, 13)]
    assert recorder.of("SPY")[-1].json["last_price"] == 12.5
    await world.sim.wait_for(world.closes)
    assert world.closes() == [1000]
    assert await world.redis.exists("spotd:leader", "spotd:status") == 0
    assert "Traceback" not in daemon.output


async def test_the_status_is_refreshed_and_dies_with_the_daemon(world: World) -> None:
    """``spotd:status`` has a TTL of at most 15 s and is written at least every 5 s."""
    await world.daemon()
    told: list[float] = []

    async def refreshed() -> bool:
        raw = await world.redis.get("spotd:status")
        if raw is None and not told:
            return False  # not written for the first time yet
        status = json.loads(raw)
        assert 10_000 < await world.redis.pttl("spotd:status") <= 15_000
        at = datetime.fromisoformat(status["at"]).timestamp()
        if at not in told:
            told.append(at)
        return len(told) >= 4

    await world.until(refreshed, 20, "the status is refreshed again and again")
    assert max(b - a for a, b in pairwise(told)) <= 5.0, told


async def _no_fields(world: World, symbol: str) -> bool:
    last, state = await asyncio.gather(world.last(symbol), world.symbol_state(symbol))
    return last is None and state is None


async def _took_in(daemon: Command) -> bool:
    numbers = await daemon.metrics()
    return (
        numbers["spotd_quotes_received_total"] == 2 and numbers["spotd_trades_received_total"] == 1
    )
