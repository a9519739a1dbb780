"""Who is let in, and how much each client may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spotd.relay.limits import Admission, Bucket, Limits


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Three at once, then one each half second."""
    bucket = Bucket(per_s=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert bucket.wait_s() == 0.5
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)


def test_a_pause_fills_a_bucket_to_its_burst_only() -> None:
    """An hour of silence allows no more than one burst."""
    bucket = Bucket(per_s=10, burst=2, now=0)
    assert [bucket.take(3_600) for _ in range(3)] == [True, True, False]


def test_a_clock_that_stands_or_turns_back_takes_nothing_away() -> None:
    """What is left stays, and what time gave is not given twice."""
    bucket = Bucket(per_s=1, burst=2, now=10)
    assert bucket.take(10)
    assert bucket.take(9)
    assert not bucket.take(10)


@given(
    burst=st.integers(1, 20),
    per_s=st.integers(1, 50),
    pauses=st.lists(st.floats(0, 3), max_size=60),
)
def test_a_bucket_never_gives_more_than_burst_and_rate(
    burst: int, per_s: int, pauses: list[float]
) -> None:
    """In any time from the start, at most burst + rate x time."""
    bucket, now, taken = Bucket(per_s, burst, 0), 0.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.take(now)
        assert taken <= burst + per_s * now + 1e-6


def test_a_full_relay_says_when_to_come_again() -> None:
    """Beyond the clients: refused, and let in after one has left."""
    admission = Admission(Limits(clients=1), now=0)
    assert admission.enter(0) is None
    full = admission.enter(0)
    assert full is not None
    assert (full.code, full.retry_after_s) == ("too_many_clients", 5)
    admission.leave()
    assert admission.enter(0) is None
    assert admission.clients == 1


def test_too_many_connections_at_once_come_again_later() -> None:
    """Beyond the connections per second: refused, for a second at least."""
    admission = Admission(Limits(connects_per_s=2), now=0)
    assert [admission.enter(0) for _ in range(2)] == [None, None]
    full = admission.enter(0)
    assert full is not None
    assert (full.code, full.retry_after_s) == ("too_many_connects", 1)
    assert admission.clients == 2
    assert admission.enter(1) is None
