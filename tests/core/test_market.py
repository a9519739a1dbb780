"""The rules of the market: what one quote, trade or status means."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.market import halts, is_two_sided, resumes, sets_last_sale, why_dropped
from spotd.core.messages import Trade

T0 = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
HUGE = 1.5e308


# Quotes


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [
        (1.0, 2.0, None),
        (2.0, 2.0, None),  # locked
        (3.0, 2.0, None),  # crossed
        (5e-324, 5e-324, None),
        (0.0, 2.0, "one_sided"),
        (1.0, 0.0, "one_sided"),
        (0.0, 0.0, "one_sided"),
        (-1.0, 2.0, "one_sided"),
        (1.0, -0.0, "one_sided"),
        (nan, 0.0, "one_sided"),
        (-inf, 2.0, "one_sided"),
        (nan, 2.0, "not_finite"),
        (1.0, nan, "not_finite"),
        (nan, nan, "not_finite"),
        (inf, 2.0, "not_finite"),
        (1.0, inf, "not_finite"),
        (HUGE, HUGE, "not_finite"),  # their mean would not be finite
    ],
)
def test_a_quote_is_two_sided_and_finite_or_dropped_for_a_reason(
    bid: float, ask: float, reason: str | None
) -> None:
    """Locked and crossed quotes are good; each other one has one reason."""
    assert is_two_sided(bid, ask) == (reason is None)
    if reason is not None:
        assert why_dropped(bid, ask) == reason


@given(*[st.floats()] * 2)
def test_a_two_sided_quote_has_a_real_price(bid: float, ask: float) -> None:
    """Both sides and their mean are positive and finite, and every other quote has a reason."""
    two_sided = is_two_sided(bid, ask)
    assert two_sided == (0 < bid < inf and 0 < ask < inf and bid + ask < inf)
    if not two_sided:
        assert why_dropped(bid, ask) in {"one_sided", "not_finite"}


# The last sale


def trade(price: float = 1.5, conditions: str = "@", tape: str = "B") -> Trade:
    """Return a trade that sets the last sale, except for what the test says."""
    return Trade("SPY", price, T0, tuple(conditions), tape)


NOT_LAST_SALE = {
    "A": "B C H I M N P Q R U V Z 4 7",
    "B": "B C H I M N P Q R U V Z 4 7",
    "C": "C G H I M N P Q R U V W Z 4 7",
    "O": "C G H I M N P Q R U V W Z 4 7",
}
EVERY_CONDITION = [chr(code) for code in range(0x20, 0x7F)]


@pytest.mark.parametrize("tape", ["A", "B", "C", "O", "N", ""])
def test_every_condition_on_every_tape(tape: str) -> None:
    """The contract's lists count, and no other condition; for other tapes, both lists count."""
    not_last_sale = set(NOT_LAST_SALE.get(tape, NOT_LAST_SALE["A"] + NOT_LAST_SALE["C"])) - {" "}
    excluded = {c for c in EVERY_CONDITION if not sets_last_sale(trade(conditions=c, tape=tape))}
    assert excluded == not_last_sale


@pytest.mark.parametrize(
    ("tape", "conditions", "sets"),
    [
        ("B", "", True),
        ("C", "@", True),
        ("C", "@T", True),  # extended hours
        ("A", " F", True),
        ("C", "@I", False),  # odd lot
        ("C", "IT", False),
        ("A", "4@", False),
        ("A", "B", False),  # average price on tapes A and B
        ("C", "B", True),  # bunched on tape C
        ("A", "W", True),
        ("C", "W", False),  # average price on tape C
    ],
)
def test_one_condition_is_enough_to_exclude_a_trade(tape: str, conditions: str, sets: bool) -> None:
    """Other conditions beside it do not matter; a trade without conditions sets the last sale."""
    assert sets_last_sale(trade(conditions=conditions, tape=tape)) == sets


@pytest.mark.parametrize("price", [0.0, -1.0, nan, inf])
def test_a_trade_without_a_real_price_sets_no_last_sale(price: float) -> None:
    """A last sale is a positive number of dollars."""
    assert not sets_last_sale(trade(price))


# Halts

CTA = "2356789ACDEF"
UTP = "HQTP"


@pytest.mark.parametrize(
    ("tape", "halting", "resuming"),
    [("A", "2", "3"), ("B", "2", "3"), ("C", "HP", "T"), ("O", "HP", "T"), ("", "HP", "T")],
)
def test_every_status_on_every_tape(tape: str, halting: str, resuming: str) -> None:
    """Each tape has its own codes; a resumption of quoting (Q) resumes no trading."""
    for code in CTA + UTP:
        assert halts(tape, code) == (code in halting)
        assert resumes(tape, code) == (code in resuming)
