"""When Alpaca is tried again: dialogues of a daemon with the pacing, under a manual clock."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.pacing import Pacing, Pauses

# Doubling visibly, without jitter.
PLAIN = Pauses(first_s=1.0, most_s=30.0, jitter_s=0.0)
JITTERS = st.floats(0.0, 1.0, exclude_max=True)


def paced(
    pauses: Pauses = PLAIN, *, breaker_failures: int = 1_000, breaker_recovery_s: float = 60.0
) -> Pacing:
    """Return a pacing whose breaker stays closed, unless a test says otherwise."""
    return Pacing(
        breaker_failures=breaker_failures, breaker_recovery_s=breaker_recovery_s, pauses=pauses
    )


def opened() -> Pacing:
    """Return a pacing whose breaker two failures opened at 1.0, for a minute."""
    pacing = paced(breaker_failures=2)
    pacing.trying(0.0)
    assert pacing.failed(0.0, jitter=0.0) == 1.0
    pacing.trying(1.0)
    assert pacing.failed(1.0, jitter=0.0) == 60.0
    return pacing


# Backoff


def test_the_first_try_is_at_once() -> None:
    """Before the first try nothing is known against it."""
    pacing = Pacing(breaker_failures=5, breaker_recovery_s=60.0)
    assert (pacing.breaker, pacing.failures, pacing.next_try_at) == ("closed", 0, -inf)
    pacing.trying(-1e9)


def test_each_failure_in_a_row_doubles_the_pause() -> None:
    """The pauses grow to the longest one and stay there."""
    pacing, now = paced(), 100.0
    for number, pause_s in enumerate((1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0), 1):
        pacing.trying(now)
        assert pacing.failed(now, jitter=0.9) == pause_s
        assert pacing.failures == number
        assert pacing.next_try_at == now + pause_s
        now = pacing.next_try_at


def test_the_longest_pause_holds_after_thousands_of_failures() -> None:
    """No power of two becomes too large for a float."""
    pacing, now = paced(breaker_failures=10_000), 0.0
    for _ in range(3_000):
        pacing.trying(now)
        pause_s = pacing.failed(now, jitter=0.0)
        now = pacing.next_try_at
    assert pause_s == 30.0


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 0.5), (0.5, 0.75), (0.75, 0.875)])
def test_jitter_is_added_to_a_backoff_pause(jitter: float, pause_s: float) -> None:
    """Daemons that failed together do not try again together."""
    assert paced(Pauses()).failed(0.0, jitter=jitter) == pause_s


def test_a_try_before_its_time_is_a_defect_of_the_caller() -> None:
    """The moment itself is allowed."""
    pacing = paced()
    pacing.failed(10.0, jitter=0.0)
    with pytest.raises(AssertionError):
        pacing.trying(10.999)
    pacing.trying(11.0)


def test_a_server_that_accepts_and_closes_is_tried_ever_more_slowly() -> None:
    """An acknowledgement alone does not end the row of failures."""
    pacing, now = paced(), 0.0
    for pause_s in (1.0, 2.0, 4.0, 8.0):
        pacing.trying(now)
        pacing.connected()
        pacing.served(now + 0.1)
        now += 0.2
        assert pacing.failed(now, jitter=0.0) == pause_s
        now = pacing.next_try_at


@pytest.mark.parametrize(
    ("served_at", "failed_at", "pause_s"),
    [
        ([101.0], 131.0, 1.0),  # 30 s after the acknowledgement: a first failure again
        ([101.0], 130.9, 8.0),  # a little less: the fourth in a row
        ([101.0, 125.0], 131.0, 1.0),  # the first acknowledgement counts
        ([], 200.0, 8.0),  # open for long, but never acknowledged
    ],
)
def test_a_session_that_lasted_ends_the_row(
    served_at: list[float], failed_at: float, pause_s: float
) -> None:
    """It must have lasted for ``steady_s`` from its first acknowledgement."""
    pacing = paced()
    for _ in range(3):
        pacing.failed(0.0, jitter=0.0)
    pacing.trying(100.0)
    pacing.connected()
    for now in served_at:
        pacing.served(now)
    assert pacing.failed(failed_at, jitter=0.0) == pause_s


def test_an_acknowledgement_of_an_earlier_session_does_not_count_for_the_next_one() -> None:
    """A session that ended with our leadership does not make a later one a lasting one."""
    pacing = paced()
    pacing.failed(0.0, jitter=0.0)
    pacing.trying(1.0)
    pacing.served(1.0)
    pacing.leadership_lost()
    pacing.trying(100.0)
    assert pacing.failed(101.0, jitter=0.0) == 2.0


# What the server says


@pytest.mark.parametrize(
    ("rate_limited", "after_s", "pause_s"),
    [
        (False, None, 1.0),
        (True, None, 10.0),  # HTTP 429 without a time
        (False, 5.0, 5.0),  # Retry-After
        (False, 0.2, 1.0),  # shorter than the backoff
        (False, -5.0, 1.0),
        (True, 5.0, 10.0),
        (True, 25.0, 25.0),
        (False, 86_400.0, 300.0),  # not for a day
    ],
)
def test_a_pause_is_as_long_as_the_server_asks(
    rate_limited: bool, after_s: float | None, pause_s: float
) -> None:
    """The longest of backoff, rate limit and Retry-After counts; Retry-After has a limit."""
    pacing = paced()
    pacing.trying(0.0)
    assert pacing.failed(0.0, rate_limited=rate_limited, after_s=after_s, jitter=0.5) == pause_s
    assert pacing.next_try_at == pause_s


def test_the_backoff_outgrows_the_rate_limit() -> None:
    """A row of HTTP 429 is spaced like any other row once its pauses are longer."""
    pacing = paced()
    pauses = [pacing.failed(0.0, rate_limited=True, jitter=0.0) for _ in range(6)]
    assert pauses == [10.0, 10.0, 10.0, 10.0, 16.0, 30.0]


# The circuit breaker


def test_closed_it_leaves_the_pause_to_the_backoff() -> None:
    """Failures below the threshold do not open it."""
    pacing = paced(breaker_failures=3)
    for now, pause_s in ((0.0, 1.0), (10.0, 2.0)):
        pacing.trying(now)
        assert pacing.failed(now, jitter=0.0) == pause_s
        assert pacing.breaker == "closed"


def test_failures_in_a_row_open_it() -> None:
    """The last of them starts the wait, and a try meanwhile is a defect of the caller."""
    pacing = opened()
    assert (pacing.breaker, pacing.next_try_at) == ("open", 61.0)
    with pytest.raises(AssertionError):
        pacing.trying(60.9)
    assert pacing.breaker == "open"


def test_a_pause_longer_than_the_wait_counts() -> None:
    """The longer of the two is the pause."""
    pacing = paced(breaker_failures=1, breaker_recovery_s=60.0)
    pacing.trying(0.0)
    assert pacing.failed(0.0, after_s=120.0, jitter=0.0) == 120.0
    assert (pacing.breaker, pacing.next_try_at) == ("open", 120.0)


def test_an_acknowledgement_between_failures_starts_the_count_anew() -> None:
    """Only failures without an acknowledgement between them open it."""
    pacing = paced(breaker_failures=2)
    pacing.failed(0.0, jitter=0.0)
    pacing.trying(1.0)
    assert pacing.served(1.0)
    pacing.failed(2.0, jitter=0.0)
    assert pacing.breaker == "closed"
    assert pacing.failures == 2  # the backoff goes on


def test_a_connection_alone_does_not_close_it() -> None:
    """Authenticated, but no request was acknowledged: a failure like others."""
    pacing = paced(breaker_failures=2)
    for now in (0.0, 10.0):
        pacing.trying(now)
        pacing.connected()
        pacing.failed(now, jitter=0.0)
    assert pacing.breaker == "open"


def test_after_the_wait_one_try_is_half_open() -> None:
    """Time alone does not change its state: a try does."""
    pacing = opened()
    states = [pacing.breaker]
    pacing.trying(61.0)
    states.append(pacing.breaker)
    assert states == ["open", "half_open"]


def test_a_failed_half_open_try_opens_it_for_the_whole_time_again() -> None:
    """One failure is enough, and the wait begins when it is noticed."""
    pacing = opened()
    pacing.trying(61.0)
    assert pacing.failed(65.0, jitter=0.0) == 60.0
    assert (pacing.breaker, pacing.next_try_at) == ("open", 125.0)


def test_a_half_open_try_that_is_acknowledged_closes_it() -> None:
    """An acknowledged half-open try closes the breaker, and one failure does not open it again."""
    pacing = opened()
    pacing.trying(61.0)
    assert pacing.served(62.0)
    assert pacing.breaker == "closed"
    pacing.failed(63.0, jitter=0.0)
    assert pacing.breaker == "closed"


def test_the_end_of_an_outage_is_told_once() -> None:
    """The first acknowledgement after failures tells it, further ones do not."""
    pacing = paced()
    pacing.trying(0.0)
    assert not pacing.served(0.0)
    pacing.failed(1.0, jitter=0.0)
    pacing.trying(5.0)
    assert [pacing.served(5.0), pacing.served(6.0)] == [True, False]


# Another session holds the account's connection (406)


def test_a_held_connection_is_tried_soon_and_then_slowly() -> None:
    """A session that just died may be gone in a moment; one that lives may stay for hours."""
    pacing, now = paced(), 0.0
    for pause_s in (2.0, 4.0, 10.0, 10.0, 10.0):
        pacing.trying(now)
        assert pacing.connection_limited(now, jitter=0.5) == pytest.approx(pause_s)
        assert pacing.next_try_at == pytest.approx(now + pause_s)
        now = pacing.next_try_at


@pytest.mark.parametrize(("jitter", "pause_s"), [(0.0, 1.6), (0.25, 1.8), (0.75, 2.2)])
def test_a_pause_after_406_varies_by_a_fifth(jitter: float, pause_s: float) -> None:
    """A pause after 406 varies, so that two daemons do not try at the same moment."""
    assert paced().connection_limited(0.0, jitter=jitter) == pytest.approx(pause_s)


def test_no_pause_after_406_is_longer_than_the_last_one() -> None:
    """Where the last one is set shorter than the first ones, it is the pause."""
    pacing = paced(Pauses(connection_limit_s=3.0))
    pauses = [pacing.connection_limited(0.0, jitter=0.5) for _ in range(3)]
    assert pauses == pytest.approx([2.0, 3.0, 3.0])


def test_406_is_no_failure() -> None:
    """Breaker and backoff take no notice of it, however often it comes."""
    pacing, now = paced(breaker_failures=1), 0.0
    for _ in range(100):
        pacing.trying(now)
        pacing.connection_limited(now, jitter=0.5)
        now = pacing.next_try_at
    assert (pacing.breaker, pacing.failures) == ("closed", 0)
    pacing.trying(now)
    assert not pacing.served(now)


def test_406_leaves_a_half_open_breaker_as_it_is() -> None:
    """Its one try is neither acknowledged nor failed, so another one follows."""
    pacing = opened()
    pacing.trying(61.0)
    pacing.connection_limited(61.0, jitter=0.5)
    states = [pacing.breaker]
    assert pacing.next_try_at == pytest.approx(63.0)
    pacing.trying(64.0)
    states.append(pacing.breaker)
    pacing.failed(64.0, jitter=0.0)
    states.append(pacing.breaker)
    assert states == ["half_open", "half_open", "open"]


def test_only_an_authenticated_session_ends_the_row_of_406() -> None:
    """A failure between two 406 says nothing about who holds the connection."""
    pacing = paced()
    first = [pacing.connection_limited(0.0, jitter=0.5) for _ in range(2)]
    pacing.failed(0.0, jitter=0.0)
    later = pacing.connection_limited(0.0, jitter=0.5)
    pacing.connected()
    assert [*first, later, pacing.connection_limited(0.0, jitter=0.5)] == pytest.approx(
        [2.0, 4.0, 10.0, 2.0]
    )


# Leadership


def test_a_new_leader_does_not_wait_for_a_pause() -> None:
    """A pause ends with the leadership in which it began; the row of failures does not."""
    pacing = paced()
    for _ in range(5):
        pacing.failed(0.0, jitter=0.0)
    pacing.leadership_lost()
    pacing.trying(0.1)
    assert pacing.failed(0.2, jitter=0.0) == 30.0


def test_a_new_leader_waits_for_an_open_breaker() -> None:
    """A new leader waits for an open breaker: to lose and win leadership does not shorten it."""
    pacing = paced(breaker_failures=1, breaker_recovery_s=60.0)
    pacing.failed(0.0, after_s=120.0, jitter=0.0)
    pacing.leadership_lost()
    assert pacing.next_try_at == 60.0


# Invariants


@given(
    st.integers(1, 5),
    st.lists(
        st.tuples(st.sampled_from(("failed", "served", "limited")), st.floats(0, 100), JITTERS),
        max_size=30,
    ),
)
def test_a_caller_that_keeps_to_next_try_at_is_never_forbidden(
    threshold: int, tries: list[tuple[Literal["failed", "served", "limited"], float, float]]
) -> None:
    """The breaker is open exactly after ``threshold`` failures without an acknowledgement."""
    pacing = paced(Pauses(), breaker_failures=threshold)
    now, in_a_row = 0.0, 0
    for outcome, later_s, jitter in tries:
        now = max(now, pacing.next_try_at) + later_s
        pacing.trying(now)
        if outcome == "served":
            assert pacing.served(now) == (in_a_row > 0)
            in_a_row = 0
        elif outcome == "limited":
            assert 1.6 <= pacing.connection_limited(now, jitter=jitter) <= 12.0 + 1e-9
        else:
            in_a_row += 1
            opens = in_a_row >= threshold
            pause_s = pacing.failed(now, jitter=jitter)
            assert pacing.breaker == ("open" if opens else "closed")
            least_s = 60.0 if opens else 0.5
            assert pause_s >= least_s - 1e-9
            assert pacing.next_try_at >= now + least_s
        assert pacing.failures >= in_a_row


@given(st.lists(JITTERS, min_size=2, max_size=40))
def test_pauses_of_a_row_never_shrink_by_more_than_the_jitter(jitters: list[float]) -> None:
    """Each pause is between the backoff and the backoff with its jitter."""
    pauses = Pauses()
    pacing = paced(pauses)
    row = [pacing.failed(0.0, jitter=jitter) for jitter in jitters]
    assert all(later >= one - pauses.jitter_s for one, later in pairwise(row))
    assert all(pauses.first_s <= pause <= pauses.most_s + pauses.jitter_s for pause in row)
