"""Replays: recorded messages at their pace, with times shifted to now."""

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest

from spotd.simulator import Replay, Simulator
from tests.simulator.dialogue import Dialogue, dial

DAY = Path(__file__).parents[3] / "shared" / "data" / "amzn-2012-06-21.jsonl.gz"
FIRST_NS = 1_340_285_400_000_000_001


def write(path: Path, lines: list[Any]) -> Path:
    """A file of lines, compressed by its name; text stays as it is."""
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def quote(ms: float, symbol: str = "SPY") -> dict[str, Any]:
    """A quote so many milliseconds after the first."""
    ns = FIRST_NS + int(ms * 1_000_000)
    moment = f"2012-06-21T13:30:{ns % 60_000_000_000 / 1e9:012.9f}Z"
    return {"S": symbol, "T": "q", "bp": 10.0, "ap": 10.1, "t": moment}


async def collect(talk: Dialogue, number: int) -> list[dict[str, Any]]:
    """The next so many data messages."""
    heard: list[dict[str, Any]] = []
    while len(heard) < number:
        heard += await talk.hear()
    return heard


@pytest.mark.parametrize("name", ["day.jsonl", "day.jsonl.gz"])
async def test_plays_at_the_recorded_pace_shifted_to_now(tmp_path: Path, name: str) -> None:
    """Distances stay, to the nanosecond; nothing comes early; what is due together is one frame."""
    path = write(tmp_path / name, [quote(0), quote(0.002), [quote(60), quote(60.5)], quote(120)])
    replay = Replay(path)
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        before_ns = time.time_ns()
        await talk.subscribe(quotes=["SPY"])
        heard = await collect(talk, 5)
        assert time.time_ns() >= heard[-1]["t"]
        assert heard[0]["t"] >= before_ns
        assert [one["t"] - heard[0]["t"] for one in heard] == [0, 2000, 60_000_000, 60_500_000,
                                                               120_000_000]  # fmt: skip
        assert list(heard[0])[:2] == ["T", "S"]
        await sim.replay_done()
        assert (replay.sent, replay.total, replay.rounds, replay.malformed) == (5, 5, 1, 0)
        await sim.wait_for(lambda: sim.stats.messages_sent == 5)
        assert sim.stats.frames_sent == 3 + 3


async def test_speed_divides_the_distances(tmp_path: Path) -> None:
    """Ten seconds in a hundredth of a second."""
    path = write(tmp_path / "day.jsonl", [quote(0), quote(10_000)])
    async with Simulator(replay=Replay(path, speed=1000)) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        first, second = await collect(talk, 2)
        assert second["t"] - first["t"] == 10_000_000


@pytest.mark.parametrize("speed", [0, float("inf")])
async def test_as_fast_as_clients_read(tmp_path: Path, speed: float) -> None:
    """Unpaced, everything arrives, in frames of bounded size, stamped with now."""
    path = write(tmp_path / "day.jsonl", [quote(ms * 10) for ms in range(1201)])
    replay = Replay(path, speed=speed, per_frame=100)
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        heard: list[dict[str, Any]] = []
        while len(heard) < 1201:
            frame = await talk.hear()
            assert len(frame) <= 100
            heard += frame
        assert abs(heard[-1]["t"] - time.time_ns()) < 60_000_000_000
        await sim.replay_done()


async def test_begins_with_a_subscriber_of_its_symbols(tmp_path: Path) -> None:
    """A subscription to something else does not start it, the wildcard does."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0, "AMZN")]))
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await sim.wait_for(lambda: replay.scanned)
        await talk.subscribe(quotes=["SPY"])
        assert not replay.begun
        await talk.subscribe(quotes=["*"])
        assert (await talk.hear_one())["S"] == "AMZN"


async def test_may_begin_at_once(tmp_path: Path) -> None:
    """Nobody subscribed, it plays all the same; the last values are there for REST."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0)]), await_subscriber=False)
    async with Simulator(replay=replay) as sim:
        await sim.replay_done()
        assert replay.sent == 1
        assert sim.stats.messages_sent == 0


async def test_loops(tmp_path: Path) -> None:
    """Round after round, each shifted to its own now."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0), quote(1)]), loop=True)
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        heard = await collect(talk, 8)
        times = [one["t"] for one in heard]
        assert times == sorted(times)
        await sim.wait_for(lambda: replay.rounds >= 3)


async def test_malformed_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    """None of them ends the replay; control messages are left out without a word."""
    lines = [
        {"T": "success", "msg": "connected"},
        "{not json",
        '"text"',
        {"S": "SPY"},
        {"T": "q", "t": "2012-06-21T13:30:00Z"},
        {"T": "q", "S": "SPY"},
        {"T": "q", "S": "SPY", "t": "noon"},
        "\udcff",
        quote(0),
    ]
    path = tmp_path / "day.jsonl"
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    replay = Replay(path)
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        assert (await talk.hear_one())["T"] == "q"
        await sim.replay_done()
    assert (replay.total, replay.malformed) == (1, 7)
    assert replay.first_malformed.startswith("line 2: not JSON")


async def test_a_damaged_file_plays_up_to_the_damage(tmp_path: Path) -> None:
    """A truncated .gz is one more malformed line."""
    path = write(tmp_path / "day.jsonl.gz", [quote(ms / 100) for ms in range(3000)])
    path.write_bytes(path.read_bytes()[:-600])
    replay = Replay(path, speed=0, await_subscriber=False)
    async with Simulator(replay=replay) as sim:
        await sim.replay_done()
    assert 0 < replay.sent == replay.total < 3000
    assert "damaged" in replay.first_malformed


async def test_an_empty_file_ends_even_a_loop(tmp_path: Path) -> None:
    """Nothing to play is not played for ever."""
    replay = Replay(write(tmp_path / "day.jsonl", []), loop=True, await_subscriber=False)
    async with Simulator(replay=replay) as sim:
        await sim.replay_done()
        await sim.replay_done()
    assert replay.rounds == 1


async def test_a_missing_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    """Not later, and not silently; so is a speed that is none."""
    with pytest.raises(FileNotFoundError):
        await Simulator(replay=Replay(tmp_path / "none.jsonl")).start()
    for speed in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="speed"):
            Replay(tmp_path / "none.jsonl", speed=speed)


async def test_a_file_that_vanishes_fails_the_simulator(tmp_path: Path) -> None:
    """What a background part fails with is raised, by `failed` and by `stop`."""
    path = write(tmp_path / "day.jsonl", [quote(0)])
    sim = Simulator(replay=Replay(path, await_subscriber=False, loop=True))
    await sim.start()
    await sim.wait_for(lambda: sim.replay is not None and sim.replay.rounds)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await sim.failed()
    with pytest.raises(FileNotFoundError):
        await sim.stop()


async def test_a_whole_recorded_day(tmp_path: Path) -> None:
    """A real day of one stock, unpaced: every message arrives, none is malformed."""
    if not DAY.exists():
        pytest.skip(f"no recorded day at {DAY.name}")
    replay = Replay(DAY, speed=0)
    async with Simulator(replay=replay) as sim, dial(sim, compression=None) as talk:
        await talk.subscribe(quotes=["AMZN"], trades=["AMZN"])
        await sim.wait_for(lambda: replay.scanned, timeout_s=60)
        heard = await collect(talk, replay.total)
        assert len(heard) == replay.total == 66_483
        assert {one["S"] for one in heard} == {"AMZN"}
        assert replay.malformed == 0
