"""The whole screen as lines, from what was told and what was chosen. Pure; must not write them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from spotd.cli.screen.columns import Columns
from spotd.cli.screen.controls import HELP, Action, Controls
from spotd.cli.screen.header import Daemon, reason_line, top_line
from spotd.cli.screen.lines import cut_line, joined, spread_out
from spotd.cli.screen.order import ordered
from spotd.cli.screen.rows import Row
from spotd.cli.screen.styles import UNICODE, Glyphs, Line
from spotd.cli.text import printable
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

_SORT_EVERY_S = 1.0  # rows that change places at every update cannot be read
_ABOVE, _BELOW = 3, 1  # lines of the header and of the footer


class _Paused(NamedTuple):
    rows: dict[str, Row]
    now: float
    unix_s: float


class Screen:
    """Prices, states and keys come in; ``draw`` returns lines.

    ``hints`` stand below the prices where there is room. Symbols that are not rows yet get one
    with their first price or state. ``left_out`` are symbols that get no row; their number is told
    at the bottom. ``now`` is monotonic seconds, ``unix_s`` the wall clock.
    """

    def __init__(self, *, hints: Sequence[str] = (), glyphs: Glyphs = UNICODE) -> None:
        self.daemon = Daemon()
        self.controls = Controls()
        self.rows: dict[str, Row] = {}
        self.left_out: set[str] = set()
        self._hints = hints
        self._glyphs = glyphs
        self._columns = Columns(0, glyphs)
        self._paused: _Paused | None = None
        self._order: Sequence[str] = ()
        self._ordered_for: object = None
        self._ordered_at = 0.0
        self._page = 1

    # What is told

    def add(self, symbols: Iterable[str], now: float) -> None:
        """Make room for symbols."""
        for symbol in symbols:
            self.rows.setdefault(symbol, Row(symbol, now))
            self.left_out.discard(symbol)

    def remove(self, symbol: str) -> None:
        """Take a symbol off the screen."""
        self.rows.pop(symbol, None)
        self.left_out.discard(symbol)
        if self._paused is not None:
            self._paused.rows.pop(symbol, None)

    def price(self, update: SpotPriceUpdate, now: float) -> None:
        """Take in a price."""
        row = self.rows.get(update.symbol)
        if row is None:
            row = self.rows[update.symbol] = Row(update.symbol, now)
        row.take(update, now)

    def state(self, state: SymbolState, now: float) -> None:
        """Take in the state of a symbol, or of a refused entry."""
        self.rows.setdefault(state.symbol, Row(state.symbol, now)).state = state

    def status(self, status: DaemonStatus | None) -> None:
        """Take in the daemon's status; None: no daemon runs."""
        self.daemon.absent = status is None
        self.daemon.status = status or self.daemon.status

    def gap(self, gap: Gap) -> None:
        """Take in that no prices came for a time."""
        self.daemon.gap = gap

    def connection(self, why: str | None) -> None:
        """Take in that Redis is joined (None), or why it is lost."""
        self.daemon.why = why or ""

    # What is chosen

    def press(self, keys: Iterable[str], now: float, unix_s: float) -> list[Action]:
        """Take keys. Return what has to be done outside."""
        actions = []
        for key in keys:
            action = self.controls.press(key, self._order, self._page)
            if action is not None:
                actions.append(action)
            if self.controls.paused and self._paused is None:
                frozen = {symbol: row.frozen() for symbol, row in self.rows.items()}
                self._paused = _Paused(frozen, now, unix_s)
            elif not self.controls.paused:
                self._paused = None
            self._sorted(now, unix_s)
        return actions

    # What is shown

    def draw(self, width: int, height: int, now: float, unix_s: float) -> list[Line]:
        """Return at most ``height`` lines, each of at most ``width`` cells."""
        if width != self._columns.width:
            self._columns = Columns(width, self._glyphs)
        top = [top_line(self.daemon, width, unix_s)]
        if self._paused is not None:
            now, unix_s = self._paused.now, self._paused.unix_s
        self._page = max(1, height - _ABOVE - _BELOW)
        if self.controls.help:
            body = [cut_line(line, width) for line in self._help()]
        else:
            body = self._table(now, unix_s)
        selected = self._shown_rows().get(self.controls.selected or "")
        top += [reason_line(self.daemon, selected, width, unix_s)]
        room = max(0, height - 2 - _BELOW)
        lines = [*top, *body[:room]]
        lines += [()] * (height - len(lines) - _BELOW)
        return [*lines, self._footer(width)][:height]

    def _table(self, now: float, unix_s: float) -> list[Line]:
        self._sorted(now, unix_s)
        rows, columns, suspect = self._shown_rows(), self._columns, self.daemon.suspect
        _, symbols = self.controls.window(self._order, self._page)
        shown = [rows[symbol] for symbol in symbols]
        cells = [columns.cells(row, now, unix_s, suspect=suspect) for row in shown]
        columns.grow(cells)
        lines = [columns.header(self.controls.sort)]
        for row, texts in zip(shown, cells, strict=True):
            selected = row.symbol == self.controls.selected
            refused = row.state is not None and row.state.state == "refused"
            if refused and row.update is None:
                lines.append(columns.refused_line(row, selected=selected))
            else:
                lines.append(columns.line(row, texts, now, selected=selected))
        if not shown:
            lines.append(cut_line(((self._nothing(), "dim"),), columns.width))
        return lines + self._hint_lines(self._page - len(lines) + 1)

    def _hint_lines(self, room: int) -> list[Line]:
        """Return the hints in the last lines of the room, behind an empty one if it is there."""
        shown = self._hints[: max(0, room)]
        hints = [cut_line(((hint, "dim"),), self._columns.width) for hint in shown]
        return [()] * (room - len(hints)) + hints if hints else []

    def _nothing(self) -> str:
        if self.controls.wanted:
            return f"Nothing matches {self.controls.wanted!r}: Esc ends the filter."
        return "Nothing is streamed here yet: press a, and type a symbol."

    def _help(self) -> list[Line]:
        keys = max(len(key) for key, _ in HELP)
        lines: list[Line] = [(("Keys", "strong"),)]
        lines += [((f"{key:<{keys}}", "key"), (f"  {what}", "")) for key, what in HELP]
        legend = "Prices in USD; age by the exchange's time; /s: updates per second; "
        return [*lines, (), ((legend + "spread: ask less bid.", "dim"),)]

    def _footer(self, width: int) -> Line:
        controls = self.controls
        if controls.prompt is not None:
            asked = {"add": "add symbols: ", "remove": "remove: ", "filter": "filter: "}
            prompt: Line = (
                (asked[controls.prompt], "key"), (printable(controls.typed), ""), (" ", "selected"),
            )  # fmt: skip
            return cut_line(prompt, width)
        if controls.message:
            return cut_line(((printable(controls.message), "bad"),), width)
        where = self._where()
        keys = [_key("q", "quit"), _key("?", "help"), _key("s", self._sorted_by())]
        if self._paused is not None:
            keys.insert(0, ((" paused ", "badge doubtful"),))
        if controls.wanted:
            keys.insert(0, _key("/", printable(controls.wanted)))
        else:
            keys.append(_key("/", "filter"))
        keys += [_key("a", "add"), _key("x", "remove"), _key("space", "pause")]
        room = width - sum(len(text) for text, _ in where) - 2
        return spread_out(joined(keys, room if room > 20 else width), where, width)

    def _where(self) -> Line:
        first, symbols = self.controls.window(self._order, self._page)
        whole = len(symbols) == len(self._order) == len(self._shown_rows())
        if whole and not self.left_out:
            return ()
        dash = self._glyphs.dash
        text = f"{first + 1 if symbols else 0}{dash}{first + len(symbols)} of {len(self._order)}"
        if self.left_out:
            text += f", {len(self.left_out)} not shown"
        return ((text, "dim"),)

    def _sorted_by(self) -> str:
        controls = self.controls
        down = controls.backwards == (controls.sort in ("symbol", "state"))
        return f"{controls.sort} {self._glyphs.descending if down else self._glyphs.ascending}"

    def _shown_rows(self) -> dict[str, Row]:
        return self.rows if self._paused is None else self._paused.rows

    def _sorted(self, now: float, unix_s: float) -> None:
        rows, controls = self._shown_rows(), self.controls
        suspect = self.daemon.suspect
        asked = (controls.sort, controls.backwards, controls.wanted, suspect, tuple(rows))
        if asked == self._ordered_for and 0 <= now - self._ordered_at < _SORT_EVERY_S:
            return
        self._ordered_for, self._ordered_at = asked, now
        self._order = ordered(
            rows.values(),
            sort=controls.sort,
            backwards=controls.backwards,
            wanted=controls.wanted,
            now=now,
            unix_s=unix_s,
            suspect=suspect,
        )


def _key(key: str, what: str) -> Line:
    return (key, "key"), (f" {what}", "")
