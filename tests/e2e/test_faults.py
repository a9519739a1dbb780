"""Redis dies, the stream is cut: the newest price arrives, and every state told is true."""

from __future__ import annotations

import asyncio
from functools import partial
from itertools import groupby
from pathlib import Path

import pytest
import redis

from spotd.keys import Keys
from tests.e2e.setup import Setup, quote
from tests.kit.processes import Command
from tests.kit.recorder import Recorder
from tests.kit.waiting import until_sync

KEYS = Keys()
SYMBOLS = ("SPY", "QQQ", "AAPL", "MSFT")


async def _prices(setup: Setup, at: float) -> None:
    """Send a quote of every symbol around a price."""
    await setup.sim.send([quote(s, at + n, at + n + 0.5) for n, s in enumerate(SYMBOLS)])


async def _last_are(setup: Setup, at: float) -> bool:
    last = [await setup.values.bid(symbol) for symbol in SYMBOLS]
    return last == [at + n for n in range(len(SYMBOLS))]


async def _streaming(setup: Setup, ttl_s: int, **more: str) -> Command:
    daemon = await setup.daemon(SPOTD_LEADER_TTL_S=str(ttl_s), **more)
    await setup.streaming(*SYMBOLS)
    await _prices(setup, 100)
    await setup.until(partial(_last_are, setup, 100), "first prices")
    # The state of each symbol is announced once more when it has its first quote.
    await setup.until(partial(_have_quotes, setup), "the last word on the states")
    return daemon


def _say_again(client: redis.Redis) -> None:
    """Demand the symbols, as services do once the data set was lost."""
    client.sadd(KEYS.symbols, *SYMBOLS)


def _say_again_to_a_recorder(client: redis.Redis) -> None:
    """Demand the symbols again once a recorder has subscribed, which then hears all."""
    _say_again(client)
    until_sync(client.pubsub_numpat, "the recorder to be back")


async def _have_quotes(setup: Setup) -> bool:
    states = await setup.values.states()
    return all(states[symbol]["reason"] is None for symbol in SYMBOLS)


async def test_a_redis_that_comes_back_empty(setup: Setup) -> None:
    """After a short absence everything is written again, from the stream that stayed open.

    Prices of symbols that were quiet meanwhile, states and status; then, of those that changed,
    the newest value alone is published.
    """
    await _streaming(setup, ttl_s=20)
    setup.server.restart(fill=_say_again)
    await setup.until(partial(_last_are, setup, 100), "the prices")
    await setup.until(lambda: setup.values.live(*SYMBOLS), "the states")
    await setup.until(setup.values.status, "the status")

    seqs = {s: u["seq"] for s, u in (await setup.values.all_last()).items()}
    recorder = await setup.recorder(url=f"unix://{setup.server.socket_path}")
    setup.server.kill()
    for price in (200, 300, 400):
        await _prices(setup, price)
    await setup.sim.drained()
    # In a thread, so that the recorder can subscribe before the daemon is let in.
    await asyncio.to_thread(setup.server.start, fill=_say_again_to_a_recorder)
    await setup.until(partial(_last_are, setup, 400), "the newest of each symbol")

    last = await setup.values.all_last()
    assert set(last) == set(SYMBOLS)
    for n, symbol in enumerate(SYMBOLS):
        assert last[symbol]["seq"] > seqs[symbol]
        await setup.until(lambda s=symbol: recorder.raw(s), "the recorder to hear it")  # type: ignore[misc]
        assert set(recorder.bids(symbol)) <= {100 + n, 400 + n}, symbol
        assert recorder.bids(symbol)[-1] == 400 + n
    assert setup.sim.stats.connections == 1, setup.logs()


async def test_a_redis_that_comes_back_with_its_data(tmp_path: Path) -> None:
    """Where the data set survives, the demand does too: nobody has to ask again."""
    kept = ("--appendonly", "yes", "--appendfsync", "always")
    async with Setup(tmp_path, server_options=kept) as setup:
        daemon = await _streaming(setup, ttl_s=20)
        recorder = await setup.recorder()
        setup.server.kill()
        await _prices(setup, 200)
        setup.server.start()
        await setup.until(partial(_last_are, setup, 200), "the newest of each symbol")

        assert not setup.asked("unsubscribe", "SPY")
        await _prices(setup, 300)
        await setup.until(partial(_last_are, setup, 300), "updates go on")
        await setup.until(daemon.ready, "ready again")
        await setup.until(lambda: recorder.bids("SPY")[-1:] == [300], "the recorder hears it")


async def test_a_redis_away_for_longer_than_the_leader_ttl(setup: Setup) -> None:
    """The stream is closed with the leadership, opened again, and REST knows what was missed."""
    daemon = await _streaming(setup, ttl_s=3, SPOTD_KEEP_STREAM_S="0")
    setup.server.kill()
    await setup.until(setup.closes, "the stream is closed")
    assert setup.closes() == [1000]
    await setup.until(partial(_metric_is, daemon, "spotd_leader", 0), "leads no more")
    assert not await daemon.ready()
    await _prices(setup, 500)  # nobody is connected: REST alone knows these
    setup.server.start(fill=_say_again)
    await setup.until(partial(_last_are, setup, 500), "the newest of each symbol")

    await setup.until(lambda: setup.values.live(*SYMBOLS), "all live again")
    await setup.until(daemon.ready, "ready again")
    assert setup.sim.stats.connections == 2
    await _prices(setup, 600)
    await setup.until(partial(_last_are, setup, 600), "updates go on")


@pytest.mark.long  # quick: tests/core/test_redis_health.py
async def test_redis_going_again_and_again(market: Setup) -> None:
    """Each time that Redis is killed and comes back empty, prices go on in order."""
    daemon = await market.daemon(SPOTD_LEADER_TTL_S="2", SPOTD_THROTTLE_MS="50")
    recorder = await market.recorder()
    await market.streaming(*SYMBOLS)
    for _ in range(3):
        market.server.restart(fill=_say_again)
        heard = len(recorder.of("SPY"))
        await market.until(partial(recorder.has_more, "SPY", heard + 3), "prices go on")

    assert recorder.check_order() > 12
    assert daemon.running
    assert "Traceback" not in daemon.output


async def test_a_stream_that_is_cut_makes_prices_stale_until_it_is_back(setup: Setup) -> None:
    """However the stream is cut, states go live, stale, live, and the daemon waits meanwhile."""
    # The breaker stays closed: open, it would wait for as long as this test does.
    daemon = await _streaming(setup, ttl_s=20, SPOTD_BREAKER_FAILURES="100")
    recorder = await setup.recorder()
    for price in (700, 800):
        told, said = len(recorder.states("SPY")), len(recorder.daemon_states())
        setup.sim.faults.handshake_status = 503
        await setup.sim.drop_sessions("abort" if price == 700 else "eof")
        await setup.until(lambda n=told: _states_since(recorder, "SPY", n) == ["stale"], "stale")  # type: ignore[misc]
        await setup.until(partial(daemon.says, "waiting"), "waiting")
        await setup.until(lambda n=said: "waiting" in recorder.daemon_states()[n:], "it is told")  # type: ignore[misc]
        assert not await daemon.ready()
        assert await setup.values.last("SPY")  # the suspect price is still there
        await _prices(setup, price)
        setup.sim.faults.handshake_status = 0

        await setup.until(partial(_last_are, setup, price), "what was missed comes over REST")
        await _prices(setup, price + 50)
        await setup.until(partial(_last_are, setup, price + 50), "updates go on")
        await setup.until(daemon.ready, "ready again")
        for symbol in SYMBOLS:
            states = partial(_states_since, recorder, symbol, told)
            await setup.until(lambda now=states: now() == ["stale", "live"], f"{symbol} is live")  # type: ignore[misc]
        # The status is announced behind the states of the symbols.
        await setup.until(lambda: recorder.daemon_states()[-1] == "streaming", "the end is told")


async def test_an_open_breaker_waits_and_then_tries_once(setup: Setup) -> None:
    """After the set number of failures the breaker opens, then one try closes it."""
    setup.sim.faults.handshake_status = 502
    daemon = await setup.start(SPOTD_BREAKER_FAILURES="2", SPOTD_BREAKER_RECOVERY_S="2")
    await setup.values.want("SPY")
    await setup.until(partial(_breaker_is, daemon, "open"), "the breaker opens")
    assert setup.sim.stats.handshakes_refused == 2
    assert (await daemon.metrics())["spotd_breaker_state{spot_price_stream}"] == 2
    setup.sim.faults.handshake_status = 0

    await setup.until(lambda: setup.values.live("SPY"), "SPY live")
    await setup.until(partial(_breaker_is, daemon, "closed"), "the breaker is closed")
    assert setup.sim.stats.handshakes_refused == 2
    assert len(setup.sim.sessions) == 1


async def test_damaged_frames_cost_nothing_else(market: Setup) -> None:
    """Garbage, text frames, unknown types and malformed messages: the rest is published."""
    for damage in ("garbage_p", "unknown_type_p", "malformed_p", "text_frame_p"):
        setattr(market.sim.faults, damage, 0.2)
    daemon = await market.daemon(SPOTD_THROTTLE_MS="20")
    recorder = await market.recorder()
    await market.streaming(*SYMBOLS)
    await market.until(partial(recorder.has_more, "SPY", 30), "prices come")

    assert daemon.running
    assert "Traceback" not in daemon.output


def _states_since(recorder: Recorder, symbol: str, told: int) -> list[str]:
    """Return the states that were announced since, each once: its reason may change."""
    return [state for state, _ in groupby(recorder.states(symbol)[told:])]


async def _metric_is(daemon: Command, name: str, value: float) -> bool:
    return (await daemon.metrics())[name] == value


async def _breaker_is(daemon: Command, state: str) -> bool:
    return (await daemon.status()).get("breaker") == state
