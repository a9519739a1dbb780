"""Decides which rows are shown, and in which order."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from spotd.cli.screen.rows import Row, shown_state

# Columns that can be sorted by, in the order in which a key goes through them.
SORTS = ("symbol", "mid", "spread", "age", "rate", "state")
# The worst first.
_STATES = ("refused", "halted", "stale", "ended", "pending", None, "live")


def ordered(
    rows: Iterable[Row],
    *,
    sort: str,
    backwards: bool,
    wanted: str,
    now: float,
    unix_s: float,
    suspect: bool,
) -> list[str]:
    """Return the symbols of the rows that a filter lets through, sorted by one of ``SORTS``.

    Names and states go up, numbers go down, and the other way ``backwards``. Rows without the
    number come last. Rows that are equal are sorted by symbol. ``wanted`` is a part of the symbol,
    or the beginning of a state; empty lets all through.
    """
    found = [row for row in rows if not wanted or matches(row, wanted, suspect=suspect)]
    found.sort(key=lambda row: row.symbol, reverse=backwards and sort == "symbol")
    if sort == "state":
        found.sort(key=lambda row: _rank(row, suspect), reverse=backwards)
    elif sort != "symbol":
        number = _NUMBERS[sort]
        numbers = {row.symbol: number(row, now, unix_s) for row in found}
        sign = 1 if backwards else -1
        found.sort(key=lambda row: _number_last(numbers[row.symbol], sign))
    return [row.symbol for row in found]


def matches(row: Row, wanted: str, *, suspect: bool) -> bool:
    """Return whether a filter lets a row through. Upper and lower case are the same."""
    state = shown_state(row, suspect=suspect)
    lower = wanted.strip().lower()
    return lower in row.symbol.lower() or (state is not None and state.startswith(lower))


def _rank(row: Row, suspect: bool) -> int:
    return _STATES.index(shown_state(row, suspect=suspect))


def _number_last(number: float | None, sign: int) -> tuple[bool, float]:
    return (True, 0.0) if number is None else (False, sign * number)


def _mid(row: Row, _: float, __: float) -> float | None:
    return None if row.update is None else row.update.mid_price


def _spread(row: Row, _: float, __: float) -> float | None:
    return None if row.update is None else row.update.ask_price - row.update.bid_price


_NUMBERS: dict[str, Callable[[Row, float, float], Any]] = {
    "mid": _mid,
    "spread": _spread,
    "age": lambda row, _, unix_s: row.age_s(unix_s),
    "rate": lambda row, now, _: row.rate(now),
}
