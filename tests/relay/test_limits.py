"""Who is let in, and how much each client may ask."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spotd.relay.limits import Admission, Bucket, Full, Limits


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    """Three at once, then one each half second."""
    bucket = Bucket(per_s=2, burst=3, now=0)
    assert [bucket.take(0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(0.4)
    assert bucket.take(0.5)
    assert not bucket.take(0.5)


def test_a_pause_fills_a_bucket_to_its_burst_only() -> None:
    """An hour of silence allows no more than one burst."""
    bucket = Bucket(per_s=10, burst=2, now=0)
    assert [bucket.take(3_600) for _ in range(3)] == [True, True, False]


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
    assert admission.full() == admission.enter(0) == Full("the relay is full", 5)
    admission.leave()
    assert admission.enter(0) is None
    assert admission.clients == 1


def test_too_many_connections_at_once_come_again_later() -> None:
    """Beyond the connections per second: refused, until a second has passed."""
    admission = Admission(Limits(connects_per_s=2), now=0)
    assert [admission.enter(0) for _ in range(2)] == [None, None]
    assert admission.enter(0) == Full("too many connections at once", 1)
    assert admission.full() is None
    assert admission.clients == 2
    assert admission.enter(1) is None
