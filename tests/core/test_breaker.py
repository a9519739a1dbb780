"""When the stream may be tried again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.breaker import Breaker


def opened(now: float = 0.0) -> Breaker:
    """Opened at ``now`` by two failures, for a minute."""
    breaker = Breaker(failures=2, recovery_s=60.0)
    breaker.failed(now)
    breaker.failed(now)
    return breaker


def test_closed_lets_every_try_through() -> None:
    """Failures below the threshold change nothing: the pace is the backoff's business."""
    breaker = Breaker(failures=3, recovery_s=60.0)
    for now in (0.0, 1.0):
        breaker.attempt(now)
        breaker.failed(now)
        assert breaker.state == "closed"
        assert breaker.wait_s(now) == 0.0


def test_failures_in_a_row_open_it() -> None:
    """The last of them starts the wait, and a try meanwhile is a defect of the caller."""
    breaker = opened(100.0)
    assert breaker.state == "open"
    assert breaker.wait_s(100.0) == 60.0
    assert breaker.wait_s(159.0) == 1.0
    with pytest.raises(AssertionError):
        breaker.attempt(159.9)


def test_a_success_between_failures_starts_the_count_anew() -> None:
    """Only failures in a row open it."""
    breaker = Breaker(failures=2, recovery_s=60.0)
    breaker.failed(0.0)
    breaker.succeeded()
    breaker.failed(1.0)
    assert breaker.state == "closed"
    assert breaker.failures == 1


def test_after_the_wait_one_try_is_half_open() -> None:
    """It is allowed at the moment the wait is over, not before."""
    breaker = opened()
    assert breaker.wait_s(60.0) == 0.0
    assert breaker.wait_s(1_000.0) == 0.0
    breaker.attempt(60.0)
    assert breaker.state == "half_open"
    assert breaker.wait_s(60.0) == 0.0


def test_a_failed_half_open_try_opens_it_for_the_whole_time_again() -> None:
    """One failure is enough, and it counts from then."""
    breaker = opened()
    breaker.attempt(60.0)
    breaker.failed(65.0)
    assert breaker.state == "open"
    assert breaker.wait_s(65.0) == 60.0


def test_a_half_open_try_that_works_closes_it() -> None:
    """And the next single failure does not open it."""
    breaker = opened()
    breaker.attempt(60.0)
    breaker.succeeded()
    assert breaker.state == "closed"
    assert breaker.wait_s(60.0) == 0.0
    breaker.failed(61.0)
    assert breaker.state == "closed"


@given(
    st.integers(1, 5),
    st.lists(st.tuples(st.booleans(), st.integers(0, 100)), max_size=30),
)
def test_never_more_failures_in_a_row_than_the_threshold_without_a_wait(
    threshold: int, tries: list[tuple[bool, int]]
) -> None:
    """A caller that obeys is never forbidden, and waits once the threshold is reached."""
    breaker = Breaker(failures=threshold, recovery_s=60.0)
    now, in_a_row = 0.0, 0
    for works, pause_s in tries:
        now += pause_s + breaker.wait_s(now + pause_s)
        breaker.attempt(now)
        if works:
            breaker.succeeded()
            in_a_row = 0
        else:
            breaker.failed(now)
            in_a_row += 1
        assert (breaker.wait_s(now) > 0) == (in_a_row >= threshold)
        assert breaker.state == ("open" if in_a_row >= threshold else "closed")
