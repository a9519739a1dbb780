"""Decides what stands above the prices: the daemon, the market, the lag, and what is wrong."""

from __future__ import annotations

from dataclasses import dataclass

from spotd.cli.screen.lines import cut_line, joined, line_width
from spotd.cli.screen.rows import Row
from spotd.cli.screen.styles import STATES, Line, Segment
from spotd.cli.table import LAST_KNOWN, gap_text, span_text, why_text
from spotd.cli.text import printable
from spotd.models import DaemonStatus, Gap, SymbolState
from spotd.reasons import MEANINGS

_COUNTED = ("pending", "stale", "halted", "refused")
_GAP_SHOWN_S = 300.0
_ANY_WIDTH = 1_000_000
_BADGES = {"good": "badge good", "doubtful": "badge doubtful", "bad": "badge bad"}


@dataclass(slots=True)
class Daemon:
    """What is known of the daemon and of the connection to Redis. The fields are set as told."""

    status: DaemonStatus | None = None
    absent: bool = False  # Redis answers, and holds no status
    why: str = ""  # Redis is lost
    gap: Gap | None = None

    @property
    def suspect(self) -> bool:
        """Return whether no price can be called live."""
        return self.absent or bool(self.why)


def top_line(daemon: Daemon, width: int, unix_s: float) -> Line:
    """Return the daemon's state, and what it says of the market, the lag and the symbols."""
    badge: Line = (("spotd", "strong"), (" ", ""), _badge(daemon))
    status = daemon.status
    if status is None or daemon.suspect:
        return joined([badge], width)
    lag = "unknown" if status.lag_ms is None else f"{status.lag_ms:,.0f} ms"
    line: Line = ()
    for market in (_market(status, unix_s), status.market or "unknown"):
        parts = [
            badge,
            _counts(status),
            _named("lag", lag),
            _named("market", market),
            _named("feed", status.feed),
        ]
        line = joined(parts, width)
        if line_width(line) == line_width(joined(parts, _ANY_WIDTH)):
            break
    return line


def reason_line(daemon: Daemon, selected: Row | None, width: int, unix_s: float) -> Line:
    """Return what is wrong and why: Redis, the daemon, the selected symbol, or the last gap."""
    status = daemon.status
    if daemon.why:
        line: Line = (("redis_away: ", "bad"), (printable(daemon.why), ""))
    elif daemon.absent:
        line = (("no_daemon: ", "bad"), (f"{LAST_KNOWN}. {MEANINGS['no_daemon'].action}", ""))
    elif selected is not None and selected.state is not None and selected.state.reason:
        line = _of_symbol(selected.state)
    elif status is not None and status.reason:
        code = f"{printable(status.code)}: " if status.code else ""
        line = ((code, STATES[status.state]), (printable(status.reason), ""))
    elif daemon.gap is not None and unix_s - daemon.gap.ends.timestamp() < _GAP_SHOWN_S:
        line = ((f"last {gap_text(daemon.gap)}", "dim"),)
    else:
        line = ()
    return cut_line(line, width)


def _badge(daemon: Daemon) -> Segment:
    if daemon.why:
        return " Redis is away ", "badge bad"
    if daemon.absent:
        return " no daemon ", "badge bad"
    if daemon.status is None:
        return " joining ", "badge doubtful"
    return f" {daemon.status.state} ", _BADGES[STATES[daemon.status.state]]


def _of_symbol(state: SymbolState) -> Line:
    name = printable(f"{state.symbol} {state.state} ")
    code = f"{printable(state.code)}: " if state.code and state.code != state.reason else ""
    return (name, "strong"), (code, STATES[state.state]), (why_text(state.reason, state.detail), "")


def _market(status: DaemonStatus, unix_s: float) -> str:
    if status.market is None:
        return "unknown"
    changes = status.market_changes_at
    if changes is None:
        return status.market
    return f"{status.market} for {span_text(changes.timestamp() - unix_s)} more"


def _counts(status: DaemonStatus) -> Line:
    counts = status.symbols
    line: list[Segment] = [(f"{counts.live} of {counts.desired}", ""), (" live", "dim")]
    for name in _COUNTED:
        if number := getattr(counts, name):
            line += [(f", {number} ", ""), (name, STATES[name])]
    return tuple(line)


def _named(name: str, value: str) -> Line:
    return (f"{name} ", "dim"), (printable(value), "")
