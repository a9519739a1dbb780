"""Which symbols Alpaca refused, and for how long."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.refusals import RETRY_REFUSED_S, Refusals


def test_a_refused_symbol_has_a_reason() -> None:
    """The reason is for programs, the detail for people."""
    refusals = Refusals()
    refusals.refuse(["A", "B"], "invalid syntax (400)", 0.0)
    assert refusals.by_symbol == {
        "A": ("refused_by_alpaca", "invalid syntax (400)"),
        "B": ("refused_by_alpaca", "invalid syntax (400)"),
    }


def test_a_change_leaves_the_old_mapping_as_it_is() -> None:
    """Whoever holds it may compare it with the new one."""
    refusals = Refusals()
    seen = [refusals.by_symbol]
    refusals.refuse(["A"], "?", 0.0)
    seen.append(refusals.by_symbol)
    refusals.refuse(["B"], "?", 1.0)
    seen.append(refusals.by_symbol)
    refusals.forget(["A"])
    seen.append(refusals.by_symbol)
    refusals.forgive(1.0 + RETRY_REFUSED_S)
    seen.append(refusals.by_symbol)
    assert [set(mapping) for mapping in seen] == [set(), {"A"}, {"A", "B"}, {"B"}, set()]


def test_without_a_change_the_mapping_is_the_same_object() -> None:
    """The mapping stays the same object where nothing is refused, forgotten or forgiven."""
    refusals = Refusals()
    refusals.refuse(["A"], "?", 0.0)
    mapping = refusals.by_symbol
    refusals.refuse([], "?", 0.0)
    refusals.forget(["B"])
    assert not refusals.forgive(1.0)
    refusals.disconnected()
    assert refusals.by_symbol is mapping


@pytest.mark.parametrize(
    ("now", "left"),
    [
        (RETRY_REFUSED_S - 1, {"A", "B", "C"}),
        (RETRY_REFUSED_S, {"B", "C"}),
        (RETRY_REFUSED_S + 10, {"C"}),
        (RETRY_REFUSED_S + 20, set()),
    ],
)
def test_a_refusal_lasts_for_an_hour(now: float, left: set[str]) -> None:
    """Each symbol has an hour of its own."""
    refusals = Refusals()
    for refused_at, symbol in ((0.0, "A"), (10.0, "B"), (20.0, "C")):
        refusals.refuse([symbol], "?", refused_at)
    assert refusals.forgive(now) == (len(left) < 3)
    assert refusals.by_symbol.keys() == left


def test_a_symbol_that_is_refused_again_has_a_new_hour() -> None:
    """The time of its old refusal is forgotten with it."""
    refusals = Refusals()
    refusals.refuse(["A", "B"], "?", 0.0)
    refusals.forget(["A"])
    refusals.refuse(["A"], "?", 10.0)
    assert refusals.forgive(RETRY_REFUSED_S)
    assert refusals.by_symbol.keys() == {"A"}


def test_a_request_is_halved_front_first() -> None:
    """The halves of a half are asked for before the other half."""
    refusals = Refusals()
    assert refusals.next_suspects() is None
    refusals.suspect(("A", "B", "C", "D", "E"))
    assert refusals.next_suspects() == ("A", "B")
    refusals.suspect(("A", "B"))
    assert [refusals.next_suspects() for _ in range(4)] == [("A",), ("B",), ("C", "D", "E"), None]


def test_a_lost_connection_ends_every_suspicion() -> None:
    """All symbols are asked for anew on the next one."""
    refusals = Refusals()
    refusals.suspect(("A", "B"))
    refusals.disconnected()
    assert refusals.next_suspects() is None


def test_a_halved_request_becomes_a_sentence_for_the_log() -> None:
    """The sentence says how many symbols are suspected."""
    sentence = "2 symbols refused together (400): looking for the ill-formed one"
    assert Refusals().suspect(("A", "B")) == sentence


@given(st.integers(1, 500), st.data())
def test_halving_finds_every_ill_formed_symbol(count: int, data: st.DataObject) -> None:
    """Each costs at most two requests for each halving, and no well-formed one is refused."""
    symbols = tuple(f"S{n:03}" for n in range(count))
    ill_formed = data.draw(st.frozensets(st.sampled_from(symbols), max_size=5))
    refusals = Refusals()
    active: set[str] = set()
    requests = 0
    request: tuple[str, ...] | None = symbols
    while request is not None:
        requests += 1
        if ill_formed.isdisjoint(request):
            active.update(request)
        elif len(request) == 1:
            refusals.refuse(request, "?", 0.0)
        else:
            refusals.suspect(request)
        request = refusals.next_suspects()
    assert refusals.by_symbol.keys() == ill_formed
    assert active == set(symbols) - ill_formed
    assert requests <= 1 + 2 * len(ill_formed) * count.bit_length()
