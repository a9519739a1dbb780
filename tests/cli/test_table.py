"""Prices and states as text."""

from __future__ import annotations

from datetime import timedelta

import pytest

from spotd.cli.table import age_text, event_line, price_line, price_text
from tests.kit.publisher import AT, gap_of, state_of, status_of, update_of


@pytest.mark.parametrize(
    ("price", "text"),
    [(421.0, "421.00"), (405.78 + 0.02, "405.80"), (0.00015, "0.00015"), (421.375, "421.375")],
)
def test_price_text(price: float, text: str) -> None:
    """A price has its cents, and more digits where it has more."""
    assert price_text(price) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-3, "0.0 s"),
        (0.26, "0.2 s"),
        (9.99, "9.9 s"),
        (59.9, "59 s"),
        (119, "1 min"),
        (7200, "2 h"),
        (200_000, "2 d"),
    ],
)
def test_age_text(seconds: float, text: str) -> None:
    """An age is in the unit that matters, rounded down."""
    assert age_text(AT + timedelta(seconds=seconds), AT) == text


def test_lines() -> None:
    """In a pipe an update, and a state with its reason, is one line; no price is a dash."""
    assert price_line(update_of("SPY")) == (
        "2026-01-20T05:12:00.000000Z SPY bid=421.35 ask=421.39 mid=421.37 last=-"
    )
    assert event_line(state_of("SPY")) == "# SPY is live"
    assert event_line(status_of("waiting", "no answer")) == "# daemon is waiting: no answer"
    assert event_line(gap_of()) == (
        "# gap of 1.0 s until 2026-01-20T05:12:00.000000Z, 3 symbols: more words"
    )
