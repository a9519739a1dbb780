"""For any demand, on any plan: few requests, and everything that can be met is met."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from spotd.core.refusals import RETRY_REFUSED_S
from spotd.symbols import WILDCARD
from tests.core.alpaca_model import INVALID_SYNTAX, NO_SUCH_CHANNEL, OVER_LIMIT, Plan, Talk

NAMES = tuple(chr(65 + n // 26) + chr(65 + n % 26) for n in range(60))


class Want(NamedTuple):
    """The demand becomes these."""

    symbols: frozenset[str]


class ChangeOfMind(NamedTuple):
    """The demand becomes the first, and the second while a request is under way."""

    first: frozenset[str]
    after: int
    second: frozenset[str]


class Cut(NamedTuple):
    """The connection is lost after that many more requests."""

    after: int


class NewPlan(NamedTuple):
    """The account gets another limit; the connection is made anew."""

    cap: int | None


class Hour(NamedTuple):
    """After this time refused symbols are tried again."""


class Delist(NamedTuple):
    """An hour later these symbols, and no others, are left out of acknowledgements."""

    symbols: frozenset[str]


class Renew(NamedTuple):
    """These symbols seem to be lost."""

    symbols: frozenset[str]


Step = Want | ChangeOfMind | Cut | NewPlan | Hour | Delist | Renew

_some = st.sampled_from(NAMES)
_caps = st.one_of(st.none(), st.integers(0, 40))
_demands = st.one_of(
    st.frozensets(_some, max_size=8),
    st.frozensets(_some, min_size=10, max_size=60),
    st.just(frozenset(NAMES)),
)
_steps: SearchStrategy[Step] = st.one_of(
    st.builds(Want, _demands),
    st.builds(ChangeOfMind, _demands, st.integers(0, 12), _demands),
    st.builds(Cut, st.integers(0, 12)),
    st.builds(NewPlan, _caps),
    st.just(Hour()),
    st.builds(Delist, st.frozensets(_some, max_size=4)),
    st.builds(Renew, st.frozensets(_some, max_size=20)),
)
_plans = st.builds(
    Plan,
    cap=_caps,
    counts=st.sampled_from(("symbols", "entries")),
    trades=st.booleans(),
    statuses=st.sampled_from(("free", "counted", "refused")),
    ill_formed=st.frozensets(_some, max_size=4),
    unlisted=st.frozensets(_some, max_size=4),
    star=st.sampled_from((None, INVALID_SYNTAX, OVER_LIMIT, NO_SUCH_CHANNEL)),
    counts_first=st.booleans(),
)
_talks = st.builds(
    Talk,
    _plans,
    trades=st.booleans(),
    max_symbols=st.one_of(st.none(), st.integers(1, 40)),
    batch=st.sampled_from((1, 2, 7, 500)),
)


def follow(talk: Talk, steps: Iterable[Step]) -> None:
    """Take the steps, talk after each until nothing is left to ask, and check the result."""
    for step in steps:
        match step:
            case Want(symbols):
                talk.desire(symbols)
            case ChangeOfMind(first, after, second):
                talk.desire(first)
                talk.talk(at_most=after)
                if request := talk.subs.next_request(talk.now):
                    talk.exchange(request, meanwhile=second)
            case Cut(after):
                live = talk.subs.active
                talk.reconnect()
                talk.talk(at_most=after)
                talk.subs.disconnected()
                talk.check_state()
                talk.reconnect()
                talk.talk()
                assert talk.subs.active == live, "nobody loses its place to another"
            case NewPlan(cap):
                talk.plan.cap = cap
                talk.reconnect()
            case Hour():
                talk.now += RETRY_REFUSED_S
            case Delist(symbols):
                talk.now += RETRY_REFUSED_S
                talk.plan.unlisted = symbols
                talk.reconnect()
            case Renew(symbols):
                live = talk.subs.active
                talk.renew(symbols)
                assert talk.subs.active == live, "nobody takes the room of what is renewed"
        talk.talk()
        talk.settled()


@given(_talks, st.lists(_steps, min_size=2, max_size=12))
def test_any_demand_on_any_plan_is_met_as_far_as_it_can_be(
    talk: Talk, steps: Sequence[Step]
) -> None:
    """In few requests all room is used, only culprits are refused, and no live symbol is dropped.

    After each event the state is the same object exactly if nothing in it changed.
    """
    follow(talk, steps)


_demands_with_star = st.builds(
    lambda symbols, star: symbols | star,
    _demands,
    st.sampled_from((frozenset(), frozenset({WILDCARD}))),
)


@given(
    _talks,
    st.lists(
        st.one_of(
            st.builds(Want, _demands_with_star),
            st.builds(ChangeOfMind, _demands_with_star, st.integers(0, 12), _demands_with_star),
            st.builds(Cut, st.integers(0, 12)),
            st.just(Hour()),
        ),
        min_size=2,
        max_size=12,
    ),
)
def test_the_wildcard_comes_and_goes(talk: Talk, steps: Sequence[Step]) -> None:
    """Whether Alpaca grants or refuses it, the same holds for every other symbol."""
    follow(talk, steps)


@pytest.mark.parametrize(
    "plan",
    [
        Plan(),
        Plan(cap=30, counts="entries"),
        Plan(cap=30, counts="entries", counts_first=True, ill_formed=frozenset({"AAAB", "AAAC"})),
        Plan(ill_formed=frozenset({"AAAB", "AACZ"}), unlisted=frozenset({"AAAA"})),
        Plan(cap=777, statuses="counted", ill_formed=frozenset({"AAAB"})),
    ],
)
def test_a_large_demand_takes_few_requests(plan: Plan) -> None:
    """Requests carry 500 symbols and searches halve: there is no request for each symbol."""
    desired = 3_000
    letters = [chr(65 + n) for n in range(26)]
    names = [f"A{a}{b}{c}" for a in letters for b in letters for c in letters][:desired]
    talk = Talk(plan)
    talk.want(*names)
    talk.settled()
    assert len(talk.said) < 2 * desired / 500 + 60
