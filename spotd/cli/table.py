"""Prices and states as text: a table for a terminal, lines for a pipe.

Decides the text; must not talk to anything. ``watch`` and ``demo`` show the same table, one row
per symbol, and the same lines.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.table import Table
from rich.text import Text

from spotd.cli.text import printable
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState, rfc3339

RATE_WINDOW_S = 5.0
_MAX_ARRIVALS = 256  # the rate of a row with more updates is measured over a shorter time

# The columns from left to right, and the order in which a narrow terminal loses them.
_COLUMNS = ("symbol", "bid", "ask", "mid", "last", "age", "updates/s", "state")
_DISPENSABLE = ("updates/s", "age", "mid", "last", "state", "ask", "bid")
_GAP = 2  # between columns
_LONGEST = 13  # characters of a symbol; a longer refused entry is cut

NO_DAEMON = "no daemon answers: prices are the last known"

_STATE_STYLES = {"live": "green", "stale": "yellow", "halted": "magenta", "refused": "red"}


class PriceTable:
    """Symbol, bid, ask, mid, last, age, updates per second and state, sorted by symbol.

    ``symbols`` have a row from the start. ``monotonic`` (seconds) measures rates, ``wall`` (unix
    seconds) the age of a price, which counts from its exchange time.
    """

    def __init__(
        self,
        symbols: Iterable[str] = (),
        *,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._monotonic = monotonic
        self._wall = wall
        self._rows: dict[str, _Row] = {}
        self._daemon: DaemonStatus | None = None
        self._absent = False
        self._gap: Gap | None = None
        for symbol in symbols:
            self._row(symbol)

    def update(self, update: SpotPriceUpdate) -> None:
        """Take in a price."""
        self._row(update.symbol).take(update, self._monotonic())

    def event(self, event: DaemonStatus | SymbolState | Gap) -> None:
        """Take in the state of a symbol; or the daemon's or a gap, shown below the table."""
        if isinstance(event, DaemonStatus):
            self._daemon = event
            self._absent = False
        elif isinstance(event, Gap):
            self._gap = event
        else:
            self._row(event.symbol).state = event

    def no_daemon(self) -> None:
        """Show live symbols as stale until the next status of a daemon."""
        self._absent = True

    def render(self) -> Prices:
        """Return the table as of now."""
        now, unix_s = self._monotonic(), self._wall()
        rows = [
            [Text(printable(symbol, _LONGEST)), *row.cells(now, unix_s, self._absent)]
            for symbol, row in sorted(self._rows.items())
        ]
        caption = NO_DAEMON if self._absent else None
        if self._daemon is not None and not self._absent:
            caption = f"daemon {state_text(self._daemon)}"
        captions = [caption, None if self._gap is None else f"last {gap_text(self._gap)}"]
        return Prices(rows, "\n".join(filter(None, captions)) or None)

    def _row(self, symbol: str) -> _Row:
        row = self._rows.get(symbol)
        if row is None:
            row = self._rows[symbol] = _Row(self._monotonic())
        return row


class Prices:
    """A table that leaves out columns which do not fit, and cuts none of the others."""

    def __init__(self, rows: list[list[Text]], caption: str | None) -> None:
        self.columns = {name: [row[i] for row in rows] for i, name in enumerate(_COLUMNS)}
        self.caption = caption

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        names = self._fitting(options.max_width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            text = name in ("symbol", "state")
            table.add_column(name, justify="left" if text else "right", no_wrap=name != "state")
        for cells in zip(*(self.columns[name] for name in names), strict=True):
            table.add_row(*cells)
        yield table
        if self.caption is not None:
            yield Text(self.caption, style="table.caption")

    def _fitting(self, width: int) -> list[str]:
        names = list(_COLUMNS)
        for name in _DISPENSABLE:
            if sum(map(self._width, names)) + _GAP * (len(names) - 1) <= width:
                break
            names.remove(name)
        return names

    def _width(self, name: str) -> int:
        """Return the least width of a column; the reason of a state may be on lines of its own."""
        texts = [name, *(cell.plain for cell in self.columns[name])]
        if name == "state":
            texts = [word for text in texts for word in text.split()]
        return max(map(cell_len, texts))


class _Row:
    def __init__(self, now: float) -> None:
        self.state: SymbolState | None = None
        self._update: SpotPriceUpdate | None = None
        self._style = ""
        self._began_at = now
        self._arrivals: deque[float] = deque(maxlen=_MAX_ARRIVALS)

    def take(self, update: SpotPriceUpdate, now: float) -> None:
        if self._update is not None and update.mid_price != self._update.mid_price:
            self._style = "green" if update.mid_price > self._update.mid_price else "red"
        self._update = update
        self._arrivals.append(now)

    def cells(self, now: float, unix_s: float, absent: bool) -> list[Text]:
        update = self._update
        if update is None:
            prices = [Text("-")] * 5
        else:
            prices = [
                Text(price_text(update.bid_price)),
                Text(price_text(update.ask_price)),
                Text(price_text(update.mid_price), style=self._style),
                Text(price_text(update.last_price)),
                Text(age_text(datetime.fromtimestamp(unix_s, UTC), update.timestamp)),
            ]
        return [*prices, Text(f"{self._rate(now):.1f}"), self._state_text(absent)]

    def _rate(self, now: float) -> float:
        arrivals = self._arrivals
        while arrivals and arrivals[0] <= now - RATE_WINDOW_S:
            arrivals.popleft()
        if len(arrivals) == _MAX_ARRIVALS:
            return _MAX_ARRIVALS / max(now - arrivals[0], 1e-3)
        # The time is at least 1 s: otherwise a new row would show hundreds after its first update.
        return len(arrivals) / min(RATE_WINDOW_S, max(1.0, now - self._began_at))

    def _state_text(self, absent: bool) -> Text:
        if self.state is None:
            return Text("-")
        state = "stale" if absent and self.state.state == "live" else self.state.state
        reason = f" ({self.state.reason})" if self.state.reason else ""
        return Text(printable(state + reason), style=_STATE_STYLES.get(state, ""))


def price_line(update: SpotPriceUpdate) -> str:
    """Return an update as one line: time, symbol and prices."""
    return (
        f"{rfc3339(update.timestamp)} {printable(update.symbol)} "
        f"bid={price_text(update.bid_price)} ask={price_text(update.ask_price)} "
        f"mid={price_text(update.mid_price)} last={price_text(update.last_price)}"
    )


def event_line(event: DaemonStatus | SymbolState | Gap) -> str:
    """Return a gap, or the state of a symbol or of the daemon, as one line."""
    if isinstance(event, Gap):
        return f"# {gap_text(event)}"
    name = printable(event.symbol) if isinstance(event, SymbolState) else "daemon"
    return f"# {name} is {state_text(event)}"


def gap_text(gap: Gap) -> str:
    """Return when no prices came, how many symbols that concerns, and why."""
    seconds = (gap.ends - gap.begins).total_seconds()
    symbols = f"{gap.symbols} symbol" + ("" if gap.symbols == 1 else "s")
    return f"gap of {seconds:.1f} s until {rfc3339(gap.ends)}, {symbols}: {printable(gap.reason)}"


def state_text(event: DaemonStatus | SymbolState) -> str:
    """Return a state, with its reason where it has one."""
    return printable(event.state + (f": {event.reason}" if event.reason else ""))


def price_text(price: float | None) -> str:
    """Return a price in dollars with its cents, and with more digits where it has some.

    No price is a dash.
    """
    if price is None:
        return "-"
    dollars, _, digits = f"{price:.6f}".partition(".")
    return f"{dollars}.{digits.rstrip('0').ljust(2, '0')}"


def age_text(now: datetime, then: datetime) -> str:
    """Return the age of a moment in one unit. Clocks that disagree make no negative age."""
    seconds = max(0.0, (now - then).total_seconds())
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 86400 else f"{seconds / 86400:.0f} d"
