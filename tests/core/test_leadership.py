"""Who leads, as far as one daemon can know it."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from spotd.core.leadership import Lease


def test_nobody_leads_before_the_lease_is_granted() -> None:
    """A standby's leadership ended in the past."""
    lease = Lease(5.0)
    assert not lease.holds(0.0)
    assert lease.until == -inf


def test_leadership_counts_from_sending_less_a_margin() -> None:
    """The key cannot lapse earlier than a TTL after it was asked for."""
    lease = Lease(5.0)
    lease.granted(100.0)
    assert lease.until == 104.5
    assert lease.holds(104.4)
    assert not lease.holds(104.5)


def test_a_renewal_moves_the_end_and_never_back() -> None:
    """Answers may come late and out of order."""
    lease = Lease(5.0)
    lease.granted(102.0)
    lease.granted(101.0)
    assert lease.until == 106.5


def test_a_refusal_ends_leadership_at_once() -> None:
    """The key holds another token, whatever our clock says."""
    lease = Lease(5.0)
    lease.granted(100.0)
    lease.refused()
    assert not lease.holds(100.0)
    lease.granted(90.0)
    assert lease.until == 94.5


def test_several_renewals_fit_into_one_ttl() -> None:
    """One lost renewal does not cost the lead."""
    lease = Lease(5.0)
    lease.granted(0.0)
    assert lease.holds(3 * lease.renew_every_s)


@given(
    st.floats(1, 300),
    st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10), st.floats(0, 10)), max_size=20),
)
def test_a_leader_stops_before_its_key_can_lapse(
    ttl_s: float, renewals: list[tuple[float, float, float]]
) -> None:
    """However long requests and answers travel, the key outlives our belief in it."""
    lease = Lease(ttl_s)
    now = key_until = 0.0
    for pause_s, there_s, back_s in renewals:
        sent_at = now + pause_s
        key_until = sent_at + there_s + ttl_s
        now = sent_at + there_s + back_s
        lease.granted(sent_at)
        assert lease.until < key_until
