"""When clients are served: 20 to 50 ms at nominal load, longer only beyond it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.relay.tick import LONGEST_S, SHORTEST_S, SLICES, Tick


def settled(cost_s: float) -> Tick:
    """Return a tick in which serving all clients has long cost this."""
    tick = Tick()
    for _ in range(200):
        tick.served(cost_s / SLICES)
    return tick


@pytest.mark.parametrize(
    ("cost_ms", "length_ms"),
    [
        (0, 20),
        (12, 20),  # 60 % of the shortest tick
        (18, 30),
        (24, 40),
        (30, 50),
        (40, 50),  # 80 % of the longest nominal tick
        (80, 100),
        (400, 500),
    ],
)
def test_a_tick_is_as_long_as_its_cost_needs(cost_ms: float, length_ms: float) -> None:
    """Serving takes at most 60 %, then 80 % of the time; 20 to 50 ms where that suffices."""
    assert settled(cost_ms / 1000).length_s * 1000 == pytest.approx(length_ms, rel=1e-3)


@given(st.lists(st.floats(0, 0.05), max_size=50))
def test_a_tick_is_never_shorter_than_the_shortest(costs_s: list[float]) -> None:
    """It is at most the longest, unless serving needs more."""
    tick = Tick()
    for cost_s in costs_s:
        tick.served(cost_s)
        assert tick.length_s >= SHORTEST_S
        if max(costs_s) * SLICES <= LONGEST_S * 0.8:
            assert tick.length_s <= LONGEST_S


def test_slices_come_in_turn_and_evenly() -> None:
    """Each slice once in a tick, an eighth of a tick apart."""
    tick, now, found = Tick(), 100.0, []
    begun = []
    for _ in range(SLICES + 1):
        now = tick.next_at(now)
        begun.append(now)
        found.append(tick.begin(now))
    assert found == [*range(SLICES), 0]
    steps = [later - earlier for earlier, later in pairwise(begun)]
    assert steps == pytest.approx([SHORTEST_S / SLICES] * SLICES)


def test_after_a_pause_a_slice_is_due_at_once_and_nothing_is_made_up_for() -> None:
    """An idle minute costs the next price no wait, and no burst of slices follows."""
    tick = Tick()
    tick.begin(0)
    assert tick.next_at(60) == 60
    tick.begin(60)
    assert tick.next_at(60) == pytest.approx(60 + SHORTEST_S / SLICES)


def test_a_late_timer_does_not_make_the_next_slice_later() -> None:
    """The next slice is due an interval after the last was due."""
    tick = Tick()
    tick.begin(0)
    due = tick.next_at(0)
    tick.begin(due + 0.0005)
    assert tick.next_at(0) == pytest.approx(due + SHORTEST_S / SLICES)
