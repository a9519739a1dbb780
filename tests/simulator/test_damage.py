"""Frames that are damaged on the way, each by its fault."""

import pytest

from spotd.simulator import Simulator
from tests.kit.waiting import until
from tests.simulator.dialogue import Encoding, dial

SPY = {"T": "q", "S": "SPY"}


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
async def test_garbage_goes_before_the_good_frame(sim: Simulator, encoding: Encoding) -> None:
    """It has the frame kind of the connection, so only its payload is wrong."""
    sim.faults.garbage_p = 1.0
    async with dial(sim, encoding=encoding) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        garbage = await talk.hear_raw()
        assert isinstance(garbage, str if encoding == "json" else bytes)
        assert (await talk.hear_one())["S"] == "SPY"


async def test_a_text_frame_may_come_in_msgpack_mode(sim: Simulator) -> None:
    """It is JSON, whatever the client asked for."""
    sim.faults.text_frame_p = 1.0
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        assert isinstance(await talk.hear_raw(), str)


async def test_bad_messages_are_among_good_ones(sim: Simulator) -> None:
    """Messages of unknown types and malformed ones leave the rest of the frame intact."""
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
    """A client with the usual limit of 1 MiB then closes with 1009."""
    sim.faults.oversize_p = 1.0
    async with dial(sim, max_size=None) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        assert len(await talk.hear_raw()) > 1 << 20
        assert await talk.subscribe(quotes=["SPY"])
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        await sim.send([SPY])
        await until(lambda: not sim.sessions, "the session to end")
        assert sim.received.of("close")[-1].data == 1009


async def test_mute_takes_data_away_and_nothing_else(sim: Simulator) -> None:
    """It takes all data, or that of some symbols; acks still come."""
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
    """At one half, some frames are damaged and others are not."""
    sim.faults.unknown_type_p = 0.5
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        sizes: list[int] = []
        for _ in range(50):  # the seeded randomness is the same in each run
            await sim.send([SPY])
            sizes.append(len(await talk.hear()))
        assert set(sizes) == {1, 2}


async def test_delayed_data_keeps_its_order_and_goes_with_its_session(sim: Simulator) -> None:
    """A backlog is delivered in order, REST knows it at once, and a new session has none."""
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        sim.faults.data_delay_s = 0.2
        await sim.send([SPY | {"bp": 1.0, "ap": 1.5}])
        sim.faults.data_delay_s = 0.0
        await sim.send([SPY | {"bp": 1.25, "ap": 1.5}])
        assert [(await talk.hear_one())["bp"] for _ in range(2)] == [1.0, 1.25]
        sim.faults.data_delay_s = 3600.0
        await sim.send([SPY | {"bp": 2.0, "ap": 2.5}])
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        sim.faults.data_delay_s = 0.0
        await sim.send([SPY | {"bp": 3.0, "ap": 3.5}])
        assert (await talk.hear_one())["bp"] == 3.0
