"""After every interruption the gap is announced once, and prices are fetched anew.

When an interruption begins and ends is proved in tests/core/test_gaps.py.
"""

from __future__ import annotations

import time
from datetime import datetime
from itertools import groupby
from typing import Any

from spotd.keys import Keys
from spotd.models import rfc3339, utc
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, frozen, quote
from tests.daemon.test_leader import SHORT
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

KEYS = Keys()


async def one_gap(recorder: Recorder, daemon: Rig) -> dict[str, Any]:
    """Wait for the one gap. It is the only one that was announced when the next status is."""
    await until(lambda: recorder.events("gap"), "a gap")
    await daemon.values.want("NEXT")
    await until(lambda: "live" in recorder.states("NEXT"), "what follows")
    [gap] = recorder.events("gap")
    assert gap.keys() == {"type", "from", "to", "reason", "code", "symbols"}
    assert daemon.status["gaps"] == [gap]
    # The status that has it is announced, too.
    status = await until(
        lambda: next((each for each in recorder.events("daemon") if each["gaps"]), None), "a status"
    )
    assert status["gaps"] == [gap]
    assert datetime.fromisoformat(gap["from"]) <= datetime.fromisoformat(gap["to"])
    return gap


async def test_after_a_lost_connection(rig: NewRig, sim: Simulator, server: Server) -> None:
    """The gap is told once, and what the market did meanwhile comes from REST."""
    async with Recorder(server.url) as recorder, rig(snapshots=True) as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await until(lambda: recorder.bids("SPY") == [10], "the first price")
        assert recorder.events("gap") == []
        sim.faults.handshake_hang = True
        began = rfc3339(utc(time.time()))
        await sim.drop_sessions("abort")
        await until(lambda: recorder.states("SPY")[-1:] == ["stale"], "stale")
        await sim.send([quote("SPY", 11)])  # to nobody: only REST knows it
        sim.faults.handshake_hang = False
        gap = await one_gap(recorder, daemon)
        assert (gap["code"], gap["symbols"]) == ("interrupted", 2)
        assert began <= gap["from"]
        assert gap["reason"]
        await until(lambda: recorder.bids("SPY") == [10, 11], "the price of REST")


async def test_after_a_mute_stream(rig: NewRig, sim: Simulator, server: Server) -> None:
    """The gap begins with the last message, since the stream was silent before it was ended."""
    async with Recorder(server.url) as recorder, rig(silence_s=0.1) as daemon:
        await daemon.want("SPY")
        await daemon.quote("SPY", 10)
        heard_by = rfc3339(utc(time.time()))
        sim.faults.mute = sim.faults.handshake_hang = True  # until the test has seen why it ended
        await sim.send([quote("SPY", 11, t="2099-01-05T15:00:30Z")])
        await until(lambda: "mute" in _codes(recorder, "SPY"), "stale, since it is mute")
        sim.faults.mute = sim.faults.handshake_hang = False
        gap = await one_gap(recorder, daemon)
        assert (gap["code"], gap["symbols"]) == ("mute", 1)
        assert gap["from"] <= heard_by


async def test_after_another_daemon(rig: NewRig, server: Server) -> None:
    """A new leader begins the gap where the highest seq ends."""
    unix_us = int(time.time() * 1_000_000) - 90_000_000
    async with Recorder(server.url) as recorder:
        daemon = rig(leads=False)
        await daemon.values.redis.set(KEYS.seq, f"{unix_us} other-1-ab:cd")
        await daemon.values.want("SPY", "QQQ")
        async with daemon:
            gap = await one_gap(recorder, daemon)
    assert (gap["code"], gap["symbols"]) == ("leader_changed", 2)
    assert gap["from"] == rfc3339(utc(unix_us / 1_000_000))


async def test_after_a_fail_over(rig: NewRig, server: Server) -> None:
    """The standby that takes over states the gap, from the last price of the leader before."""
    async with Recorder(server.url) as recorder, rig() as leader:
        await leader.want("SPY", "QQQ")
        await leader.quote("SPY", 10)
        await until(lambda: recorder.bids("SPY") == [10], "the last price")
        async with rig(leads=False) as standby:
            await until(standby.stands_by, "a standby")
            assert await leader.stop() == 0
            gap = await one_gap(recorder, standby)
        [seq] = recorder.seqs("SPY")
    assert (gap["code"], gap["symbols"]) == ("leader_changed", 2)
    assert gap["from"] == rfc3339(utc(seq / 1_000_000))


async def test_the_first_daemon_states_none(rig: NewRig, server: Server) -> None:
    """Where nobody published before, nothing was interrupted; and a new symbol is no gap."""
    async with Recorder(server.url) as recorder, rig() as daemon:
        await daemon.want("SPY")
        await daemon.want("QQQ")
        await until(lambda: "live" in recorder.states("QQQ"), "live")
        assert recorder.events("gap") == []


async def test_after_redis_was_away_for_too_long(rig: NewRig, server: Server) -> None:
    """Where the stream could not be kept, the gap begins while Redis still answered."""
    async with Recorder(server.url) as recorder, rig(**SHORT, keep_stream_s=0) as daemon:
        await daemon.want("SPY")
        await until(lambda: "live" in recorder.states("SPY"), "live")
        with frozen(server):
            await until(lambda: daemon.daemon.health.get().away, "the outage to be known")
            known_at = rfc3339(utc(time.time()))
            await until(lambda: daemon.daemon.stream.get().phase == "closed", "the stream's end")
        gap = await one_gap(recorder, daemon)
        assert (gap["code"], gap["symbols"]) == ("redis_away", 1)
        assert gap["from"] <= known_at


async def test_after_redis_was_away_while_the_stream_was_kept(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """The time without the key is one gap, although no session ended and no symbol was lost."""
    async with Recorder(server.url) as recorder, rig(**SHORT) as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await until(lambda: recorder.bids("SPY") == [10], "the first price")
        with frozen(server):
            await until(lambda: not daemon.daemon.leadership.get().leads, "the end of the term")
            missed_at = rfc3339(utc(time.time()))
            await daemon.quote("SPY", 11)
            back_at = rfc3339(utc(time.time()))
        gap = await one_gap(recorder, daemon)
        assert (gap["code"], gap["symbols"]) == ("redis_away", 2)
        assert gap["from"] <= missed_at
        assert gap["to"] >= back_at
        # A call that was given up may have reached the server, and is made again.
        assert [bid for bid, _ in groupby(recorder.bids("SPY"))] == [10, 11]
        assert len(sim.received.of("connect")) == 1


def _codes(recorder: Recorder, symbol: str) -> list[str]:
    return [event["code"] for event in recorder.events("symbol") if event["symbol"] == symbol]
