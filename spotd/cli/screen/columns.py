"""Decides which columns fit a width, how wide each is, and the text of a row. Must not order rows.

Widths only grow until ``Columns`` is made anew: columns that jump cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from spotd.cli.screen.rows import Row, shown_state
from spotd.cli.screen.styles import STATES, Glyphs, Line, Segment
from spotd.cli.screen.trend import STEP_S, marks_of
from spotd.cli.table import price_text, span_text
from spotd.cli.text import cut, printable, width_of

# From left to right, and the order in which a narrow terminal loses them.
NAMES = ("symbol", "bid", "ask", "mid", "last", "spread", "age", "rate", "trend", "state")
_DISPENSABLE = ("trend", "rate", "spread", "age", "mid", "last", "state", "ask", "bid")
_HEADERS = {"rate": "/s"}
_PRICES = ("bid", "ask", "mid", "last", "spread")
_LEFT = ("symbol", "trend", "state")
_LEAST_TREND, _BEST_TREND, _MOST_TREND = 6, 20, 60
_ROOMY_TREND = 12  # with less, columns move together
_LONGEST = 13  # cells of a symbol; a longer refused entry is cut
_LONGEST_PRICE = 13  # characters, up to 99,999,999.9999
_STATE_CELLS = 7
_MOVES = ("down", "", "up")

Cells = dict[str, Segment]


class Columns:
    """The columns of one width of the terminal. ``glyphs`` are the marks that it can show."""

    def __init__(self, width: int, glyphs: Glyphs) -> None:
        self.width = width
        self._glyphs = glyphs
        self._least = {name: width_of(_HEADERS.get(name, name)) for name in NAMES}
        self._least |= {"trend": _LEAST_TREND, "state": _STATE_CELLS, "age": 4, "rate": 4}
        self._decimals = dict.fromkeys(_PRICES, 0)
        self._best_state = _STATE_CELLS
        self._fitted: dict[str, int] = {}
        self._gap = " "
        self._fit()

    @property
    def names(self) -> Sequence[str]:
        """Return the columns that fit, from left to right."""
        return tuple(self._fitted)

    @property
    def marks(self) -> int:
        """Return how many marks of a trend are shown."""
        return min(self._fitted.get("trend", 0), _MOST_TREND)

    def cells(self, row: Row, now: float, unix_s: float, *, suspect: bool) -> Cells:
        """Return the texts of a row that has a price or is not refused."""
        state = shown_state(row, suspect=suspect)
        style = "" if state in ("live", None) else "dim"
        update = row.update
        if update is None:
            cells = dict.fromkeys((*_PRICES, "age"), ("-", "dim"))
        else:
            moved = self._glyphs.up if row.mid_moved > 0 else self._glyphs.down
            mid = _price(update.mid_price) + (moved if row.mid_moved else " ")
            crossed = update.ask_price < update.bid_price
            cells = {
                "bid": (_price(update.bid_price), style),
                "ask": (_price(update.ask_price), style),
                "mid": (mid, style or _MOVES[row.mid_moved + 1]),
                "last": (_price(update.last_price), style or _MOVES[row.last_moved + 1]),
                "spread": (
                    _price(round(update.ask_price - update.bid_price, 6)),
                    "doubtful" if crossed else style,
                ),
                "age": (_age(row.age_s(unix_s) or 0.0), style),
            }
        cells["symbol"] = (cut(printable(row.symbol), _LONGEST), "strong")
        cells["rate"] = (f"{row.rate(now):.1f}", style or "dim")
        cells["state"] = self._state(row, state)
        return cells

    def grow(self, rows: Iterable[Cells]) -> None:
        """Make room for these rows."""
        before = dict(self._least), dict(self._decimals)
        for name in _PRICES:
            texts = [row[name][0] for row in rows]
            digits = max(map(_decimals, texts), default=0)
            self._decimals[name] = max(self._decimals[name], digits)
        for name in set(NAMES) - {"trend", "state"}:
            texts = [self._aligned(name, row[name][0]) for row in rows]
            self._least[name] = max(self._least[name], *map(width_of, texts), 0)
        states = [width_of(row["state"][0]) for row in rows]
        best = max(self._best_state, *states, 0)
        if best != self._best_state or before != (self._least, self._decimals):
            self._best_state = best
            self._fit()

    def header(self, sort: str) -> Line:
        """Return the names of the columns, the sorted one marked."""
        line: list[Segment] = []
        for name, width in self._fitted.items():
            text = _HEADERS.get(name, name)
            if name == "trend":
                text = cut(f"{self.marks * STEP_S:.0f} s", width)
            space = " " * (width - width_of(text))
            mid = " " if name == "mid" and space else ""  # above the price, not above its mark
            before, after = ("", space) if name in _LEFT else (space[len(mid) :], mid)
            style = "sorted" if name == sort else "dim"
            line += [(self._space(name) + before, ""), (text, style), (after, "")]
        return tuple(segment for segment in line if segment[0])

    def line(self, row: Row, cells: Cells, now: float, *, selected: bool) -> Line:
        """Return a row as it is shown."""
        line: list[Segment] = []
        for name, width in self._fitted.items():
            if name == "trend":
                text, style = self._trend(row, now, width)
            else:
                text, style = cells[name]
                if name == "state" and width_of(text) > width:
                    text = text.partition(" ")[0]  # without its code
                text = cut(self._aligned(name, text), width)
            space = " " * (width - width_of(text))
            text = text + space if name in _LEFT else space + text
            if name == "symbol" and selected:
                style = "selected"
            line.append((self._space(name) + text, style))
        return tuple(line)

    def refused_line(self, row: Row, *, selected: bool) -> Line:
        """Return a row without prices, that says why it has none."""
        width = self._fitted["symbol"]
        symbol = cut(printable(row.symbol), width)
        symbol += " " * (width - width_of(symbol))
        state = row.state
        why = "" if state is None else ": ".join(filter(None, (state.reason, state.detail)))
        told = cut(printable(f"refused: {why}"), max(0, self.width - width - len(self._gap)))
        return (symbol, "selected" if selected else "strong"), (self._gap, ""), (told, "bad")

    def _state(self, row: Row, state: str | None) -> Segment:
        if state is None or row.state is None:
            return "-", "dim"
        code = row.state.code if state not in ("live", "pending") else None
        return printable(f"{state} {code or ''}".rstrip()), STATES.get(state, "doubtful")

    def _trend(self, row: Row, now: float, width: int) -> Segment:
        prices = row.trend.last(self.marks, now)
        marks = marks_of(prices, self._glyphs.levels)
        style = "dim"
        if len(prices) > 1 and prices[0] != prices[-1]:
            style = "up" if prices[-1] > prices[0] else "down"
        # The newest stands at the right, also while there are few.
        return " " * (min(width, self.marks) - len(marks)) + marks, style

    def _aligned(self, name: str, text: str) -> str:
        """Return a price with spaces for the decimals that it lacks."""
        if name not in _PRICES:
            return text
        mark = text[-1] if name == "mid" and text != "-" else ""
        digits = text[: len(text) - len(mark)]
        return digits + " " * (self._decimals[name] - _decimals(text)) + mark

    def _space(self, name: str) -> str:
        return "" if name == NAMES[0] else self._gap

    def _fit(self) -> None:
        """Drop columns until the others fit, and share what is left."""
        names = list(NAMES)
        for name in _DISPENSABLE:
            if self._left(names, 1) >= 0:
                break
            names.remove(name)
        trend = "trend" in names
        roomy = self._left(names, 2) >= (_ROOMY_TREND - _LEAST_TREND if trend else 0)
        self._gap = "  " if roomy else " "
        left = self._left(names, len(self._gap))
        self._fitted = {name: self._least[name] for name in names}
        self._fitted[names[0]] = min(self._fitted[names[0]], self.width)
        if trend:
            more = min(left, _BEST_TREND - _LEAST_TREND)
            state = min(left - more, self._best_state - _STATE_CELLS)
            self._fitted["state"] += state
            self._fitted["trend"] += min(left - state, _MOST_TREND - _LEAST_TREND)
        elif "state" in names:
            self._fitted["state"] += min(left, self._best_state - _STATE_CELLS)

    def _left(self, names: Sequence[str], gap: int) -> int:
        return self.width - sum(self._least[name] for name in names) - gap * (len(names) - 1)


def _price(price: float | None) -> str:
    text = price_text(price)
    return text if price is None or len(text) <= _LONGEST_PRICE else f"{price:.5g}"


def _decimals(text: str) -> int:
    return len(text.rstrip("▲▼+- ").partition(".")[2])


def _age(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 60 else span_text(seconds)
