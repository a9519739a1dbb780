"""How long a call to Redis may take."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.call_limit import CallLimit, more_s


@pytest.mark.parametrize(
    ("answers_s", "limit_s"),
    [
        ([], 0.8),
        ([0.001, 0.1], 0.8),
        ([0.6], 1.8),
        ([0.6, 0.001], 1.62),
        ([1.2], 3.0),
        ([30.0], 3.0),
        ([0.6, *[0.001] * 20], 0.8),
    ],
)
def test_a_slow_network_gets_longer_limits(answers_s: list[float], limit_s: float) -> None:
    """A call may take three times as long as the slowest of the latest answers, at least 0.8 s."""
    limit = CallLimit(0.8)
    for each in answers_s:
        limit.answered(each)
    assert limit.limit_s == pytest.approx(limit_s)


@given(least_s=st.floats(0.1, 60.0), answers_s=st.lists(st.floats(0.0, 100.0)))
def test_a_limit_stays_within_bounds(least_s: float, answers_s: list[float]) -> None:
    """The limit is at least what was asked for, and at most 3 s unless more was asked for."""
    limit = CallLimit(least_s)
    for each in answers_s:
        limit.answered(each)
        assert least_s <= limit.limit_s <= max(3.0, least_s)


@pytest.mark.parametrize(("late_s", "expected_s"), [(0.0, 0.0), (0.05, 0.0), (0.9, 0.1)])
def test_after_a_standstill_there_is_time_to_read_an_answer(
    late_s: float, expected_s: float
) -> None:
    """A limit that is noticed late says that this process stood still, not that Redis did."""
    assert more_s(late_s) == expected_s
