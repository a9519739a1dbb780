"""Decides which columns fit a width, how wide each is, and the text of a row. Must not order rows.

Widths only grow until ``Columns`` is made anew: columns that jump cannot be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spotd.cli.screen.lines import cut_line
from spotd.cli.screen.rows import Row, shown_state
from spotd.cli.screen.styles import STATES, Glyphs, Line, Segment
from spotd.cli.screen.trend import MOST_MARKS, STEP_S, marks_of
from spotd.cli.table import price_text, span_text, why_text
from spotd.cli.text import cut, printable, width_of

# From left to right, and the order in which a narrow terminal loses them.
NAMES = ("symbol", "bid", "ask", "mid", "last", "spread", "age", "rate", "trend", "state")
_DISPENSABLE = ("trend", "rate", "spread", "age", "mid", "last", "state", "ask", "bid")
_HEADERS = {"rate": "/s"}
_PRICES = ("bid", "ask", "mid", "last", "spread")
_LEFT = ("symbol", "trend", "state")
_LEAST_TREND, _BEST_TREND = 6, 20
_ROOMY_TREND = 12  # with less, columns move together
_LONGEST = 13  # cells of a symbol; a longer refused entry is cut
_LONGEST_PRICE = 13  # characters, up to 99,999,999.9999
_STATE_CELLS = 7
_MOVES = ("down", "", "up")


class Cell(NamedTuple):
    """The text of a column, and how many decimals it has. Every character takes one cell.

    Symbols and states, which others wrote, may have wider ones.
    """

    text: str
    style: str
    decimals: int = 0


_NO_NUMBER = Cell("-", "dim")
Cells = dict[str, Cell]


class Columns:
    """The columns of one width of the terminal. ``glyphs`` are the marks that it can show."""

    def __init__(self, width: int, glyphs: Glyphs) -> None:
        self.width = width
        self._glyphs = glyphs
        self._moved = (glyphs.down, " ", glyphs.up)
        self._least = {name: len(_HEADERS.get(name, name)) for name in NAMES}
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

    def cells(self, row: Row, now: float, unix_s: float, *, suspect: bool) -> Cells:
        """Return the texts of a row."""
        state = shown_state(row, suspect=suspect)
        style = "" if state in ("live", None) else "dim"
        update = row.update
        if update is None:
            cells = dict.fromkeys((*_PRICES, "age"), _NO_NUMBER)
        else:
            spread = round(update.ask_price - update.bid_price, 6)
            mid, decimals = _price(update.mid_price)
            mid += self._moved[row.mid_moved + 1]
            last_style = style or _MOVES[row.last_moved + 1]
            cells = {
                "bid": _priced(update.bid_price, style),
                "ask": _priced(update.ask_price, style),
                "mid": Cell(mid, style or _MOVES[row.mid_moved + 1], decimals),
                "last": _priced(update.last_price, last_style),
                "spread": _priced(spread, "doubtful" if spread < 0 else style),
                "age": Cell(_age(row.age_s(unix_s) or 0.0), style),
            }
        cells["symbol"] = Cell(cut(printable(row.symbol), _LONGEST), "strong")
        cells["rate"] = Cell(f"{row.rate(now):.1f}", style or "dim")
        # A refused row has a line of its own, which takes no column.
        alone = state == "refused" and update is None
        cells["state"] = _NO_NUMBER if alone else _state(row, state)
        return cells

    def grow(self, rows: Iterable[Cells]) -> None:
        """Make room for these rows."""
        before = *self._least.values(), *self._decimals.values(), self._best_state
        for cells in rows:
            for name in _PRICES:
                self._decimals[name] = max(self._decimals[name], cells[name].decimals)
        for cells in rows:
            for name, cell in cells.items():
                if name == "state":
                    self._best_state = max(self._best_state, width_of(cell.text))
                    continue
                missing = self._decimals[name] - cell.decimals if name in _PRICES else 0
                width = (width_of if name == "symbol" else len)(cell.text) + missing
                self._least[name] = max(self._least[name], width)
        if before != (*self._least.values(), *self._decimals.values(), self._best_state):
            self._fit()

    def header(self, sort: str) -> Line:
        """Return the names of the columns, the sorted one marked."""
        line: list[Segment] = []
        for name, width in self._fitted.items():
            text = _HEADERS.get(name, name)
            if name == "trend":
                span = f"{self._marks * STEP_S:.0f} s"
                text = f"trend {span}" if len(span) + 6 <= width else span
            space = " " * (width - len(text))
            # Above the price, not above its mark.
            tail = " " if name == "mid" and space else ""
            before, after = ("", space) if name in _LEFT else (space[len(tail) :], tail)
            style = "sorted" if name == sort else "dim"
            line += [(self._space(name) + before, ""), (text, style), (after, "")]
        return cut_line((segment for segment in line if segment[0]), self.width)

    def line(self, row: Row, cells: Cells, now: float, *, selected: bool) -> Line:
        """Return a row as it is shown."""
        line: list[Segment] = []
        gap = len(self._gap)
        for name, width in self._fitted.items():
            if name == "trend":
                text, style = self._trend(row, now)
                line.append((self._gap + text + " " * (width - len(text)), style))
                continue
            text, style, decimals = cells[name]
            if name == "symbol":
                line.append((_left(text, width), "selected" if selected else style))
            elif name == "state":
                if width_of(text) > width:
                    text = text.partition(" ")[0]  # without its code
                line.append((self._gap + _left(text, width), style))
            else:
                if name in _PRICES and text != "-" and (missing := self._decimals[name] - decimals):
                    mark = text[-1] if name == "mid" else ""
                    text = text[: len(text) - len(mark)] + " " * missing + mark
                line.append((text.rjust(width + gap), style))
        return tuple(line)

    def refused_line(self, row: Row, *, selected: bool) -> Line:
        """Return a row without prices, that says why it has none."""
        width = self._fitted["symbol"]
        state = row.state
        why = "" if state is None else why_text(state.reason, state.detail)
        told = cut(f"refused: {why}", max(0, self.width - width - len(self._gap)))
        symbol = _left(printable(row.symbol), width), "selected" if selected else "strong"
        return cut_line((symbol, (self._gap, ""), (told, "bad")), self.width)

    def _trend(self, row: Row, now: float) -> Segment:
        prices = row.trend.last(self._marks, now)
        style = "dim"
        if len(prices) > 1 and prices[0] != prices[-1]:
            style = "up" if prices[-1] > prices[0] else "down"
        # The newest stands at the right, also while there are few.
        return marks_of(prices, self._glyphs.levels).rjust(self._marks), style

    def _space(self, name: str) -> str:
        return "" if name == NAMES[0] else self._gap

    def _fit(self) -> None:
        """Drop columns until the others fit, and share what is left."""
        names = list(NAMES)
        for name in _DISPENSABLE:
            if self._left_over(names, 1) >= 0:
                break
            names.remove(name)
        trend = "trend" in names
        roomy = self._left_over(names, 2) >= (_ROOMY_TREND - _LEAST_TREND if trend else 0)
        self._gap = "  " if roomy else " "
        left = self._left_over(names, len(self._gap))
        self._fitted = {name: self._least[name] for name in names}
        self._fitted["symbol"] = min(self._fitted["symbol"], self.width)
        if "state" in names:
            # The trend comes first, then the code of the reason.
            most = left - (_BEST_TREND - _LEAST_TREND if trend else 0)
            state = max(0, min(most, self._best_state - _STATE_CELLS))
            self._fitted["state"] += state
            left -= state
        if trend:
            self._fitted["trend"] += min(left, MOST_MARKS - _LEAST_TREND)
        self._marks = self._fitted.get("trend", 0)

    def _left_over(self, names: Sequence[str], gap: int) -> int:
        return self.width - sum(self._least[name] for name in names) - gap * (len(names) - 1)


def _state(row: Row, state: str | None) -> Cell:
    if state is None or row.state is None:
        return _NO_NUMBER
    code = row.state.code if state not in ("live", "pending") else None
    return Cell(printable(f"{state} {code}" if code else state), STATES[state])


def _left(text: str, width: int) -> str:
    text = cut(text, width)
    return text + " " * (width - width_of(text))


def _price(price: float) -> tuple[str, int]:
    text = price_text(price)
    if len(text) > _LONGEST_PRICE:
        return f"{price:.5g}", 0
    return text, len(text) - text.index(".") - 1


def _priced(price: float | None, style: str) -> Cell:
    if price is None:
        return _NO_NUMBER
    text, decimals = _price(price)
    return Cell(text, style, decimals)


def _age(seconds: float) -> str:
    return f"{int(seconds)} s" if seconds < 60 else span_text(seconds)
