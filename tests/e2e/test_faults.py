"""Redis dies, the stream is cut: what is newest arrives, and nobody is told a lie meanwhile."""

from __future__ import annotations

import signal
import time
from functools import partial

import pytest

from tests.e2e.kit import Command, Recorder, World, quote, say

SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT")
TTL_S = 2


async def _prices(world: World, at: float) -> None:
    """Every symbol quoted around a price."""
    await world.sim.send([quote(s, at + n, at + n + 0.5) for n, s in enumerate(SYMBOLS)])


async def _last_are(world: World, at: float) -> bool:
    last = [await world.last(symbol) for symbol in SYMBOLS]
    return [u and u["bid_price"] for u in last] == [at + n for n in range(len(SYMBOLS))]


async def _is(daemon: Command, state: str) -> bool:
    return await daemon.state() == state


async def _streaming(world: World, ttl_s: int = TTL_S) -> Command:
    daemon = await world.daemon(SPOTD_LEADER_TTL_S=str(ttl_s))
    await world.streaming(*SYMBOLS)
    await _prices(world, 100)
    await world.until(partial(_last_are, world, 100), 3, "first prices")
    return daemon


async def test_what_changed_while_redis_was_away_is_published_within_a_second(
    world: World,
) -> None:
    """A short absence: one newest value of each symbol, from the stream that stayed open."""
    await _streaming(world, ttl_s=20)
    seqs = {s: (await world.last(s) or {})["seq"] for s in SYMBOLS}
    recorder = await world.recorder()
    world.store.kill()
    for price in (200, 300, 400):
        await _prices(world, price)
    await world.store.start()
    back = time.monotonic()
    await world.want(*SYMBOLS)  # services say again what they want: the data set was lost
    await world.until(partial(_last_are, world, 400), 3, "the newest of each symbol")

    assert time.monotonic() - back < 1.0
    for symbol in SYMBOLS:
        assert (await world.last(symbol) or {})["seq"] > seqs[symbol]
        assert set(recorder.prices(symbol)) <= {recorder.prices(symbol)[-1]}
    assert world.sim.stats.connections == 1, world.logs()


async def test_what_redis_lost_is_written_again(world: World) -> None:
    """Prices, states and status of quiet symbols are back within one refresh of the status."""
    await _streaming(world, ttl_s=20)
    world.store.kill()
    await world.store.start()
    back = time.monotonic()
    await world.want(*SYMBOLS)
    await world.until(partial(_last_are, world, 100), 6, "the prices")
    await world.until(lambda: world.live(*SYMBOLS), 6, "the states")
    await world.until(lambda: world.redis.get("spotd:status"), 6, "the status")

    took = time.monotonic() - back
    say(f"quiet symbols are back after {took:.2f} s")
    assert took < 5.0


async def test_a_redis_that_comes_back_with_its_data(world: World) -> None:
    """Where the data set survives, the demand does too: nobody has to ask again."""
    await world.store.persist()
    daemon = await _streaming(world, ttl_s=20)
    recorder = await world.recorder()
    world.store.kill()
    await _prices(world, 200)
    await world.store.start(anew=False)
    back = time.monotonic()
    await world.until(partial(_last_are, world, 200), 3, "the newest of each symbol")

    assert time.monotonic() - back < 1.0
    assert world.asked("unsubscribe", "SPY") is None
    await _prices(world, 300)
    await world.until(partial(_last_are, world, 300), 3, "updates go on")
    await world.until(daemon.ready, 3, "ready again")
    assert recorder.prices("SPY")[-1][0] == 300


async def test_a_redis_away_for_longer_than_the_lease(world: World) -> None:
    """The stream is closed with its lease, opened anew, and REST knows what was missed."""
    daemon = await _streaming(world)
    world.store.kill()
    await world.until(world.closes, TTL_S + 2, "the stream is closed")
    assert world.closes() == [1000]
    await world.until(partial(_metric_is, daemon, "spotd_leader", 0), 1, "leads no more")
    assert not await daemon.ready()
    await _prices(world, 500)  # nobody is connected: REST alone knows these
    await world.store.start()
    back = time.monotonic()
    await world.want(*SYMBOLS)
    await world.until(partial(_last_are, world, 500), 5, "the newest of each symbol")

    assert time.monotonic() - back < 1.0
    await world.until(lambda: world.live(*SYMBOLS), 3, "all live again")
    await world.until(daemon.ready, 3, "ready again")
    assert world.sim.stats.connections == 2
    await _prices(world, 600)
    await world.until(partial(_last_are, world, 600), 3, "updates go on")


async def test_a_redis_that_hangs_is_like_one_that_is_gone(world: World) -> None:
    """Frozen for longer than the lease: the stream is closed; awake, all is as before."""
    daemon = await _streaming(world)
    recorder = await world.recorder()
    world.store.send(signal.SIGSTOP)
    await _prices(world, 200)
    await world.until(world.closes, TTL_S + 3, "the stream is closed")
    await _prices(world, 300)
    world.store.send(signal.SIGCONT)
    await world.until(partial(_last_are, world, 300), 5, "the newest of each symbol")
    await world.until(lambda: world.live(*SYMBOLS), 3, "all live again")
    await world.until(daemon.ready, 3, "ready again")

    for symbol in SYMBOLS:
        assert recorder.prices(symbol)[-1][0] == 300 + SYMBOLS.index(symbol)


async def test_redis_going_again_and_again(market: World) -> None:
    """Five times killed and back with nothing in it: prices go on each time, in order."""
    daemon = await market.daemon(SPOTD_LEADER_TTL_S=str(TTL_S), SPOTD_THROTTLE_MS="50")
    recorder = await market.recorder()
    await market.streaming(*SYMBOLS)
    for _ in range(5):
        market.store.kill()
        await market.store.start()
        await market.want(*SYMBOLS)
        heard = len(recorder.of("SPY"))
        await market.until(partial(_more_than, recorder, heard + 3), 5, "prices go on")

    assert recorder.check_order() > 20
    assert daemon.running
    assert "Traceback" not in daemon.output


@pytest.mark.parametrize("how", ["abort", "eof", "close"])
async def test_a_stream_that_is_cut_makes_prices_stale_until_it_is_back(
    world: World, how: str
) -> None:
    """States go live, stale, live; the daemon says that it waits; updates go on."""
    daemon = await _streaming(world)
    recorder = await world.recorder()
    world.sim.faults.handshake_status = 503
    await world.sim.drop_sessions(how)  # type: ignore[arg-type]
    await world.until(lambda: recorder.states("SPY") == ["stale"], 3, "SPY is stale")
    await world.until(partial(_is, daemon, "waiting"), 3, "waiting")
    assert not await daemon.ready()
    assert await world.last("SPY")  # the suspect price is still there
    await _prices(world, 700)
    world.sim.faults.handshake_status = 0

    await world.until(lambda: recorder.states("SPY") == ["stale", "live"], 8, "SPY is live")
    await world.until(partial(_last_are, world, 700), 3, "what was missed comes over REST")
    await _prices(world, 800)
    await world.until(partial(_last_are, world, 800), 3, "updates go on")
    assert await daemon.ready()
    for symbol in SYMBOLS:
        assert recorder.states(symbol) == ["stale", "live"]
    daemon_states = [
        e["state"] for e in (h.json for h in recorder.by_channel["spotd:events"])
        if e["type"] == "daemon"
    ]  # fmt: skip
    assert "waiting" in daemon_states
    assert daemon_states[-1] == "streaming"


async def test_an_open_breaker_waits_and_then_tries_once(world: World) -> None:
    """After so many failures the breaker opens for its time, then one try closes it."""
    world.sim.faults.handshake_status = 502
    daemon = await world.start(SPOTD_BREAKER_FAILURES="2", SPOTD_BREAKER_RECOVERY_S="2")
    await world.want("SPY")
    await world.until(partial(_breaker_is, daemon, "open"), 15, "the breaker opens")
    opened = time.monotonic()
    refused = world.sim.stats.handshakes_refused
    assert refused == 2
    assert (await daemon.metrics())["spotd_breaker_state{spot_price_stream}"] == 2
    world.sim.faults.handshake_status = 0

    await world.until(lambda: world.live("SPY"), 8, "SPY live")
    assert time.monotonic() - opened > 1.5
    await world.until(partial(_breaker_is, daemon, "closed"), 2, "the breaker is closed")


async def test_a_halt_is_told_and_ended(world: World) -> None:
    """A halted symbol is ``halted`` until its resumption, and no other is touched."""
    await _streaming(world)
    recorder = await world.recorder()
    await world.sim.halt("SPY")
    await world.until(lambda: recorder.states("SPY") == ["halted"], 3, "halted")
    await world.sim.resume("SPY")
    await world.until(lambda: recorder.states("SPY") == ["halted", "live"], 3, "resumed")

    assert recorder.states("QQQ") == []


async def test_damaged_frames_cost_nothing_else(market: World) -> None:
    """Garbage, text frames, unknown types and malformed messages: the rest is published."""
    for damage in ("garbage_p", "unknown_type_p", "malformed_p", "text_frame_p"):
        setattr(market.sim.faults, damage, 0.2)
    daemon = await market.daemon(SPOTD_THROTTLE_MS="20")
    recorder = await market.recorder()
    await market.streaming(*SYMBOLS)
    await market.until(partial(_more_than, recorder, 30), 15, "prices come")

    assert daemon.running
    assert "Traceback" not in daemon.output


def _more_than(recorder: Recorder, updates: int) -> bool:
    return len(recorder.of("SPY")) > updates


async def _metric_is(daemon: Command, name: str, value: float) -> bool:
    return (await daemon.metrics())[name] == value


async def _breaker_is(daemon: Command, state: str) -> bool:
    return f'"breaker":"{state}"' in (await daemon.get("/status"))[1]
