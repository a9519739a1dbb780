"""Two daemons on one Redis and one account: one streams, the other waits for it to fall."""

from __future__ import annotations

import random
import signal
import time
from functools import partial
from itertools import pairwise

from spotd.simulator.session import Frame
from spotd.simulator.wire import encode
from tests.e2e.kit import Command, Recorder, World, quote, say

TTL_S = 2
HOLD_S = 4.0  # longer than the TTL, so that the successor meets 406
AFTER_406_S = 12.0  # the successor asks again after 10 s, give or take a fifth


async def _pair(world: World, **settings: str) -> tuple[Command, Command]:
    env = {"SPOTD_LEADER_TTL_S": str(TTL_S), **settings}
    first = await world.daemon("first", **env)
    await world.streaming("SPY", "QQQ")
    second = await world.daemon("second", **env)
    return first, second


async def test_one_streams_and_one_stands_by(world: World) -> None:
    """Only the leader connects; both are ready; the standby says that it is one."""
    first, second = await _pair(world)

    assert await first.state() == "streaming"
    assert await second.state() == "standby"
    assert await first.ready()
    assert await second.ready()
    assert world.sim.stats.connections == 1
    assert (await first.metrics())["spotd_leader"] == 1
    assert (await second.metrics())["spotd_leader"] == 0


async def test_a_stopped_leader_hands_over_at_once(market: World) -> None:
    """An orderly stop releases the key, so a standby need not wait for it to lapse."""
    first, second = await _pair(market, SPOTD_LEADER_TTL_S="30")
    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY"), 5, "prices")

    assert (await first.stop())[0] == 0
    stopped = time.monotonic()

    await market.until(
        lambda: recorder.of("SPY")[-1].at > stopped + 0.2 and recorder.of("QQQ"), 5, "goes on"
    )
    assert await second.state() == "streaming"
    assert market.sim.stats.refused[406] == 0


async def test_a_killed_leader_is_replaced(market: World) -> None:
    """After SIGKILL the standby streams within TTL, dead session and the pause after 406."""
    market.sim.limits.dead_session_hold_s = HOLD_S
    first, second = await _pair(market)
    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY") and recorder.of("QQQ"), 5, "prices")

    await first.kill()
    killed = time.monotonic()
    await market.until(lambda: market.sim.stats.refused[406], TTL_S + 2, "406")
    leads_after = time.monotonic() - killed
    await market.until(second.state, 1, "status")
    assert await second.state() == "waiting"
    assert "406" in (await second.get("/status"))[1]
    assert not await second.ready()
    await market.until(
        lambda: recorder.of("SPY")[-1].at > killed + 0.2, HOLD_S + AFTER_406_S + 3, "goes on"
    )
    back_after = time.monotonic() - killed

    say(f"killed leader: 406 after {leads_after:.1f} s, prices again after {back_after:.1f} s")
    assert recorder.check_order() >= 3
    assert await second.state() == "streaming"


async def test_a_frozen_leader_that_wakes_publishes_nothing(world: World) -> None:
    """SIGSTOP beyond the TTL: the other leads; awake, the first is silent and stands by."""
    world.sim.limits.connections = 2  # so that both have a stream: nothing but the lease fences
    first, _ = await _pair(world, SPOTD_THROTTLE_MS="0")
    recorder = await world.recorder()
    old = world.sim.sessions[0]
    await world.sim.send([quote("SPY", 10, 11)])
    await world.until(lambda: recorder.of("SPY"), 3, "the first leads")

    first.send(signal.SIGSTOP)
    await world.until(lambda: len(world.sim.sessions) == 2, TTL_S + 3, "the second connects")
    await world.until(lambda: world.sim.sessions[1].quotes == {"SPY", "QQQ"}, 3, "subscribed")
    await world.sim.send([quote("SPY", 20, 21)])
    await world.until(lambda: recorder.prices("SPY")[-1] == (20, 21), 3, "the second publishes")
    for price in range(600, 700):  # only the frozen one gets these
        frame = encode([{"T": "q", "S": "SPY", **_prices(price), "t": time.time_ns()}], "msgpack")
        old.offer(Frame(frame, text=False, quotes=1, messages=1))
    await world.until(lambda: not old.waiting_bytes, 3, "they wait in the frozen one's socket")
    first.send(signal.SIGCONT)

    await world.until(world.closes, 5, "the first closes its stream")
    assert world.closes() == [1000]
    assert world.sim.sessions[0].id != old.id
    await world.until(lambda: _is(first, "standby"), 3, "the first stands by")
    assert await first.ready()
    await world.sim.send([quote("SPY", 30, 31)])
    await world.until(lambda: recorder.prices("SPY")[-1] == (30, 31), 3, "the second goes on")
    assert recorder.prices("SPY") == [(10, 11), (20, 21), (30, 31)]
    assert await world.last("SPY") == recorder.of("SPY")[-1].json


async def test_a_frozen_leader_frees_the_connection_for_its_successor(market: World) -> None:
    """With one connection allowed, the successor waits at 406 until the frozen session is cut."""
    market.sim.limits.ping_period_s = 0.5
    market.sim.limits.ping_timeout_s = 3.0
    first, second = await _pair(market)
    recorder = await market.recorder()
    await market.until(lambda: recorder.of("SPY"), 5, "prices")

    first.send(signal.SIGSTOP)
    frozen = time.monotonic()
    await market.until(
        lambda: recorder.of("SPY")[-1].at > frozen + 1, TTL_S + AFTER_406_S + 5, "goes on"
    )
    first.send(signal.SIGCONT)
    await market.until(lambda: _is(first, "standby"), 5, "the first stands by")

    assert await second.state() == "streaming"
    assert len(market.sim.sessions) == 1


async def test_leaders_that_freeze_and_wake_never_break_the_order(market: World) -> None:
    """Freezing for about the TTL, again and again: ``seq`` rises and the throttle holds."""
    market.sim.limits.connections = 4
    freezes_s = [0.7, 0.9, 1.0, 1.1, 1.2, 1.4, 2.0, 2.4]  # the longest two beyond TTL and a look
    random.shuffle(freezes_s)
    first, second = await _pair(market, SPOTD_LEADER_TTL_S="1", SPOTD_THROTTLE_MS="50")
    recorder = await market.recorder()
    takeovers = 0
    for freeze_s in freezes_s:
        leads, other = await _roles(first, second)
        leads.send(signal.SIGSTOP)
        wakes = time.monotonic() + freeze_s
        await market.until(partial(_is_past, wakes), 3, "asleep long enough")
        leads.send(signal.SIGCONT)
        heard = len(recorder.of("SPY"))
        await market.until(partial(_more_than, recorder, heard + 10), 6, "prices go on")
        takeovers += (await other.metrics())["spotd_leader"] == 1

    updates = recorder.check_order()
    seqs = [h.json["seq"] for h in recorder.of("SPY")]
    closest_ms = min(b - a for a, b in pairwise(seqs)) / 1000
    say(f"8 freezes, {takeovers} takeovers: {updates} updates, closest {closest_ms:.1f} ms")
    assert takeovers >= 2
    assert closest_ms >= 49.5
    for daemon in (first, second):
        assert "a loop ended" not in daemon.output


async def _roles(first: Command, second: Command) -> tuple[Command, Command]:
    """Who leads, and who does not."""
    if (await first.metrics())["spotd_leader"]:
        return first, second
    return second, first


def _is_past(moment: float) -> bool:
    return time.monotonic() >= moment


def _more_than(recorder: Recorder, updates: int) -> bool:
    return len(recorder.of("SPY")) > updates


def _prices(price: int) -> dict[str, object]:
    return {
        "bx": "V", "bp": float(price), "bs": 1,
        "ax": "V", "ap": price + 1.0, "as": 1, "c": ["R"], "z": "B",
    }  # fmt: skip


async def _is(daemon: Command, state: str) -> bool:
    return await daemon.state() == state
