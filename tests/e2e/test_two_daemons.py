"""Two daemons on one Redis and one account: one streams, the other waits for it to fall."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from itertools import groupby, pairwise

import pytest

from spotd.simulator.session import Frame
from spotd.simulator.wire import encode
from tests.e2e.setup import Setup, quote, say
from tests.kit.processes import Command


async def _pair(setup: Setup, **settings: str) -> tuple[Command, Command]:
    """Return the leader and the standby. The TTL is long enough for a busy machine to renew in."""
    env = {"SPOTD_LEADER_TTL_S": "3", **settings}
    first = await setup.daemon("first", **env)
    await setup.streaming("SPY", "QQQ")
    second = await setup.daemon("second", **env)
    return first, second


async def test_a_stopped_leader_hands_over_at_once(market: Setup) -> None:
    """Only the leader connects; stopped in order it releases the key, so nobody meets 406.

    The key would lapse long after this test's limit.
    """
    first, second = await _pair(market, SPOTD_LEADER_TTL_S="300")
    assert await first.state() == "streaming"
    assert await second.state() == "standby"
    assert await first.ready()
    assert await second.ready()
    assert market.sim.stats.connections == 1
    assert await first.leads()
    assert not await second.leads()

    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY"), "prices")
    assert await first.stop() == 0
    # The last prices of the first may be heard after its end.
    await market.until(partial(second.says, "streaming"), "the second streams")
    heard = len(recorder.of("SPY")), len(recorder.of("QQQ"))
    await market.until(lambda: len(recorder.of("SPY")) > heard[0], "SPY goes on")
    await market.until(lambda: len(recorder.of("QQQ")) > heard[1], "QQQ goes on")
    assert await second.leads()
    assert market.sim.stats.refused[406] == 0


async def test_a_stopped_standby_takes_nothing_from_the_leader(setup: Setup) -> None:
    """A standby that is stopped leaves the leader's key and status alone."""
    leader, standby = await _pair(setup, SPOTD_LEADER_TTL_S="300")
    token = await setup.values.token()

    assert await standby.stop() == 0

    assert await setup.values.token() == token
    assert await setup.values.status()
    assert await leader.state() == "streaming"


async def test_a_killed_leader_is_replaced(market: Setup) -> None:
    """After SIGKILL the standby meets 406 while Alpaca holds the dead session, and says so.

    When the dead session is given up, its next try succeeds and prices go on in order.
    """
    market.sim.limits.dead_session_hold_s = 6.0  # longer than the TTL
    first, second = await _pair(market)
    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY") and recorder.of("QQQ"), "prices")

    await first.kill()
    await market.until(lambda: market.sim.stats.refused[406], "406")
    await market.until(partial(second.unready, "406"), "it says so")  # between two tries
    heard = len(recorder.of("SPY"))
    await market.until(lambda: len(recorder.of("SPY")) > heard, "goes on")

    assert recorder.check_order() >= 3
    await market.until(partial(second.says, "streaming"), "the second streams")


@pytest.mark.long  # quick: tests/core/test_room.py
async def test_a_standby_gives_the_room_to_what_was_live(setup: Setup) -> None:
    """After SIGKILL the same symbols are live again, although others would come first by name."""
    env = {"SPOTD_LEADER_TTL_S": "3", "SPOTD_MAX_SYMBOLS": "2"}
    setup.sim.limits.connections = 2  # the dead session is not in the way
    first = await setup.daemon("first", **env)
    await setup.streaming("Y", "Z")
    await setup.daemon("second", **env)
    await setup.values.want("A", "B")
    await setup.until(partial(_refused, setup, "A", "B"), "A and B refused")

    await first.kill()
    await setup.until(lambda: len(setup.sim.received.messages("auth")) == 2, "the second connects")
    await setup.until(lambda: setup.sim.sessions[-1].quotes == {"Y", "Z"}, "Y and Z subscribed")
    await setup.until(lambda: setup.values.live("Y", "Z"), "Y and Z live")
    assert await _refused(setup, "A", "B")
    assert not setup.asked("subscribe", "A")
    assert not setup.asked("subscribe", "B")


async def _refused(setup: Setup, *symbols: str) -> bool:
    states = await setup.values.states()
    return all(states.get(symbol, {}).get("reason") == "symbol_limit" for symbol in symbols)


async def test_a_frozen_leader_that_wakes_publishes_nothing(setup: Setup) -> None:
    """SIGSTOP beyond the TTL: the other leads; awake, the first is silent and stands by."""
    setup.sim.limits.connections = 2  # so that both have a stream: only the leader key fences
    first, _ = await _pair(setup, SPOTD_THROTTLE_MS="0")
    recorder = await setup.recorder()
    old = setup.sim.sessions[0]
    await setup.sim.send([quote("SPY", 10, 11)])
    await setup.until(lambda: recorder.of("SPY"), "the first leads")

    first.send(signal.SIGSTOP)
    await setup.until(lambda: len(setup.sim.sessions) == 2, "the second connects")
    await setup.until(lambda: setup.sim.sessions[1].quotes == {"SPY", "QQQ"}, "subscribed")
    await setup.sim.send([quote("SPY", 20, 21)])
    await setup.until(lambda: recorder.prices("SPY")[-1] == (20, 21), "the second publishes")
    for price in range(600, 700):  # only the frozen one gets these
        frame = encode([{"T": "q", "S": "SPY", **_prices(price), "t": time.time_ns()}], "msgpack")
        old.offer(Frame(frame, text=False, quotes=1, messages=1))
    await setup.until(lambda: not old.waiting_bytes, "they wait in the frozen one's socket")
    first.send(signal.SIGCONT)

    await setup.until(setup.closes, "the first closes its stream")
    assert setup.closes() == [1000]
    assert setup.sim.sessions[0].id != old.id
    await setup.until(partial(first.says, "standby"), "the first stands by")
    await setup.until(first.ready, "the first is ready")
    await setup.sim.send([quote("SPY", 30, 31)])
    await setup.until(lambda: recorder.prices("SPY")[-1] == (30, 31), "the second goes on")
    # A new leader does not know what arrived: it may publish once more what REST knows.
    assert [price for price, _ in groupby(recorder.prices("SPY"))] == [(10, 11), (20, 21), (30, 31)]
    assert await setup.values.last("SPY") == recorder.updates("SPY")[-1]


@pytest.mark.long  # quick: the frozen leader that wakes
async def test_a_frozen_leader_frees_the_connection_for_its_successor(market: Setup) -> None:
    """With one connection allowed, the successor waits at 406 until the frozen session is cut."""
    market.sim.limits.ping_period_s = 0.5
    market.sim.limits.ping_timeout_s = 6.0  # longer than the TTL
    market.sim.limits.close_timeout_s = 0.3
    first, second = await _pair(market)
    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY"), "prices")

    first.send(signal.SIGSTOP)
    await market.until(lambda: market.sim.stats.refused[406], "406")
    heard = len(recorder.of("SPY"))
    await market.until(lambda: len(recorder.of("SPY")) > heard, "goes on")
    first.send(signal.SIGCONT)
    await market.until(partial(first.says, "standby"), "the first stands by")

    await market.until(partial(second.says, "streaming"), "the second streams")
    assert len(market.sim.sessions) == 1


@pytest.mark.long  # quick, once: the frozen leader that wakes
async def test_leaders_that_freeze_and_wake_never_break_the_order(market: Setup) -> None:
    """Freezing for about the TTL, again and again: ``seq`` rises and the throttle holds."""
    market.sim.limits.connections = 4
    freezes_s = [1.0, 1.1, 2.2, 2.3]  # the longest two beyond TTL and a read
    random.shuffle(freezes_s)
    first, second = await _pair(market, SPOTD_THROTTLE_MS="50", SPOTD_LEADER_TTL_S="1")
    recorder = await market.recorder()
    takeovers = 0
    for freeze_s in freezes_s:
        leads, other = (first, second) if await first.leads() else (second, first)
        leads.send(signal.SIGSTOP)
        wakes = time.monotonic() + freeze_s
        await market.until(lambda wakes=wakes: time.monotonic() >= wakes, "asleep long enough")  # type: ignore[misc]
        leads.send(signal.SIGCONT)
        heard = len(recorder.of("SPY"))
        await market.until(partial(recorder.has_more, "SPY", heard + 5), "prices go on")
        takeovers += await other.leads()

    updates = recorder.check_order()
    closest_ms = min(b - a for a, b in pairwise(recorder.seqs("SPY"))) / 1000
    say(f"{takeovers} takeovers: {updates} updates, closest {closest_ms:.1f} ms")
    assert takeovers >= 2
    assert closest_ms >= 49.5  # by the daemons' own clock, not by when they arrived here
    for daemon in (first, second):
        assert "a loop ended" not in daemon.output


def _prices(price: int) -> dict[str, object]:
    return {
        "bx": "V", "bp": float(price), "bs": 1,
        "ax": "V", "ap": price + 1.0, "as": 1, "c": ["R"], "z": "B",
    }  # fmt: skip
