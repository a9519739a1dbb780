"""How large a batch is, with servers whose way and work are known."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from spotd.core.batch import FEWEST, MOST, BatchSize

_SIZES = (1, 40, 200, 333, 500)


def learned(way_s: float, each_s: float, sizes: Iterable[int], noise_s: float = 0.0) -> BatchSize:
    """After calls to a server so far away, that works so long on each update."""
    batch, chance = BatchSize(), random.Random(7)
    for size in sizes:
        batch.answered(size, way_s + each_s * size + chance.expovariate(1.0) * noise_s)
    return batch


@pytest.mark.parametrize(
    ("way_s", "each_s", "limit"),
    [
        (0.0003, 0.000_002, 500),  # near: 1 ms of work
        (0.000_1, 0.000_004, 250),
        (0.008, 0.000_004, 2_000),  # farther away: as much work as way
        (0.050, 0.000_004, MOST),
        (0.0003, 0.001, FEWEST),  # a server that is busy with a thousand subscribers
        (0.010, 0.000_1, 100),
    ],
)
def test_the_work_is_as_long_as_the_way_and_one_millisecond_at_least(
    way_s: float, each_s: float, limit: int
) -> None:
    """Within the bounds."""
    assert learned(way_s, each_s, _SIZES * 10).limit == pytest.approx(limit, rel=0.01)


def test_it_learns_from_noisy_times() -> None:
    """A loop that is busy answers late now and then."""
    batch = learned(0.0003, 0.000_004, _SIZES * 100, noise_s=0.000_2)
    assert 200 < batch.limit < 350


def test_a_server_that_becomes_slow_is_given_less() -> None:
    """What was learned before fades."""
    batch = learned(0.0003, 0.000_004, _SIZES * 20)
    for size in (500, 300, 100, 200, 50) * 60:
        batch.answered(size, 0.0003 + 0.000_04 * size)
    assert batch.limit == FEWEST


def test_a_call_that_failed_is_followed_by_smaller_ones() -> None:
    """Down to the fewest, whatever was learned; then it is learned anew."""
    batch = learned(0.050, 0.000_004, _SIZES * 10)
    limits = []
    for _ in range(8):
        batch.failed()
        limits.append(batch.limit)
    assert limits[:3] == [2_000, 1_000, 500]
    assert limits[-1] == FEWEST
    batch.answered(1, 0.3)
    batch.answered(50, 0.3001)
    assert batch.limit == 2 * FEWEST  # no leap, whatever two calls seem to say


def test_no_call_is_planned_to_last_for_long() -> None:
    """A distant server that is slow, too, is not given so much that its answer comes too late."""
    assert learned(0.4, 0.000_1, _SIZES * 10).limit == 1_000


@pytest.mark.parametrize("sizes", [(), (333,), (333,) * 40])
def test_calls_of_one_size_teach_nothing(sizes: tuple[int, ...]) -> None:
    """Way and work cannot be told apart, so nothing changes."""
    assert learned(0.040, 0.000_004, sizes).limit == BatchSize().limit


@pytest.mark.parametrize(("way_s", "limit"), [(0.020, MOST), (0.200, MOST), (0.400, FEWEST)])
def test_full_calls_are_made_larger_while_they_are_quick(way_s: float, limit: int) -> None:
    """A backlog after failures: every call is full, and nothing but a larger one can tell more."""
    batch = BatchSize()
    for _ in range(8):
        batch.failed()
    for _ in range(40):
        batch.answered(batch.limit, way_s + 0.000_004 * batch.limit)
    assert batch.limit == limit


def test_a_slow_first_call_does_not_hold_up_what_follows() -> None:
    """It had to connect first, and was the smallest: then a larger one seems to cost less."""
    batch = BatchSize()
    for _ in range(8):
        batch.failed()
    batch.answered(batch.limit, 0.030)
    for _ in range(6):
        batch.answered(batch.limit, 0.010 + 0.000_004 * batch.limit)
    assert batch.limit > 1_000


def test_times_that_fall_with_the_size_teach_nothing() -> None:
    """Chance, or somebody else's load."""
    batch = BatchSize()
    for size, seconds in ((1, 0.02), (499, 0.001)) * 10:
        batch.answered(size, seconds)
    assert batch.limit == BatchSize().limit
