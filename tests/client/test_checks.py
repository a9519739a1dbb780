"""When the stored status and states are read next."""

from __future__ import annotations

import pytest

from spotd.client.checks import CHECK_EVERY_S, next_check_in_s


@pytest.mark.parametrize(
    ("lapses_in_ms", "in_s"),
    [
        (10_000, 5.0),  # just refreshed
        (4_990, 5.0),
        (2_000, 2.02),
        (0, 0.02),
        (-2, 5.0),  # there is none
        (-1, 5.0),  # it does not lapse
        (None, 5.0),
    ],
)
def test_the_next_check_is_no_later_than_the_lapse_of_the_status(
    lapses_in_ms: int | None, in_s: float
) -> None:
    """What PTTL answers decides, and checks are at most five seconds apart."""
    assert next_check_in_s(5.0, lapses_in_ms) == pytest.approx(in_s, abs=0.011)
    assert next_check_in_s(0.05, lapses_in_ms) <= 0.05


@pytest.mark.parametrize("died_after_s", [0.0, 0.7, 2.9])
@pytest.mark.parametrize("first_check_s", [0.0, 1.3, 4.9])
def test_the_end_of_a_killed_daemon_is_seen_when_its_status_lapses(
    died_after_s: float, first_check_s: float
) -> None:
    """Whenever the checks are: the first one behind the lapse is no later than 20 ms."""
    refreshed_s = died_after_s - died_after_s % 3.0  # and killed before the next
    lapses_s = refreshed_s + 10.0
    now = first_check_s
    while now < lapses_s:
        now += next_check_in_s(CHECK_EVERY_S, round((lapses_s - now) * 1000))
    assert lapses_s <= now <= lapses_s + 0.021
