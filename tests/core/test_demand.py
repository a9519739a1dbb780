"""What follows from a change of the demand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.demand import (
    MAX_NEWCOMERS,
    Demand,
    DemandStep,
    demands_between,
    keeps_room,
    step_between,
    to_fetch,
)
from spotd.models import SymbolState, SymbolStateName, utc
from spotd.symbols import WILDCARD


def demand(*symbols: str) -> Demand:
    """Return a demand of these symbols."""
    return Demand(frozenset(symbols))


def step(
    before: Demand,
    after: Demand,
    *,
    active: str = "",
    priced: tuple[str, ...] = (),
    limited: bool = False,
) -> DemandStep:
    """Return what follows from a change; each letter of ``active`` is a symbol."""
    return step_between(
        before, after, active=frozenset(active), priced=set(priced), limited=limited
    )


NONE = frozenset[str]()


@pytest.mark.parametrize(
    ("before", "after", "active", "expected"),
    [
        ("", "", "", DemandStep(NONE, NONE, NONE, NONE, NONE)),
        ("", "A", "", DemandStep(frozenset("A"), NONE, frozenset("A"), NONE, NONE)),
        ("A", "", "A", DemandStep(NONE, frozenset("A"), NONE, frozenset("A"), NONE)),
        ("AB", "BC", "AB", DemandStep(*map(frozenset, ("C", "A", "C", "A", "")))),
        # It left and came back before it was unsubscribed: active, but its price is dropped.
        ("", "A", "A", DemandStep(frozenset("A"), NONE, frozenset("A"), NONE, frozenset("A"))),
        # The whole market covers what leaves beside it, and `*` itself has no price.
        ("A*", "*", "*", DemandStep(NONE, frozenset("A"), NONE, NONE, NONE)),
        ("", "*", "*", DemandStep(frozenset("*"), NONE, frozenset("*"), NONE, NONE)),
        # A part of the whole market is not acknowledged by its own name.
        ("*", "*A", "*", DemandStep(frozenset("A"), NONE, frozenset("A"), NONE, frozenset("A"))),
    ],
)
def test_what_follows_from_a_change(
    before: str, after: str, active: str, expected: DemandStep
) -> None:
    """A change decides what is subscribed, unsubscribed, dropped and fetched."""
    assert step(demand(*before), demand(*after), active=active) == expected


def test_what_was_live_before_is_passed_on() -> None:
    """It is known once, with the first demand after another daemon led."""
    live = frozenset("A")
    found = step_between(
        demand(), demand(), active=NONE, priced=set(), limited=False, were_live=live
    )
    assert found.were_live is live
    assert step(demand(), demand()).were_live is None


def test_what_the_whole_market_brought_leaves_with_it() -> None:
    """Only symbols that are desired by name keep their prices."""
    found = step(demand("*", "A", "B"), demand("A"), priced=("A", "B", "X", "Y"))
    assert found.drop == {"B", "X", "Y"}
    assert found.unsubscribe == {"*", "B"}


def test_a_small_change_goes_in_front() -> None:
    """A small change goes in front; a whole market does not, and nothing where a limit is known."""
    some = demand(*(f"S{n}" for n in range(MAX_NEWCOMERS)))
    assert step(demand(), some).first == some.symbols
    assert step(demand(), demand("X", *some.symbols)).first == NONE
    assert step(demand(), some, limited=True).first == NONE


@given(
    st.frozensets(st.sampled_from("ABC*")),
    st.frozensets(st.sampled_from("ABC*")),
    st.frozensets(st.sampled_from("ABCX")),
)
def test_what_is_kept_is_what_is_wanted(
    before: frozenset[str], after: frozenset[str], priced: frozenset[str]
) -> None:
    """No wanted price is dropped, and of what was priced while it was wanted nothing else stays."""
    old, new = Demand(before), Demand(after)
    held = {symbol for symbol in priced if old.wants(symbol)}
    found = step_between(old, new, active=NONE, priced=held, limited=False)
    assert not [symbol for symbol in found.drop if new.wants(symbol)]
    assert all(new.wants(symbol) for symbol in held - found.drop)
    assert WILDCARD not in found.drop


@pytest.mark.parametrize(
    ("before", "after", "active", "expected"),
    [
        ("AB", "AB", "", ["AB"]),
        ("", "ABCD", "", ["ABCD"]),
        ("AB", "", "AB", [""]),
        ("ABCX", "X", "ABCX", [2, "X"]),
        ("ABCD", "", "ABCD", [2, ""]),
        ("ABCDE", "", "ABCDE", [3, 1, ""]),
        # What comes does not wait for what leaves.
        ("ABC", "XYZ", "ABC", [4, "XYZ"]),
        # What waits for room leaves before the others make room.
        ("ABCD", "", "AC", ["AC", ""]),
        ("ABC", "", "AB", [1, ""]),
    ],
)
def test_a_large_removal_has_several_steps(
    before: str, after: str, active: str, expected: list[str | int]
) -> None:
    """At most two symbols leave in each of these steps; a number is that of the symbols."""
    found = list(
        demands_between(demand(*before), demand(*after), active=frozenset(active), at_most=2)
    )
    for one, want in zip(found, expected, strict=True):
        assert want in (len(one.symbols), "".join(sorted(one.symbols)))


_symbols = st.frozensets(st.sampled_from("ABCDEF*"))


@given(_symbols, _symbols, _symbols, st.integers(1, 4))
def test_several_steps_lead_where_one_does(
    before: frozenset[str], after: frozenset[str], active: frozenset[str], at_most: int
) -> None:
    """New symbols come first, few leave in each step, and the same prices are kept in the end."""
    old, new = Demand(before, term=1), Demand(after, refused_count=1, term=2, unreadable="why")
    held = {symbol for symbol in "ABCDEFG" if old.wants(symbol)}
    whole = held - step_between(old, new, active=active, priced=held, limited=False).drop
    found = list(demands_between(old, new, active=active, at_most=at_most))
    assert found[-1] == new
    for number, one in enumerate(found):
        assert replace(one, symbols=after) == new
        taken = step_between(old, one, active=active, priced=held, limited=False)
        assert taken.subscribe == (after - before if number == 0 else NONE)
        assert len(taken.unsubscribe) <= at_most
        assert taken.unsubscribe.isdisjoint(active) or one.symbols - active <= after
        old, held = one, held - taken.drop
    assert held == whole


@given(st.frozensets(st.sampled_from("AB*")), st.frozensets(st.sampled_from(["A", "B", "C", "?"])))
def test_what_is_unwanted_is_what_nobody_wants(
    desired: frozenset[str], symbols: frozenset[str]
) -> None:
    """Asked of a whole set it is the same as asked one by one."""
    some = Demand(desired)
    assert some.unwanted(symbols) == {symbol for symbol in symbols if not some.wants(symbol)}


@pytest.mark.parametrize(
    ("acknowledged", "desired", "fetch"),
    [("A", "AB", "A"), ("AX", "AB", "A"), ("*", "*AB", "AB"), ("", "AB", "")],
)
def test_an_acknowledged_symbol_needs_a_snapshot(
    acknowledged: str, desired: str, fetch: str
) -> None:
    """An acknowledged symbol needs a snapshot, unless it left the demand meanwhile."""
    assert to_fetch(frozenset(acknowledged), demand(*desired)) == frozenset(fetch)


@pytest.mark.parametrize(
    ("state", "keeps"),
    [("live", True), ("stale", True), ("halted", True), ("pending", False), ("refused", False)],
)
def test_a_symbol_that_was_acknowledged_keeps_its_room(state: SymbolStateName, keeps: bool) -> None:
    """It had room for the daemon that wrote its state."""
    written = SymbolState(symbol="SPY", state=state, reason=None, since=utc(0.0))
    assert keeps_room(written) == keeps
