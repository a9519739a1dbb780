"""Joining without a gap: SUBSCRIBE, HGET, drop by ``seq``. And ``seq`` over restarts."""

from __future__ import annotations

import json
import time
from functools import partial

from tests.e2e.kit import Recorder, World, quote

SYMBOLS = ("SPY", "QQQ", "AAPL")


async def test_a_joiner_misses_nothing_and_gets_nothing_twice(market: World) -> None:
    """What a joiner holds, then hears, is what one hears who was there all along."""
    await market.daemon(SPOTD_THROTTLE_MS="20")
    witness = await market.recorder()
    await market.streaming(*SYMBOLS)
    for round_ in range(10):
        most = len(witness.of("SPY"))
        await market.until(partial(_more_than, witness, most), 5, "the market moves")

        joiner = await market.recorder("spot:SPY")
        held = await market.redis.hget("spotd:last", "SPY")
        seq = json.loads(held)["seq"]
        await market.until(partial(_more_than, joiner, 5), 5, f"joiner {round_} hears")
        after = [h.raw for h in joiner.of("SPY") if h.json["seq"] > seq]
        await market.until(partial(_has, witness, after[-1]), 5, "the witness has heard as much")
        all_along = [h.raw for h in witness.of("SPY")]
        first, final = all_along.index(held), all_along.index(after[-1])
        assert [held, *after] == all_along[first : final + 1]
        await joiner.stop()


async def test_last_holds_the_bytes_of_the_channel(market: World) -> None:
    """Whenever one looks, ``spotd:last`` holds what was said on the channel, byte for byte."""
    await market.daemon(SPOTD_THROTTLE_MS="20")
    witness = await market.recorder()
    await market.streaming(*SYMBOLS)
    looked: set[bytes] = set()

    async def look() -> bool:
        looked.update((await market.redis.hgetall("spotd:last")).values())
        return len(looked) >= 200

    await market.until(look, 10, "200 values seen in the hash")
    market.sim.faults.market_closed = True

    async def the_same() -> bool:
        last = await market.redis.hgetall("spotd:last")
        return all(witness.of(s) and witness.of(s)[-1].raw == last[s.encode()] for s in SYMBOLS)

    await market.until(the_same, 5, "hash and channel end with the same bytes")
    assert looked <= {h.raw for h in witness.heard}


async def test_seq_rises_over_a_restart(market: World) -> None:
    """A daemon that is stopped and started again goes on above the ``seq`` it ended with."""
    recorder = await market.recorder()
    for run in ("first", "second", "third"):
        daemon = await market.daemon(run, SPOTD_THROTTLE_MS="10")
        await market.streaming(*SYMBOLS)
        most = len(recorder.of("SPY"))
        await market.until(partial(_more_than, recorder, most + 5), 5, "prices go on")
        assert (await daemon.stop())[0] == 0

    assert recorder.check_order() > 20


async def test_seq_rises_although_the_predecessor_had_a_clock_ahead(world: World) -> None:
    """A successor starts above the highest ``seq`` ever published, whatever its own clock says."""
    ahead = int((time.time() + 3_600) * 1_000_000)
    await world.redis.set("spotd:seq", ahead)
    await world.daemon()
    recorder = await world.recorder()
    await world.streaming("SPY")
    for price in (10, 11, 12):
        await world.sim.send([quote("SPY", price, price + 1)])
        await world.until(partial(_more_than, recorder, price - 10), 3, "it is published")

    seqs = [h.json["seq"] for h in recorder.of("SPY")]
    assert seqs[0] > ahead
    assert max(seqs) < 2**53


async def test_an_update_has_the_fields_of_the_contract(world: World) -> None:
    """Exactly the contract's fields, types and formats, ``last_price`` null until one is known."""
    await world.daemon()
    recorder = await world.recorder()
    await world.streaming("SPY")
    await world.sim.send(
        [quote("SPY", 421.35, 421.39, t="2026-01-20T05:12:00Z")],
    )
    await world.until(lambda: recorder.of("SPY"), 3, "published")

    raw = recorder.of("SPY")[0].raw
    seq = json.loads(raw)["seq"]
    assert raw == (
        b'{"symbol":"SPY","bid_price":421.35,"ask_price":421.39,"mid_price":421.37,'
        b'"last_price":null,"timestamp":"2026-01-20T05:12:00.000000Z","seq":%d}' % seq
    )
    assert abs(seq / 1e6 - time.time()) < 60


def _more_than(recorder: Recorder, updates: int) -> bool:
    return len(recorder.of("SPY")) > updates


def _has(recorder: Recorder, raw: bytes) -> bool:
    return any(h.raw == raw for h in recorder.of("SPY"))
