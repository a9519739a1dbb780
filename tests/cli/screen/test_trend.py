"""Trends: the last price of each step, as marks between the lowest and the highest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.cli.screen.styles import ASCII, UNICODE
from spotd.cli.screen.trend import MOST_MARKS, STEP_S, Trend, marks_of

PRICES = st.floats(min_value=-1.7e308, max_value=1.7e308)


@pytest.mark.parametrize(
    ("prices", "marks"),
    [
        ([], ""),
        ([5.0], "▄"),
        ([5.0, 5.0, 5.0], "▄▄▄"),
        ([1.0, 8.0], "▁█"),
        ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
        ([-1.7e308, 1.7e308], "▁█"),
        ([1e-310, 2e-310, 4e-310], "▁▃█"),
    ],
)
def test_marks(prices: list[float], marks: str) -> None:
    """The lowest price has the lowest mark, the highest the highest; equal ones a middle one."""
    assert marks_of(prices, UNICODE.levels) == marks


@given(st.lists(PRICES, min_size=1), st.sampled_from([UNICODE.levels, ASCII.levels]))
def test_any_prices(prices: list[float], levels: str) -> None:
    """Each finite price has a mark, and a higher price has no lower one."""
    marks = marks_of(sorted(prices), levels)
    heights = [levels.index(mark) for mark in marks]
    assert len(heights) == len(prices)
    assert heights == sorted(heights)


def test_steps() -> None:
    """Within a step the last price stands; steps without one repeat it; the oldest go."""
    trend = Trend()
    assert trend.last(5, 0.0) == []
    trend.take(1.0, 100.0)
    trend.take(2.0, 100.0 + STEP_S / 2)
    trend.take(3.0, 100.0 + STEP_S)
    assert trend.last(5, 100.0 + STEP_S) == [2.0, 3.0]
    assert trend.last(5, 100.0 + 3 * STEP_S) == [2.0, 3.0, 3.0, 3.0]
    assert trend.last(2, 100.0 + 3 * STEP_S) == [3.0, 3.0]
    assert list(trend.last(0, 100.0 + 3 * STEP_S)) == []
    assert trend.last(1_000, 1e9) == [3.0] * MOST_MARKS


def test_frozen() -> None:
    """A frozen trend is not changed by later prices."""
    trend = Trend()
    trend.take(1.0, 100.0)
    frozen = trend.frozen()
    trend.take(2.0, 100.0)
    assert frozen.last(5, 100.0) == [1.0]
