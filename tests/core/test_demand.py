"""What is desired: the union of all sources, and the entries that name nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand, DemandReader, Subscribers, steps
from spotd.symbols import INVALID, WILDCARD_NOT_ALLOWED


def read(
    entries: list[bytes], leases: list[bytes] | None = None, *, allow_wildcard: bool = False
) -> Demand:
    """The demand of one set and its leases."""
    reader = DemandReader(allow_wildcard=allow_wildcard)
    reader.add(entries)
    reader.add_leases(leases or [])
    return reader.result()


def test_nothing_desired_is_an_empty_demand() -> None:
    """No entries, no symbols, nothing refused."""
    assert read([]) == Demand()


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
    assert reader.result() == read(entries)


_entries = st.frozensets(
    st.sampled_from([b"SPY", b" spy", b"QQQ", b"q-q", b"*", b"x" * 70, b"x" * 71])
)


@given(st.lists(st.tuples(_entries, _entries), min_size=1), st.booleans())
def test_what_came_and_left_gives_the_same_demand_as_reading_it_anew(
    looks: list[tuple[frozenset[bytes], frozenset[bytes]]], allow_wildcard: bool
) -> None:
    """Whatever else meant the same symbol, or was written the same, is still there."""
    reader = DemandReader(allow_wildcard=allow_wildcard)
    set_before, leases_before = frozenset[bytes](), frozenset[bytes]()
    for entries, leases in looks:
        reader.remove(set_before - entries)
        reader.add(entries - set_before)
        reader.remove_leases(leases_before - leases)
        reader.add_leases(leases - leases_before)
        set_before, leases_before = entries, leases
        found = reader.result()
        assert found == read(list(entries), list(leases), allow_wildcard=allow_wildcard)
        assert reader.result().refused is found.refused, "what did not change is the same object"


_symbols = st.frozensets(st.sampled_from([*"ABCDEFGHIJ", "*"]))


@given(_symbols, _symbols, st.integers(1, 12), _symbols)
def test_a_large_change_goes_in_steps(
    before: frozenset[str], after: frozenset[str], size: int, first: frozenset[str]
) -> None:
    """None comes or leaves that need not, none twice, and nobody finds it empty on the way."""
    now = before
    way = list(steps(before, after, size, first=first))
    for step in way:
        assert len(step - now) <= size
        assert len(now - step) <= size
        assert step != now
        assert before & after <= step <= before | after
        assert (step - now).isdisjoint(before)
        assert (now - step).isdisjoint(after)
        assert step or not after
        now = step
    assert now == after
    assert len(way) <= max(len(after - before), len(before - after)) // size + 2


def test_symbols_come_in_the_order_in_which_they_get_room() -> None:
    """So a limit cuts off the same ones as it does when all come at once."""
    way = list(steps(frozenset("Z"), frozenset("DCBA"), 2))
    assert way == [frozenset("AB"), frozenset("ABCD")]


def test_who_is_let_in_front_comes_with_the_first_steps() -> None:
    """Sorted among themselves, and then the others; who does not come at all changes nothing."""
    way = list(steps(frozenset("Z"), frozenset("ABCDZ"), 2, first=frozenset("DCQ")))
    assert way == [frozenset("CDZ"), frozenset("ABCDZ")]


def test_the_whole_market_leaves_last() -> None:
    """Until what is named is there, it is covered; what it brought meanwhile keeps its price."""
    way = list(steps(frozenset("*X"), frozenset("ABC"), 2))
    assert way == [frozenset("*AB"), frozenset("*ABC"), frozenset("ABC")]


def test_a_subscriber_is_demand_for_ten_seconds_after_it_was_found_gone() -> None:
    """It left at some time since the look before: ten seconds from then are not over earlier."""
    subscribers = Subscribers(linger_s=10.0)
    assert subscribers.seen([b"SPY", b"QQQ"], 100.0) == {b"SPY", b"QQQ"}
    assert subscribers.seen([b"QQQ"], 105.0) == {b"SPY", b"QQQ"}
    assert subscribers.seen([], 114.9) == {b"SPY", b"QQQ"}
    assert subscribers.seen([], 115.0) == {b"QQQ"}
    assert subscribers.seen([], 124.8) == {b"QQQ"}
    assert subscribers.seen([], 125.0) == set()


def test_a_subscriber_that_returns_in_time_never_left() -> None:
    """And its next departure has ten seconds of its own."""
    subscribers = Subscribers(linger_s=10.0)
    subscribers.seen([b"SPY"], 100.0)
    subscribers.seen([], 101.0)
    assert subscribers.seen([b"SPY"], 110.0) == {b"SPY"}
    assert subscribers.seen([], 120.0) == {b"SPY"}
    assert subscribers.seen([], 129.9) == {b"SPY"}
    assert subscribers.seen([], 130.0) == set()
