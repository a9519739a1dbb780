"""What is new writes what 0.1 reads, so clients may be newer or older than the daemon.

The same holds for a daemon of 0.1 that takes over after a roll-back.
"""

from __future__ import annotations

import json
import re

import msgspec
import pytest

from spotd import SpotClient
from spotd.simulator import Simulator
from tests.compatibility import reader_0_1
from tests.compatibility.fixture_0_1 import EVENTS, PRICES, RECORDED
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until


async def _life(daemon: Rig, sim: Simulator) -> None:
    """Have the daemon say all that it can: prices, states, an interruption, an end."""
    await daemon.values.want("SPY", "QQQ", "KO", "not one")
    await until(lambda: daemon.active == {"SPY", "QQQ", "KO"}, "the demand")
    await daemon.send(quote("SPY", 421.35), trade("SPY", 421.36), quote("QQQ", 350.125, 350.13))
    await until(lambda: sim.sessions[0].statuses == {"*"}, "the statuses")
    await sim.halt("KO")
    await until(lambda: _is(daemon, "KO", "halted"), "the halt")
    sim.faults.handshake_hang = True
    await sim.drop_sessions("abort")
    await until(lambda: _is(daemon, "SPY", "stale"), "the interruption")
    sim.faults.handshake_hang = False
    await until(lambda: daemon.active == {"SPY", "QQQ", "KO"}, "the next session")
    await daemon.send(quote("SPY", 422.0))
    await until(daemon.works, "at work again")
    await daemon.values.unwant("QQQ")
    await until(lambda: daemon.values.forgotten("QQQ"), "the end of QQQ")


async def _is(daemon: Rig, symbol: str, state: str) -> bool:
    return await daemon.values.state(symbol) == state


async def test_all_that_a_daemon_writes_is_read_by_0_1(
    rig: NewRig, sim: Simulator, server: Server
) -> None:
    """A gap and the word ``ended`` are new, and 0.1 leaves them out."""
    async with Recorder(server.url) as recorder, rig() as daemon:
        await _life(daemon, sim)
        await until(lambda: any(event["type"] == "gap" for event in _events(recorder)), "the gap")
        redis = daemon.values.redis
        for raw in (await redis.hgetall("spotd:last")).values():
            reader_0_1.read_update(raw)
        for entry, raw in (await redis.hgetall("spotd:states")).items():
            state = reader_0_1.read_state(raw)
            assert state.symbol == entry
            assert state.state != "refused" or state.reason in reader_0_1.REFUSALS
        reader_0_1.read_status(await redis.get("spotd:status"))
        # 0.1 starts above the number, and knows by the token who published.
        seq, _, token = (await redis.get("spotd:seq")).partition(" ")
        assert re.fullmatch(r"[0-9]{1,16}", seq)
        assert token == await redis.get("spotd:leader")
        kinds = {name: await redis.type(name) for name in RECORDED["keys"]}

    assert {heard.channel for heard in recorder.heard} <= {"spot:SPY", "spot:QQQ", "spotd:events"}
    for heard in recorder.heard:
        if heard.channel == "spotd:events":
            _check_event(heard.raw)
        else:
            assert f"spot:{reader_0_1.read_update(heard.raw).symbol}" == heard.channel
    # All keys of 0.1 that are left have their types. Nothing demanded by a lease here.
    expected = {name: key["type"] for name, key in RECORDED["keys"].items()}
    assert kinds == expected | {"spotd:leases": "none"}


def _events(recorder: Recorder) -> list[dict[str, object]]:
    return [heard.json for heard in recorder.by_channel["spotd:events"]]


def _check_event(raw: bytes) -> None:
    event = json.loads(raw)
    if event["type"] == "gap" or event.get("state") == "ended":
        with pytest.raises(msgspec.ValidationError):
            reader_0_1.read_event(raw)
    else:
        reader_0_1.read_event(raw)


async def test_a_lease_of_a_client_is_read_by_0_1(server: Server, rig: NewRig) -> None:
    """0.1 takes what stands before the first ``@`` as the symbol."""
    async with rig() as daemon, SpotClient(server.url, owner="svc") as spot, spot.want("SPY"):
        [(member, lapses)] = (await daemon.values.leases()).items()
    assert member.partition("@")[0] == "SPY"
    assert member.partition("@")[2].startswith("svc")
    assert 1e9 < lapses < 1e10  # seconds


@pytest.mark.parametrize(("_", "raw"), PRICES)
def test_the_reader_reads_the_prices_of_0_1(_: str, raw: bytes) -> None:
    """The frozen shapes are those of 0.1: its own messages decode."""
    reader_0_1.read_update(raw)


@pytest.mark.parametrize("raw", EVENTS)
def test_the_reader_reads_the_events_of_0_1(raw: bytes) -> None:
    """The frozen shapes are those of 0.1: its own messages decode, and have no further field."""
    read = json.loads(msgspec.json.encode(reader_0_1.read_event(raw)))
    assert json.loads(raw).keys() <= read.keys()
