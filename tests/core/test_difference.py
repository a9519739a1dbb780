"""Which symbols to subscribe and which to unsubscribe, in which order."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.difference import Difference, SortedSymbols
from spotd.core.refusals import Refusals
from spotd.symbols import WILDCARD

ALL = 1_000
NAMES = "ABCDEFGHIJ"


@dataclass
class Pair:
    """A difference with its refusals."""

    refusals: Refusals = field(default_factory=Refusals)

    def __post_init__(self) -> None:
        self.difference = Difference(self.refusals)

    def want(self, desired: str, first: str = "", of_set: str = "", of_leases: str = "") -> None:
        """Other symbols are desired."""
        sources = frozenset(of_set), frozenset(of_leases)
        self.refusals.forget(self.difference.want(frozenset(desired), frozenset(first), sources))

    def acknowledge(self, listed: str) -> None:
        """Alpaca acknowledges this list."""
        self.refusals.forget(self.difference.acknowledged(frozenset(listed)))

    def refuse(self, symbols: str) -> None:
        """Alpaca refuses those of the symbols that are asked for."""
        waiting = frozenset(self.difference.waiting(ALL)) & frozenset(symbols)
        self.refusals.refuse(waiting, "?", 0.0)
        self.difference.refused(waiting)

    @property
    def waiting(self) -> str:
        """The symbols to subscribe, in order."""
        return "".join(self.difference.waiting(ALL))

    @property
    def surplus(self) -> str:
        """The symbols to unsubscribe, in order."""
        return "".join(self.difference.surplus(ALL))


@pytest.mark.parametrize(
    ("desired", "listed", "waiting", "surplus", "whole_market"),
    [
        ("", "", "", "", "off"),
        ("BA", "", "AB", "", "off"),
        ("ABC", "BD", "AC", "D", "off"),
        ("AB*", "", "*", "", "waits"),
        ("AB*", "AC", "*", "C", "waits"),
        ("AB*", "*", "", "", "granted"),
        ("AB*", "*AC", "", "AC", "granted"),
        ("AB", "*A", "B", "*", "granted"),
    ],
)
def test_desired_and_active_are_compared(
    desired: str, listed: str, waiting: str, surplus: str, whole_market: str
) -> None:
    """The whole market takes the place of all symbols, once it is granted."""
    pair = Pair()
    pair.want(desired)
    pair.acknowledge(listed)
    assert (pair.waiting, pair.surplus) == (waiting, surplus)
    assert pair.difference.whole_market == whole_market


def test_a_refused_symbol_does_not_wait() -> None:
    """A refused whole market leaves room for all others."""
    pair = Pair()
    pair.want("AB*")
    pair.refuse(WILDCARD)
    assert pair.difference.whole_market == "off"
    assert pair.waiting == "AB"
    pair.refuse("A")
    assert pair.waiting == "B"


def test_room_is_given_by_rank_and_arrival() -> None:
    """Symbols of the last connection come first, then those let in front, then the first come."""
    pair = Pair()
    pair.want("KX")
    pair.acknowledge("KX")
    pair.difference.disconnected(room=None)
    pair.want("BKLMX")
    assert pair.waiting == "KXBLM"
    pair.want("ABKLMNXYZ", first="YZ")
    assert pair.waiting == "KXYZBLMAN"
    assert pair.difference.waiting(3) == ("K", "X", "Y")
    assert pair.difference.waiting(0) == ()
    assert pair.difference.waiting_beyond(7) == ["A", "N"]
    assert pair.difference.waiting_beyond(9) == []


def test_room_goes_to_one_source_after_the_other() -> None:
    """The set comes before leases, leases before the others, and the first come first in each."""
    pair = Pair()
    pair.want("EFZ", of_set="Z", of_leases="F")
    assert pair.waiting == "ZFE"
    pair.want("ABCDEFZ", of_set="BZ", of_leases="BDF")
    assert pair.waiting == "ZBFDEAC"


@pytest.mark.parametrize(
    ("of_set", "of_leases", "waiting"),
    [
        ("", "B", "BAC"),
        ("B", "B", "BAC"),
        ("C", "B", "CBA"),
        ("ABC", "B", "ABC"),
        ("", "", "ABC"),
        ("X", "BCX", "BCA"),
    ],
)
def test_a_symbol_that_waits_follows_its_source(of_set: str, of_leases: str, waiting: str) -> None:
    """It keeps its time of arrival when another source names it."""
    pair = Pair()
    pair.want("ABC", of_leases="B")
    assert pair.waiting == "BAC"
    pair.want("ABC", of_set=of_set, of_leases=of_leases)
    assert pair.waiting == waiting


def test_what_another_daemon_had_live_comes_first() -> None:
    """Of what is still desired, it had room, and it is served: its price is old, not missing."""
    pair = Pair()
    pair.want("ABCD", of_set="AD")
    pair.difference.take_over(frozenset("CDX"))
    assert pair.waiting == "DCAB"
    assert pair.difference.served == {"C", "D"}
    pair.want("ABCDX", of_set="AD")
    assert pair.waiting == "DCABX"


@pytest.mark.parametrize(
    ("room", "waiting"), [(None, "MNOA"), (2, "MNOA"), (1, "MNAO"), (0, "MANO")]
)
def test_a_short_connection_leaves_the_first_rank_as_far_as_there_was_room(
    room: int | None, waiting: str
) -> None:
    """A short connection leaves their rank to symbols that had no room on it yet."""
    pair = Pair()
    pair.want("MNO")
    pair.acknowledge("MNO")
    pair.difference.disconnected(room=None)
    pair.want("AMNO", of_set="A")
    pair.acknowledge("M")
    pair.difference.disconnected(room)
    assert pair.waiting == waiting


def test_suspects_are_asked_for_only_while_they_wait() -> None:
    """Suspects that left or became active are not asked for."""
    pair = Pair()
    pair.want("ABC")
    pair.acknowledge("A")
    assert pair.difference.still_waiting("ABD") == ("B",)


def test_served_stays_the_same_object_until_it_changes() -> None:
    """The sets of served and of active symbols stay the same objects until they change."""
    pair = Pair()
    pair.want("ABC")
    pair.acknowledge("AB")
    served, active = pair.difference.served, pair.difference.active
    pair.acknowledge("BA")
    pair.want("ABD")
    assert pair.difference.served is served
    assert pair.difference.active is active


_sets = st.text(NAMES + WILDCARD, max_size=8)
_events = st.lists(
    st.one_of(
        st.tuples(st.just("want"), _sets, _sets, _sets, _sets),
        st.tuples(
            st.sampled_from(("acknowledge", "refuse", "disconnect", "take over", "look")), _sets
        ),
    ),
    max_size=20,
)


@given(_events)
def test_small_changes_come_to_the_same_as_a_new_comparison(
    events: list[tuple[str, ...]],
) -> None:
    """After any events, ranks and surplus hold the symbols of a comparison from the start.

    Where no newcomer was let in front, they are in the same order, too.
    """
    pair = Pair()
    difference = pair.difference
    for event, *symbols in events:
        match event:
            case "want":
                pair.want(symbols[0], symbols[1], of_set=symbols[2], of_leases=symbols[3])
            case "take over":
                difference.take_over(frozenset(symbols[0]))
            case "acknowledge":
                pair.acknowledge(*symbols)
            case "refuse":
                pair.refuse(*symbols)
            case "disconnect":
                difference.disconnected(room=2)
            case _:
                assert pair.surplus == "".join(sorted(pair.surplus))
                assert len(pair.waiting) == len(set(pair.waiting))
    kept = pair.waiting, pair.surplus
    difference.sort_anew()
    assert (sorted(kept[0]), kept[1]) == (sorted(pair.waiting), pair.surplus)
    if not any(event == "want" and symbols[1] for event, *symbols in events):
        assert kept[0] == pair.waiting
    covered = difference.desired if WILDCARD in difference.active else difference.active
    assert covered & difference.desired <= difference.served <= difference.desired


@given(st.frozensets(st.sampled_from(NAMES)), st.frozensets(st.sampled_from(NAMES)))
def test_sorted_symbols_stay_sorted(symbols: frozenset[str], others: frozenset[str]) -> None:
    """Symbols stay sorted, whatever is added and removed."""
    kept = SortedSymbols(symbols)
    kept.add(others - symbols)
    assert kept.first(ALL) == sorted(symbols | others)
    kept.remove(symbols)
    assert kept.first(ALL) == sorted(others - symbols)
    assert kept.first(2) == sorted(others - symbols)[:2]


def test_a_renewed_symbol_is_unsubscribed_and_subscribed_before_others() -> None:
    """Only what is active and desired is renewed, and nobody takes its room meanwhile."""
    pair = Pair()
    pair.want("ABX")
    pair.acknowledge("BXG")
    pair.difference.renew(frozenset("BGZ"))
    assert (pair.surplus, pair.waiting) == ("BG", "A")
    pair.acknowledge("X")
    assert (pair.surplus, pair.waiting) == ("", "BA")
    pair.acknowledge("BX")
    assert (pair.surplus, pair.waiting) == ("", "A")


@pytest.mark.parametrize("end", ["left", "came back", "reconnect"])
def test_a_renewal_may_end_before_it_begins(end: str) -> None:
    """A symbol that leaves is surplus anyway, and a new session subscribes all anew."""
    pair = Pair()
    pair.want("AB")
    pair.acknowledge("AB")
    pair.difference.renew(frozenset("A"))
    if end == "reconnect":
        pair.difference.disconnected(None)
        assert (pair.surplus, pair.waiting) == ("", "AB")
        pair.acknowledge("AB")
    else:
        assert pair.surplus == "A"
        pair.want("B")
        assert pair.surplus == "A"
        if end == "came back":
            pair.want("AB")
    assert pair.surplus == ("A" if end == "left" else "")


def test_a_part_of_the_whole_market_is_not_renewed() -> None:
    """Alpaca knows no subscription of its own for it."""
    pair = Pair()
    pair.want("A*")
    pair.acknowledge("*")
    pair.difference.renew(frozenset("A"))
    assert (pair.surplus, pair.waiting) == ("", "")
