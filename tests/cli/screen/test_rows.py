"""What is known of a symbol."""

from __future__ import annotations

import pytest

from spotd.cli.screen.rows import Row
from tests.kit.publisher import AT, update_of


@pytest.mark.parametrize(
    ("interval_s", "count", "quiet_s", "rate"),
    [(0.2, 100, 0, 5.0), (1.0, 3, 0, 1.0), (0.001, 5000, 0, 1003.9), (0.2, 100, 5, 0.0)],
)
def test_rate(interval_s: float, count: int, quiet_s: float, rate: float) -> None:
    """Updates per second are those of the last seconds, and fall to nothing in a silence."""
    now = 1000.0
    row = Row("SPY", now)
    for seq in range(count):
        now += interval_s
        row.take(update_of("SPY", seq), now)
    assert round(row.rate(now + quiet_s), 1) == rate


def test_age() -> None:
    """An age is that of the exchange's time; clocks that disagree make no negative one."""
    row = Row("SPY", 0.0)
    assert row.age_s(0.0) is None
    row.take(update_of("SPY"), 0.0)
    assert row.age_s(AT.timestamp() + 3) == 3.0
    assert row.age_s(AT.timestamp() - 3) == 0.0
