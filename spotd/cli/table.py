"""Prices and states as text: lines for a pipe, and the texts that several commands share.

Decides the text; must not talk to anything.
"""

from __future__ import annotations

from datetime import datetime

from spotd.cli.text import printable
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState, rfc3339

NO_DAEMON = "no daemon runs here"
LAST_KNOWN = f"{NO_DAEMON}: prices are the last known"


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
    symbols = counted(gap.symbols, "symbol")
    return f"gap of {seconds:,.1f} s until {rfc3339(gap.ends)}, {symbols}: {printable(gap.reason)}"


def state_text(event: DaemonStatus | SymbolState) -> str:
    """Return a state, with its reason where it has one."""
    return printable(event.state + (f": {event.reason}" if event.reason else ""))


def why_text(reason: str | None, detail: str | None) -> str:
    """Return why a symbol is in its state; "" where nothing says so."""
    return printable(": ".join(filter(None, (reason, detail))))


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
    return span_text((now - then).total_seconds())


def span_text(seconds: float) -> str:
    """Return a span of time in one unit, rounded down. A negative one counts as 0."""
    seconds = max(0.0, seconds)
    if seconds < 10:
        return f"{int(seconds * 10) / 10} s"
    for limit_s, unit_s, unit in ((60, 1, "s"), (3600, 60, "min"), (86400, 3600, "h")):
        if seconds < limit_s:
            return f"{int(seconds / unit_s)} {unit}"
    return f"{int(seconds / 86400)} d"


def counted(count: int, noun: str) -> str:
    """Return a number with its noun, in the plural where it is not 1."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
