"""Which leases are doubtful: their scores may be no unix time in seconds."""

from __future__ import annotations

import pytest

from spotd.core.leases import FAR_AHEAD_S, MAX_OWNERS, DoubtfulLease, LeaseDoubts

NOW = 1_768_885_920.0


@pytest.fixture
def doubts() -> LeaseDoubts:
    """Return doubts of a term whose first read found no lapsed lease."""
    doubts = LeaseDoubts()
    doubts.lapsed([], NOW)
    return doubts


def test_a_lease_that_had_lapsed_before_it_came_is_counted_and_logged(doubts: LeaseDoubts) -> None:
    """The read before would have found it, had it been there."""
    assert doubts.lapsed([(b"SPY@a", NOW - 30.0)], NOW + 0.5) == [
        DoubtfulLease("lapsed", b"SPY@a", -30.5)
    ]
    assert doubts.counts == {"lapsed": 1}


def test_a_lease_that_lapsed_since_the_read_before_is_none(doubts: LeaseDoubts) -> None:
    """It may have been short, or its owner died."""
    assert doubts.lapsed([(b"SPY@a", NOW + 0.1)], NOW + 0.5) == []
    assert doubts.lapsed([(b"SPY@a", NOW + 0.6)], NOW + 60.0) == []
    assert doubts.counts.total() == 0


def test_what_lapsed_while_nobody_led_is_none(doubts: LeaseDoubts) -> None:
    """In the first read of a term, leases are found that lapsed in peace."""
    doubts.begin()
    assert doubts.lapsed([(b"SPY@a", NOW - 30.0)], NOW + 0.5) == []
    assert doubts.counts.total() == 0


@pytest.mark.parametrize("score", [NOW * 1000, float("inf"), NOW + FAR_AHEAD_S + 1])
def test_a_lease_that_lapses_far_ahead_is_counted_and_logged(
    doubts: LeaseDoubts, score: float
) -> None:
    """Milliseconds, infinity: it is counted when it comes, not at each read."""
    expected = [DoubtfulLease("far", b"SPY@a", score - NOW)]
    assert doubts.far([(b"SPY@a", score)], NOW) == expected
    assert doubts.far([(b"SPY@a", score)], NOW + 1) == []
    assert doubts.counts == {"far": 1}


def test_each_is_logged_once_per_owner(doubts: LeaseDoubts) -> None:
    """All are counted. A lease without an owner has an empty one."""
    leases = [(b"SPY@a", 1.0), (b"QQQ@a", 2.0), (b"IWM@a@b", 3.0), (b"DIA", 4.0)]
    logged = doubts.lapsed(leases, NOW + 1)
    assert [lease.owner for lease in logged] == [b"a", b"a@b", b""]
    assert doubts.lapsed(leases, NOW + 2) == []
    assert doubts.counts == {"lapsed": 8}
    assert [lease.kind for lease in doubts.far([(b"SPY@a", NOW * 1000)], NOW)] == ["far"]


def test_a_bounded_number_of_owners_is_remembered(doubts: LeaseDoubts) -> None:
    """The earliest owner is forgotten, and logged again."""
    doubts.lapsed([(b"SPY@%d" % n, 1.0) for n in range(MAX_OWNERS + 1)], NOW + 1)
    assert doubts.lapsed([(b"SPY@1", 1.0)], NOW + 2) == []
    assert [lease.owner for lease in doubts.lapsed([(b"SPY@0", 1.0)], NOW + 3)] == [b"0"]
