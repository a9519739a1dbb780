"""When a call to Redis begins, how large it is, and its seq: simulated servers, a manual clock."""

from __future__ import annotations

import random
from math import inf
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.publishing import (
    EDGES_GATHER_S,
    ENOUGH,
    FEWEST,
    FIRST,
    GATHER_ABOVE_PER_S,
    GATHER_S,
    GATHER_UNTIL_PER_S,
    MOST,
    BatchSize,
    Gathering,
    SeqCounter,
    Succession,
    next_call_at,
)

# When the next call begins


class Situation(NamedTuple):
    """What ``next_call_at`` is told."""

    ready: int = 0
    ready_at: float = 100.0
    edge_at: float | None = None
    window_at: float | None = None
    together: int = 0
    gathers: bool = False


@pytest.mark.parametrize(
    ("situation", "expected"),
    [
        (Situation(), None),  # idle: until something changes
        (Situation(window_at=100.25, together=1), 100.25 + GATHER_S),
        (Situation(window_at=100.25, together=ENOUGH - 1), 100.25 + GATHER_S),
        (Situation(window_at=100.25, together=ENOUGH), 100.25),
        (Situation(1), 100.0 + GATHER_S),  # its window ended: others join it
        (Situation(ENOUGH), 100.0),
        (Situation(ENOUGH, edge_at=100.0, gathers=True), 100.0),
        (Situation(1, edge_at=100.0), 100.0),  # an edge goes out at once …
        (Situation(9, edge_at=100.004), 100.004),  # … and takes along what waits
        (Situation(1, edge_at=100.0, gathers=True), 100.0 + EDGES_GATHER_S),
        (Situation(9, edge_at=100.004, gathers=True), 100.0 + GATHER_S),
        (Situation(1, edge_at=100.0, window_at=100.001, together=ENOUGH), 100.0),
    ],
)
def test_when_the_next_call_begins(situation: Situation, expected: float | None) -> None:
    """An edge waits only where edges gather, the end of a window only in a small batch."""
    assert next_call_at(**situation._asdict()) == expected


@given(
    st.builds(
        Situation,
        ready=st.integers(0, 1_000),
        ready_at=st.floats(100, 101),
        edge_at=st.none() | st.floats(101, 102),
        window_at=st.none() | st.floats(103, 104),
        together=st.integers(1, 1_000),
        gathers=st.booleans(),
    )
)
def test_no_update_waits_longer_than_the_contract_allows(situation: Situation) -> None:
    """A leading edge waits 2 ms at most, and what a window held back ``GATHER_S``."""
    at = next_call_at(**situation._asdict())
    if situation.ready:
        assert at is not None
        assert situation.ready_at <= at <= situation.ready_at + GATHER_S
        if situation.edge_at is not None:
            assert at <= situation.edge_at + EDGES_GATHER_S
    elif situation.window_at is None:
        assert at is None
    else:
        assert at is not None
        assert situation.window_at <= at <= situation.window_at + GATHER_S


# Whether edges gather


def paced(gathering: Gathering, per_s: float, seconds: float, now: float) -> float:
    """Publish single updates at this pace. Return the time afterwards."""
    end = now + seconds
    while now < end:
        gathering.published(1, now)
        now += 1 / per_s
    return now


@pytest.mark.parametrize(("per_s", "gathers"), [(50, False), (900, False), (2_000, True)])
def test_edges_gather_by_pace(per_s: float, gathers: bool) -> None:
    """At everyday paces each goes out at once, beyond them they share calls."""
    gathering = Gathering()
    now = paced(gathering, per_s, 1.0, 100.0)
    assert gathering.gathers(now) is gathers


def test_gathering_does_not_swing() -> None:
    """Between the two limits what was decided stays."""
    between = (GATHER_UNTIL_PER_S + GATHER_ABOVE_PER_S) / 2
    gathering = Gathering()
    now = paced(gathering, between, 1.0, 100.0)
    assert not gathering.gathers(now)
    now = paced(gathering, 2 * GATHER_ABOVE_PER_S, 1.0, now)
    now = paced(gathering, between, 1.0, now)
    assert gathering.gathers(now)
    now = paced(gathering, GATHER_UNTIL_PER_S / 2, 1.0, now)
    assert not gathering.gathers(now)


def test_the_first_edge_after_a_silence_does_not_gather() -> None:
    """What the pace was before the silence says nothing."""
    gathering = Gathering()
    now = paced(gathering, 5_000, 1.0, 100.0)
    assert gathering.gathers(now)
    assert not gathering.gathers(now + 1.0)


# How large a call is


class Server:
    """A Redis with a round trip of ``way_s`` seconds and ``each_s`` seconds of work on an update.

    Calls are answered up to ``delay_s`` later on average, by chance.
    """

    def __init__(self, way_s: float, each_s: float, delay_s: float = 0.0) -> None:
        self.way_s = way_s
        self.each_s = each_s
        self._delay_s = delay_s
        self._chance = random.Random(7)

    def answer(self, batch: BatchSize, updates: int) -> float:
        """Answer a call, tell the batch size of it, and return how long it took."""
        seconds = self.way_s + self.each_s * updates
        if self._delay_s:
            seconds += self._chance.expovariate(1.0) * self._delay_s
        batch.answered(updates, seconds)
        return seconds


def failed(times: int) -> BatchSize:
    """Return the batch size after this number of calls that were given up."""
    batch = BatchSize()
    for _ in range(times):
        batch.failed()
    return batch


def backlog(batch: BatchSize, server: Server, calls: int) -> tuple[float, float]:
    """Make full calls only. Return updates per second, and the longest work in seconds."""
    updates = seconds = longest_s = 0.0
    for _ in range(calls):
        limit = batch.limit
        seconds += server.answer(batch, limit)
        updates += limit
        longest_s = max(longest_s, limit * server.each_s)
    return updates / seconds, longest_s


# Way in ms, work on an update in us; updates per second that the line of least squares, which this
# replaced, reached once settled; and the longest work of a call in ms that is accepted here.
SERVERS = [
    (0.2, 5, 166_667, 10),
    (0.2, 50, 18_519, 10),
    (5, 5, 100_000, 15),
    (5, 50, 10_000, 15),
    (50, 5, 57_143, 100),
    (50, 50, 10_000, 100),
    (200, 5, 18_182, 100),
    (200, 50, 6_667, 100),
]


@pytest.mark.parametrize(("way_ms", "each_us", "before", "most_work_ms"), SERVERS)
@pytest.mark.parametrize("given_up", [0, 8], ids=["from the first size", "from the smallest size"])
@pytest.mark.parametrize("delay_s", [0.0, 0.0005], ids=["steady", "noisy"])
def test_a_server_near_or_far_is_used_well_and_not_held(
    way_ms: float, each_us: float, before: float, most_work_ms: float, given_up: int, delay_s: float
) -> None:
    """Settled: at least half of what was reached before, and no call that holds the server."""
    server = Server(way_ms / 1e3, each_us / 1e6, delay_s)
    batch = failed(given_up)
    backlog(batch, server, 20)
    rate, longest_s = backlog(batch, server, 300)
    assert rate > before / 2.0
    assert longest_s <= most_work_ms / 1e3 + 1e-9


def test_a_near_server_that_is_slow_is_given_less_within_a_few_calls() -> None:
    """The first full call is followed by a small one, which tells the way, and then by halves."""
    batch, server = BatchSize(), Server(0.0002, 0.000_05)
    limits = []
    for _ in range(6):
        limits.append(batch.limit)
        server.answer(batch, batch.limit)
    assert limits == [FIRST, FEWEST, FIRST, FIRST // 2, FIRST // 4, FIRST // 4]


def test_a_distant_server_gets_the_largest_calls_within_a_few_calls() -> None:
    """A backlog after an outage is sent at once, however far the server is."""
    batch, server = failed(8), Server(0.2, 0.000_005)
    limits = []
    for _ in range(9):
        limits.append(batch.limit)
        server.answer(batch, batch.limit)
    assert limits == [50, 100, 200, 400, 800, 1_600, 3_200, MOST, MOST]


def test_a_way_that_is_already_known_is_not_measured() -> None:
    """The small calls of quiet moments tell it, so a burst is not interrupted."""
    batch, server = BatchSize(), Server(0.05, 0.000_005)
    server.answer(batch, 1)
    limits = []
    for _ in range(5):
        limits.append(batch.limit)
        server.answer(batch, batch.limit)
    assert limits == [500, 1_000, 2_000, MOST, MOST]


def test_where_each_call_is_full_the_way_is_measured_now_and_then() -> None:
    """One small call among many full ones."""
    batch, server = BatchSize(), Server(0.0002, 0.000_005)
    limits = []
    for _ in range(400):
        limits.append(batch.limit)
        server.answer(batch, batch.limit)
    measured = [number for number, limit in enumerate(limits) if limit == FEWEST]
    assert 5 <= len(measured) <= 10


@pytest.mark.parametrize("updates", [FEWEST + 1, FIRST - 1])
@pytest.mark.parametrize("seconds", [0.0001, 0.7])
def test_a_call_that_is_not_full_does_not_change_the_size(updates: int, seconds: float) -> None:
    """A larger one would not have carried more, and a smaller one may not have either."""
    batch = BatchSize()
    for _ in range(200):
        batch.answered(updates, seconds)
    assert batch.limit == FIRST


def test_calls_that_are_given_up_halve_it() -> None:
    """Down to the fewest, and not below."""
    batch, limits = BatchSize(), []
    for _ in range(5):
        batch.failed()
        limits.append(batch.limit)
    assert limits == [250, 125, 62, FEWEST, FEWEST]


def test_a_call_that_is_given_up_ends_a_measurement() -> None:
    """The size is then half of what it was, not of the small call's."""
    batch, server = BatchSize(), Server(0.05, 0.000_005)
    server.answer(batch, FIRST)
    assert batch.limit == FEWEST
    batch.failed()
    assert batch.limit == FIRST // 2


def test_after_a_call_that_was_given_up_the_way_is_measured_anew() -> None:
    """Another server may answer next: a long way must not be taken for work."""
    batch = BatchSize()
    backlog(batch, Server(0.0002, 0.000_005), 10)
    batch.failed()
    limits, server = [], Server(0.2, 0.000_005)
    for _ in range(6):
        limits.append(batch.limit)
        server.answer(batch, batch.limit)
    assert limits == [250, FEWEST, 250, 500, 1_000, 2_000]


def test_a_call_that_takes_long_is_not_made_larger() -> None:
    """However far the server is: a call of twice the work could be given up."""
    batch = BatchSize()
    backlog(batch, Server(0.4, 0.000_005), 50)
    assert batch.limit == FIRST


def test_a_first_call_that_had_to_connect_does_not_count_as_a_long_way() -> None:
    """A later call that takes less corrects it."""
    batch, server = failed(8), Server(0.0002, 0.000_05)
    batch.answered(FEWEST, 0.2)
    backlog(batch, server, 6)
    assert batch.limit * server.each_s <= 0.010


@pytest.mark.parametrize("delayed", [FEWEST, FIRST])
def test_one_answer_that_is_late_changes_little(delayed: int) -> None:
    """A loop or a server that is busy for a moment is no distant one, and no slow one."""
    batch, server = BatchSize(), Server(0.0002, 0.000_004)
    backlog(batch, server, 10)
    settled = batch.limit
    batch.answered(delayed, 0.1)
    assert settled / 2 <= batch.limit <= settled
    backlog(batch, server, 3)
    assert batch.limit == settled


@pytest.mark.parametrize(
    ("first", "later"),
    [
        (Server(0.2, 0.000_005), Server(0.0002, 0.000_05)),
        (Server(0.0002, 0.000_05), Server(0.2, 0.000_005)),
        (Server(0.0002, 0.000_005), Server(0.0002, 0.000_05)),
        (Server(0.0002, 0.000_05), Server(0.0002, 0.000_005)),
    ],
    ids=["far to near", "near to far", "quick to slow", "slow to quick"],
)
def test_it_follows_a_server_that_changes(first: Server, later: Server) -> None:
    """After a fail-over without a failed call, it is soon as if the later one were the first."""
    batch = BatchSize()
    backlog(batch, first, 300)
    backlog(batch, later, 100)
    rate, longest_s = backlog(batch, later, 100)
    fresh = BatchSize()
    backlog(fresh, later, 20)
    expected, _ = backlog(fresh, later, 100)
    assert rate > expected / 2.0
    assert longest_s <= 0.1 if later.way_s > 0.1 else longest_s <= 0.010


@given(
    st.floats(0.000_05, 0.25),
    st.floats(0.000_001, 0.000_06),
    st.integers(0, 8),
    st.lists(st.integers(1, FEWEST), max_size=3),
)
def test_any_server_is_used_well_and_not_held(
    way_s: float, each_s: float, given_up: int, small: list[int]
) -> None:
    """Settled: a third of all that calls of the largest size reach, and work as long as the way.

    Where that is shorter, about 10 ms of work; where that is longer, 100 ms and what is doubled.
    """
    server, batch = Server(way_s, each_s), failed(given_up)
    for updates in small:
        server.answer(batch, updates)
    backlog(batch, server, 20)
    rate, longest_s = backlog(batch, server, 300)
    assert rate > MOST / (way_s + MOST * each_s) / 3.0
    assert longest_s <= max(0.0125, min(2.5 * way_s + 0.008, 0.22))


@given(
    st.lists(
        st.none() | st.tuples(st.floats(0.0, 1.0), st.floats(0.0, 1.0)),
        max_size=200,
    )
)
def test_whatever_happens_the_size_is_within_its_bounds_and_never_leaps(
    calls: list[tuple[float, float] | None],
) -> None:
    """Between the fewest and the most, and at most twice what it was, measurements left out."""
    batch, size = BatchSize(), FIRST
    for call in calls:
        if call is None:
            batch.failed()
        else:
            share, seconds = call
            batch.answered(max(1, round(share * batch.limit)), seconds)
        assert FEWEST <= batch.limit <= MOST
        assert batch.limit <= 2 * size
        if batch.limit != FEWEST:
            assert batch.limit >= size // 2
            size = batch.limit


# Succession


def test_the_first_call_of_a_reign_waits_for_a_window() -> None:
    """Another daemon may have published until now; what it published is throttled too."""
    succession = Succession(0.2)
    assert succession.first_call_at(1, 10.0) == 10.2
    assert succession.first_call_at(1, 10.1) == 10.2
    assert succession.first_call_at(1, 99.0) == 10.2
    assert succession.first_call_at(2, 100.0) == 100.2


def test_where_nobody_else_published_the_first_call_waits_for_nothing() -> None:
    """The reign stays 0 in a Redis that knows no publisher, also in later terms."""
    succession = Succession(0.2)
    assert succession.first_call_at(0, 10.0) == -inf
    assert succession.first_call_at(0, 20.0) == -inf


# Seq


@pytest.mark.parametrize(
    ("known", "count", "unix_us", "first", "highest"),
    [
        (0, 1, 1_000, 1_000, 1_000),  # nothing is known: the clock
        (0, 3, 1_000, 1_000, 1_002),
        (999, 1, 1_000, 1_000, 1_000),
        (1_000, 1, 1_000, 1_001, 1_001),  # twice in one microsecond
        (5_000, 3, 1_000, 5_001, 5_003),  # a clock that went back, or a predecessor's that is ahead
    ],
)
def test_seq_is_the_clock_unless_that_is_too_low(
    known: int, count: int, unix_us: int, first: int, highest: int
) -> None:
    """The first of ``count`` is above what is known, and microseconds since 1970 at least."""
    seq = SeqCounter()
    seq.raise_to(known)
    assert seq.next(count, unix_us) == first
    assert seq.highest == highest


def test_what_is_known_never_lowers_it() -> None:
    """A late answer of Redis tells a seq that we are beyond."""
    seq = SeqCounter()
    seq.raise_to(5_000)
    seq.raise_to(4_000)
    assert seq.highest == 5_000


@pytest.mark.parametrize(
    ("stored", "before", "told", "lost"),
    [
        (0, 0, None, False),  # nothing was stored, nothing is known
        (0, 0, 7_000, False),  # another daemon's
        (5_000, 5_000, 5_000, False),
        (5_000, 4_000, 4_000, False),  # a batch was stored while the answer was under way
        (5_000, 5_000, 4_999, True),
        (5_000, 5_000, None, True),
    ],
)
def test_a_redis_that_knows_less_than_it_stored_has_lost_data(
    stored: int, before: int, told: int | None, lost: bool
) -> None:
    """What it had stored when it was asked counts. A loss is told once, and lowers no seq."""
    seq = SeqCounter()
    seq.raise_to(stored)
    seq.stored_up_to(stored)
    assert seq.told(before, told) is lost
    assert seq.highest == max(stored, told or 0)
    assert not (lost and seq.told(seq.stored, told))


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(1, 4_000), st.integers(0, 2**53 - 1_000_000)),
        max_size=50,
    )
)
def test_seqs_rise_strictly_whatever_the_clock_does(steps: list[tuple[bool, int, int]]) -> None:
    """None is given twice, none is below what another daemon published, none reaches 2^53."""
    seq, highest = SeqCounter(), 0
    for learned, count, number in steps:
        if learned:
            seq.raise_to(number)
            highest = max(highest, number)
        else:
            first = seq.next(count, number)
            assert first > highest
            assert first >= number
            highest = first + count - 1
        assert seq.highest == highest < 2**53
