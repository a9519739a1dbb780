"""What is desired: the union of all sources, and the entries that name nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand
from spotd.core.demand_reader import DemandReader, Subscribers
from spotd.symbols import INVALID, WILDCARD_NOT_ALLOWED


def read(
    entries: list[bytes],
    leases: list[bytes] | None = None,
    channels: list[bytes] | None = None,
    *,
    allow_wildcard: bool = False,
    max_symbols: int | None = None,
) -> Demand:
    """Return the demand of a set, of leases and of channels."""
    reader = DemandReader(allow_wildcard=allow_wildcard, max_symbols=max_symbols)
    reader.add(entries)
    reader.add_leases(leases or [])
    reader.add_channels(channels or [])
    return reader.result(1)


def test_nothing_desired_is_an_empty_demand() -> None:
    """No entries, no symbols, nothing refused."""
    assert read([]) == Demand(term=1)


def test_the_demand_is_the_union_of_the_set_and_the_leases() -> None:
    """A symbol wanted twice, in whatever writing, is wanted once."""
    demand = read([b"SPY", b"qqq "], [b"SPY@web-1", b" spy@web-2", b"IWM@"])
    assert demand.symbols == {"SPY", "QQQ", "IWM"}
    assert demand.refused_count == 0


def test_a_lease_may_have_any_owner() -> None:
    """The owner begins at the first `@`, may hold more of them, and may be missing."""
    assert read([], [b"SPY@a@b", b"QQQ", b"IWM@\xff"]).symbols == {"SPY", "QQQ", "IWM"}


def test_a_malformed_entry_disturbs_no_other() -> None:
    """It is refused under the entry as it was written, its owner included."""
    demand = read([b"SPY", b"BRK-B"], [b"UI2T@web-1", b"*@web-1"])
    assert demand.symbols == {"SPY"}
    assert demand.refused == {
        "BRK-B": INVALID,
        "UI2T@web-1": INVALID,
        "*@web-1": WILDCARD_NOT_ALLOWED,
    }
    assert demand.refused_count == 3


def test_the_wildcard_is_a_symbol_where_it_is_allowed() -> None:
    """`*` stands beside the others; what it means to them is decided elsewhere."""
    assert read([b"*", b"SPY"], allow_wildcard=True).symbols == {"*", "SPY"}


def test_the_whole_market_is_refused_where_the_number_of_symbols_is_set() -> None:
    """SPOTD_MAX_SYMBOLS is never exceeded, and every other symbol is desired all the same."""
    demand = read([b"*", b"SPY"], [b"*@a"], allow_wildcard=True, max_symbols=30)
    detail = "the whole market is asked for, but SPOTD_MAX_SYMBOLS=30 is the limit"
    assert demand.symbols == {"SPY"}
    assert demand.refused == {"*": ("symbol_limit", detail), "*@a": ("symbol_limit", detail)}
    assert read([b"*"], max_symbols=30).refused == {"*": WILDCARD_NOT_ALLOWED}


@pytest.mark.parametrize(
    ("name", "detail"),
    [
        (b"ibm", "use upper case"),
        (b"Brk.b", "use upper case"),
        (b" IBM", INVALID.detail),
        (b"ibm ", INVALID.detail),
        (b"q-q", INVALID.detail),
    ],
)
def test_a_channel_that_stays_silent_is_refused(name: bytes, detail: str) -> None:
    """Prices are published on the channel of the symbol alone, so its subscriber is told."""
    demand = read([b" ibm"], [], [name, b"SPY"])
    assert demand.symbols == {"IBM", "SPY"}
    assert demand.refused == {name.decode(): ("invalid_symbol", detail)}


def test_the_demand_knows_its_sources() -> None:
    """The set comes before leases where room is short, and what neither names comes last."""
    demand = read([b"SPY", b"qqq"], [b"QQQ@a", b"IWM@a", b"IWM@b"], [b"IWM", b"DIA"])
    assert [set(source) for source in demand.sources] == [{"SPY", "QQQ"}, {"QQQ", "IWM"}]
    assert demand.symbols == {"SPY", "QQQ", "IWM", "DIA"}


def test_a_thousand_refused_entries_are_shown_and_all_are_counted() -> None:
    """Which ones is no accident: the first in sorted order."""
    entries = [b"!%05d" % n for n in range(MAX_REFUSED_SHOWN + 500)]
    demand = read(entries[::-1])
    assert list(demand.refused) == [entry.decode() for entry in entries[:MAX_REFUSED_SHOWN]]
    assert demand.refused_count == MAX_REFUSED_SHOWN + 500


@given(st.lists(st.sampled_from([b"SPY", b"qqq", b"BRK-B", b"", b"*"])), st.integers(1, 5))
def test_the_size_of_the_slices_does_not_matter(entries: list[bytes], size: int) -> None:
    """A demand read in slices is the demand."""
    reader = DemandReader(allow_wildcard=False)
    for start in range(0, len(entries), size):
        reader.add(entries[start : start + size])
    assert reader.result(1) == read(entries)


_entries = st.frozensets(
    st.sampled_from([b"SPY", b" spy", b"QQQ", b"q-q", b"*", b"x" * 70, b"x" * 71])
)


@given(st.lists(st.tuples(_entries, _entries, _entries), min_size=1), st.booleans())
def test_what_came_and_left_gives_the_same_demand_as_reading_it_anew(
    reads: list[tuple[frozenset[bytes], ...]], allow_wildcard: bool
) -> None:
    """An entry that means the same symbol, or is written the same, outlives another's removal."""
    reader = DemandReader(allow_wildcard=allow_wildcard)
    set_before, leases_before, channels_before = (frozenset[bytes](),) * 3
    for entries, leases, channels in reads:
        reader.remove(set_before - entries)
        reader.add(entries - set_before)
        reader.remove_leases(leases_before - leases)
        reader.add_leases(leases - leases_before)
        reader.remove_channels(channels_before - channels)
        reader.add_channels(channels - channels_before)
        set_before, leases_before, channels_before = entries, leases, channels
        found = reader.result(1)
        assert found == read(
            list(entries), list(leases), list(channels), allow_wildcard=allow_wildcard
        )
        again = reader.result(2)
        assert again.term == 2
        assert again.refused is found.refused
        assert again.symbols is found.symbols
        assert again.of_set is found.of_set
        assert again.of_leases is found.of_leases


def test_a_subscriber_is_demand_for_ten_seconds_after_it_was_found_gone() -> None:
    """Ten seconds count from the check that finds no subscriber, so they are never too short."""
    subscribers = Subscribers(linger_s=10.0)
    assert subscribers.seen([b"SPY", b"QQQ"], 100.0) == {b"SPY", b"QQQ"}
    assert subscribers.seen([b"QQQ"], 105.0) == {b"SPY", b"QQQ"}
    assert subscribers.seen([], 114.9) == {b"SPY", b"QQQ"}
    assert subscribers.seen([], 115.0) == {b"QQQ"}
    assert subscribers.seen([], 124.8) == {b"QQQ"}
    assert subscribers.seen([], 125.0) == set()


def test_a_subscriber_that_returns_in_time_never_left() -> None:
    """A subscriber that returns in time has ten new seconds when it leaves again."""
    subscribers = Subscribers(linger_s=10.0)
    subscribers.seen([b"SPY"], 100.0)
    subscribers.seen([], 101.0)
    assert subscribers.seen([b"SPY"], 110.0) == {b"SPY"}
    assert subscribers.seen([], 120.0) == {b"SPY"}
    assert subscribers.seen([], 129.9) == {b"SPY"}
    assert subscribers.seen([], 130.0) == set()
