"""Replays: recorded messages at their recorded distances, times shifted to now."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spotd.simulator import Replay, Simulator
from spotd.simulator.delivery import REPLAYED_PER_FRAME
from spotd.simulator.replay import TICK_S, NothingToPlayError
from tests.kit.recorded_day import DAY, MISSING
from tests.kit.waiting import until
from tests.simulator.dialogue import dial
from tests.simulator.manual_clock import START_NS, ManualClock

FIRST_NS = 1_340_285_400_000_000_001
MS_NS = 1_000_000


class Listener:
    """A stage that notes what is played, and when."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.plays: list[tuple[float, list[dict[str, Any]]]] = []
        self.drains = 0

    def play(self, messages: list[dict[str, Any]]) -> None:
        """Note the messages with the time."""
        self.plays.append((self.clock.now_s, [dict(one) for one in messages]))

    def wanted(self, symbols: frozenset[str]) -> bool:
        """Return True: whatever is played is wanted."""
        return True

    def wake_up(self) -> None:
        """Do nothing, since nobody waits."""

    async def until(self, condition: Callable[[], object]) -> None:
        """Return at once, since the condition is true."""
        assert condition()

    async def drained(self, most_bytes: int) -> None:
        """Count the calls."""
        assert most_bytes > 0
        self.drains += 1

    def messages(self) -> list[dict[str, Any]]:
        """Return all messages played."""
        return [one for _, messages in self.plays for one in messages]

    def distances_ns(self) -> list[int]:
        """Return the time of each message since the clock's beginning."""
        return [one["t"] - START_NS for one in self.messages()]


def write(path: Path, lines: list[Any]) -> Path:
    """Write a file of lines, compressed by its name; a str is written as it is."""
    text = "\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines) + "\n\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def quote(ms: float, symbol: str = "SPY") -> dict[str, Any]:
    """Return a quote of this many milliseconds after the first."""
    ns = FIRST_NS + int(ms * MS_NS)
    moment = f"2012-06-21T13:30:{ns % 60_000_000_000 / 1e9:012.9f}Z"
    return {"S": symbol, "T": "q", "bp": 10.0, "ap": 10.1, "t": moment}


# how it is paced, under a manual clock


@pytest.mark.parametrize("name", ["day.jsonl", "day.jsonl.gz"])
async def test_plays_at_the_recorded_distances_shifted_to_now(tmp_path: Path, name: str) -> None:
    """Distances are exact to the nanosecond; messages of one tick are sent together at its end."""
    path = write(tmp_path / name, [quote(0), quote(0.002), [quote(60), quote(60.5)], quote(120)])
    stage = Listener(ManualClock())
    replay = Replay(path)
    await replay.run(stage, stage.clock)
    assert [at_s for at_s, _ in stage.plays] == pytest.approx([TICK_S, 0.06 + TICK_S,
                                                               0.12 + TICK_S])  # fmt: skip
    assert [len(messages) for _, messages in stage.plays] == [2, 2, 1]
    assert stage.distances_ns() == [0, 2000, 60 * MS_NS, 60 * MS_NS + 500_000, 120 * MS_NS]
    assert all(list(one)[:2] == ["T", "S"] for one in stage.messages())
    assert (replay.sent, replay.total, replay.rounds, replay.malformed) == (5, 5, 1, 0)


@pytest.mark.parametrize("late_s", [0.0, 0.003, 0.5])
async def test_no_message_is_played_before_its_time(tmp_path: Path, late_s: float) -> None:
    """A clock that sleeps too long delays messages, but never changes their times."""
    every_ms = 7.0
    path = write(tmp_path / "day.jsonl", [quote(number * every_ms) for number in range(400)])
    stage = Listener(ManualClock(late_s=late_s))
    await Replay(path).run(stage, stage.clock)
    assert stage.distances_ns() == [number * 7 * MS_NS for number in range(400)]
    for at_s, messages in stage.plays:
        for message in messages:
            due_s = (message["t"] - START_NS) / 1e9
            assert -1e-6 <= at_s - due_s <= TICK_S + 2 * late_s + 1e-6


async def test_speed_divides_the_distances(tmp_path: Path) -> None:
    """Ten seconds are played in a hundredth of a second."""
    path = write(tmp_path / "day.jsonl", [quote(0), quote(10_000)])
    stage = Listener(ManualClock())
    await Replay(path, speed=1000).run(stage, stage.clock)
    assert stage.distances_ns() == [0, 10 * MS_NS]
    assert stage.clock.now_s == pytest.approx(0.01 + TICK_S)


@pytest.mark.parametrize("speed", [0, float("inf")])
async def test_without_pacing_messages_have_the_time_of_their_sending(
    tmp_path: Path, speed: float
) -> None:
    """The replay waits for the clients to read, never for the clock."""
    path = write(tmp_path / "day.jsonl", [quote(ms * 10) for ms in range(1201)])
    stage = Listener(ManualClock())
    await Replay(path, speed=speed).run(stage, stage.clock)
    assert stage.distances_ns() == [0] * 1201
    assert stage.clock.now_s == 0
    assert stage.drains == len(stage.plays) == 3


# how it is played by the simulator


async def test_plays_to_the_subscribed_sessions(tmp_path: Path) -> None:
    """All messages arrive, in frames of bounded size."""
    path = write(tmp_path / "day.jsonl", [quote(ms * 10) for ms in range(1201)])
    async with Simulator(replay=Replay(path, speed=0)) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        number = 0
        while number < 1201:
            frame = await talk.hear()
            assert len(frame) <= REPLAYED_PER_FRAME
            number += len(frame)
        await sim.replay_done()


async def test_begins_with_a_subscriber_of_its_symbols(tmp_path: Path) -> None:
    """A subscription to another symbol does not start it; the wildcard does."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0, "AMZN")]))
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await until(lambda: replay.scanned, "the scan")
        await talk.subscribe(quotes=["SPY"])
        assert not replay.begun
        await talk.subscribe(quotes=["*"])
        assert (await talk.hear_one())["S"] == "AMZN"


async def test_may_begin_without_a_subscriber(tmp_path: Path) -> None:
    """Without a session, the messages go nowhere."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0)]), await_subscriber=False)
    async with Simulator(replay=replay) as sim:
        await sim.replay_done()
        assert replay.sent == 1
        assert sim.stats.messages_sent == 0


async def test_loops(tmp_path: Path) -> None:
    """It plays round after round, each shifted to its own begin."""
    replay = Replay(write(tmp_path / "day.jsonl", [quote(0), quote(1)]), loop=True)
    async with Simulator(replay=replay) as sim, dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"])
        times: list[int] = []
        while len(times) < 8:
            times += [one["t"] for one in await talk.hear()]
        assert times == sorted(times)
        await until(lambda: replay.rounds >= 3, "three rounds")


# the file


async def test_malformed_lines_are_counted_and_left_out(tmp_path: Path) -> None:
    """None of them ends the replay; control messages are left out and not counted."""
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
    stage = Listener(ManualClock())
    replay = Replay(path)
    await replay.run(stage, stage.clock)
    assert [one["T"] for one in stage.messages()] == ["q"]
    assert (replay.total, replay.malformed) == (1, 7)
    assert replay.first_malformed.startswith("line 2: not JSON")


async def test_a_damaged_file_plays_up_to_the_damage(tmp_path: Path) -> None:
    """The damage of a truncated .gz is one more malformed line."""
    path = write(tmp_path / "day.jsonl.gz", [quote(ms / 100) for ms in range(3000)])
    path.write_bytes(path.read_bytes()[:-600])
    replay = Replay(path, speed=0)
    stage = Listener(ManualClock())
    await replay.run(stage, stage.clock)
    assert 0 < replay.sent == replay.total < 3000
    assert "damaged" in replay.first_malformed


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ([], "no data message"),
        ([{"T": "success"}], "no data message"),
        (["{"], "malformed: line 1"),
    ],
)
async def test_a_file_with_nothing_to_play_is_an_error(
    tmp_path: Path, lines: list[Any], why: str
) -> None:
    """The error names the file, and says whether it holds anything at all."""
    replay = Replay(write(tmp_path / "day.jsonl", lines), loop=True)
    stage = Listener(ManualClock())
    with pytest.raises(NothingToPlayError, match=rf"day\.jsonl: {why}"):
        await replay.run(stage, stage.clock)


async def test_a_missing_file_is_an_error_at_the_start(tmp_path: Path) -> None:
    """A missing file is an error at the start, and so is a speed below 0 or not a number."""
    with pytest.raises(FileNotFoundError):
        await Simulator(replay=Replay(tmp_path / "none.jsonl")).start()
    for speed in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="speed"):
            Replay(tmp_path / "none.jsonl", speed=speed)


async def test_a_file_that_vanishes_fails_the_simulator(tmp_path: Path) -> None:
    """`failed` and `stop` raise what the replay raised."""
    path = write(tmp_path / "day.jsonl", [quote(0)])
    replay = Replay(path, await_subscriber=False, loop=True)
    sim = Simulator(replay=replay)
    await sim.start()
    await until(lambda: replay.rounds, "the first round")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        await sim.failed()
    with pytest.raises(FileNotFoundError):
        await sim.stop()


async def test_a_whole_recorded_day() -> None:
    """Every message of a real day of one stock arrives; none is malformed."""
    if not DAY.exists():
        pytest.skip(MISSING)
    replay = Replay(DAY, speed=0)
    async with Simulator(replay=replay) as sim, dial(sim, compression=None) as talk:
        await talk.subscribe(quotes=["AMZN"], trades=["AMZN"])
        await until(lambda: replay.scanned, "the scan")
        heard: list[dict[str, Any]] = []
        while len(heard) < replay.total:
            heard += await talk.hear()
        assert len(heard) == replay.total == 66_483
        assert {one["S"] for one in heard} == {"AMZN"}
        assert replay.malformed == 0
