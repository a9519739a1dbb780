"""Joining without a gap: SUBSCRIBE, HGET, drop by ``seq``. And ``seq`` over restarts."""

from __future__ import annotations

import json
import time
from functools import partial

from tests.e2e.setup import Setup, quote
from tests.kit.recorder import Recorder

SYMBOLS = ("SPY", "QQQ", "AAPL")


async def test_a_joiner_misses_nothing_and_gets_nothing_twice(market: Setup) -> None:
    """What a joiner holds, then hears, is what a subscriber hears who was there all along.

    And ``spotd:last`` only ever holds the bytes of the channel, to the last update.
    """
    await market.daemon(SPOTD_THROTTLE_MS="20")
    witness = await market.recorder()
    await market.streaming(*SYMBOLS)
    stored: set[bytes] = set()
    for round_ in range(10):
        most = len(witness.of("SPY"))
        await market.until(partial(witness.has_more, "SPY", most), "the market moves")

        joiner = await market.recorder("spot:SPY")
        held = await market.redis.hget("spotd:last", "SPY")
        seq = json.loads(held)["seq"]
        await market.until(lambda: len(_behind(joiner, seq)) > 5, f"joiner {round_} hears")  # noqa: B023
        after = _behind(joiner, seq)
        await market.until(partial(_has, witness, after[-1]), "the witness has heard as much")
        all_along = witness.raw("SPY")
        first, final = all_along.index(held), all_along.index(after[-1])
        assert [held, *after] == all_along[first : final + 1]
        await joiner.stop()
        stored.update((await market.redis.hgetall("spotd:last")).values())

    market.sim.faults.market_closed = True

    async def the_same() -> bool:
        last = await market.redis.hgetall("spotd:last")
        return all(witness.of(s) and witness.raw(s)[-1] == last[s.encode()] for s in SYMBOLS)

    await market.until(the_same, "hash and channel end with the same bytes")
    assert len(stored) >= 10
    assert stored <= {h.raw for h in witness.heard}


async def test_seq_rises_over_a_restart(market: Setup) -> None:
    """A daemon that is stopped and started again goes on above the ``seq`` it ended with."""
    recorder = await market.recorder()
    for run in ("first", "second"):
        daemon = await market.daemon(run, SPOTD_THROTTLE_MS="10")
        await market.streaming(*SYMBOLS)
        most = len(recorder.of("SPY"))
        await market.until(partial(recorder.has_more, "SPY", most + 5), "prices go on")
        assert await daemon.stop() == 0

    assert recorder.check_order() > 10


async def test_seq_rises_although_the_predecessor_had_a_clock_ahead(setup: Setup) -> None:
    """A successor starts above the highest ``seq`` ever published, whatever its own clock says."""
    ahead = int((time.time() + 3_600) * 1_000_000)
    await setup.redis.set("spotd:seq", ahead)
    await setup.daemon()
    recorder = await setup.recorder()
    await setup.streaming("SPY")
    for price in (10, 11, 12):
        await setup.sim.send([quote("SPY", price, price + 1)])
        await setup.until(partial(recorder.has_more, "SPY", price - 10), "it is published")

    seqs = recorder.seqs("SPY")
    assert seqs[0] > ahead
    assert max(seqs) < 2**53


def _behind(recorder: Recorder, seq: int) -> list[bytes]:
    return [h.raw for h in recorder.of("SPY") if h.json["seq"] > seq]


def _has(recorder: Recorder, raw: bytes) -> bool:
    return any(h.raw == raw for h in recorder.of("SPY"))
