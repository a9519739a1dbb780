"""Frames that are damaged on the way, by a knob each."""

import asyncio

import pytest

from spotd.simulator import Simulator
from tests.simulator.dialogue import Encoding, dial

SPY = {"T": "q", "S": "SPY"}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_garbage_goes_before_the_good_frame(sim: Simulator, encoding: Encoding) -> None:
    """In the frame kind of the connection, so that the payload is all that is wrong."""
    sim.faults.garbage_p = 1.0
    async with dial(sim, encoding=encoding) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        garbage = await talk.hear_raw()
        assert isinstance(garbage, str if encoding == "json" else bytes)
        assert (await talk.hear_one())["S"] == "SPY"


async def test_a_text_frame_may_come_in_msgpack_mode(sim: Simulator) -> None:
    """JSON, whatever was asked for."""
    sim.faults.text_frame_p = 1.0
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        assert isinstance(await talk.hear_raw(), str)


async def test_bad_messages_stand_among_good_ones(sim: Simulator) -> None:
    """Unknown types and malformed messages leave the rest of the frame intact."""
    sim.faults.unknown_type_p = sim.faults.malformed_p = 1.0
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        for _ in range(20):
            await sim.send([SPY | {"bp": 1.25, "ap": 1.5}] * 3)
            heard = await talk.hear()
            assert len(heard) == 5
            assert [one["S"] for one in heard] == ["SPY"] * 5
            assert sum(one.get("ap") == 1.5 for one in heard) == 3


async def test_a_frame_may_exceed_a_mebibyte(sim: Simulator) -> None:
    """A client with the usual limit of 1 MiB closes with 1009."""
    sim.faults.oversize_p = 1.0
    async with dial(sim, max_size=None) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        assert len(await talk.hear_raw()) > 1 << 20
        assert await talk.subscribe(quotes=["SPY"])
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        await sim.wait_for(lambda: not sim.sessions)
        assert sim.received.of("close")[-1].data == 1009


async def test_mute_takes_data_away_and_nothing_else(sim: Simulator) -> None:
    """All of it, or that of some symbols; acks still come."""
    async with dial(sim) as talk:
        sim.faults.mute = True
        await talk.subscribe(quotes=["SPY", "QQQ"])
        await sim.send([SPY])
        assert await talk.subscribe(quotes=["SPY"])
        sim.faults.mute = False
        sim.faults.mute_symbols.add("SPY")
        await sim.send([SPY, {"T": "q", "S": "QQQ"}])
        assert (await talk.hear_one())["S"] == "QQQ"


async def test_probabilities_are_probabilities(sim: Simulator) -> None:
    """At one half, some frames are damaged and some are not."""
    sim.faults.unknown_type_p = 0.5
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        sizes: set[int] = set()
        async with asyncio.timeout(10):
            while sizes != {1, 2}:
                await sim.send([SPY])
                sizes.add(len(await talk.hear()))
