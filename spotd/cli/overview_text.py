"""Decides the text of ``spotd status``: what a person needs to know, on one screen.

Must not talk to anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

from spotd.cli.overview import Overview, action_of, group_of
from spotd.cli.screen.styles import STATES, Line
from spotd.cli.table import age_text, counted
from spotd.cli.text import printable
from spotd.core.demand_origins import DemandOrigins
from spotd.models import DaemonStatus, Gap, SymbolState

_MOST_GAPS, _MOST_OWNERS, _MOST_GROUPS = 3, 2, 3  # so that all fits a screen of 24 lines
_NAMES_CHARS = 34  # of a list of names; then they are counted
NAME_CELLS = 13  # the names stand in a column of their own


class Named(NamedTuple):
    """A name and what is said of it. ``name`` is "" where a line continues the one before."""

    name: str
    text: str
    style: str = ""

    @property
    def line(self) -> Line:
        """Return the line as a terminal shows it."""
        return (f"{self.name:<{NAME_CELLS}}", ""), (printable(self.text), self.style)


def lines_of(seen: Overview, now: datetime) -> Iterator[Named]:
    """Yield what a person needs to know, and what to do, at most 24 lines."""
    status = seen.status
    if seen.away is not None:
        yield Named("state", "unknown", "bad")
        yield Named("reason", f"{seen.code}: {seen.away}", "bad")
    elif status is None:
        yield Named("state", seen.absent, "bad")
    elif seen.left:
        yield Named("state", f"no leader (last status is {age_text(now, status.at)} old)", "bad")
        yield Named("last status", f"{status.state}, written by {status.instance}")
    else:
        yield from _status_lines(status, seen.ready, now)
    action = action_of(seen.code)
    if action is not None:
        yield Named("do", action)
    if status is not None and not seen.left:
        yield from _fact_lines(status, now)
    if seen.demand is not None:
        yield from _demand_lines(seen.demand)
    for name, why in seen.unreadable.items():
        yield Named(name, f"unknown: {why}", "doubtful")
    yield from _state_lines(seen.not_live)


def moment_text(moment: datetime) -> str:
    """Return a time to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def ago_text(moment: datetime, now: datetime) -> str:
    """Return a time, and how long ago it was. Clocks that disagree make no negative age."""
    return f"{moment_text(moment)} ({age_text(now, moment)} ago)"


def names_text(names: Sequence[str], most_chars: int = _NAMES_CHARS) -> str:
    """Return names, as many as fit, and how many more there are."""
    told: list[str] = []
    chars = 0
    for name in names:
        shown = printable(name, 64)
        chars += len(shown) + 2
        if told and chars > most_chars:
            return f"{', '.join(told)} and {len(names) - len(told):,} more"
        told.append(shown)
    return ", ".join(told)


def _status_lines(status: DaemonStatus, ready: bool, now: datetime) -> Iterator[Named]:
    since = ago_text(status.since, now)
    yield Named("state", f"{status.state} since {since}", "good" if ready else "bad")
    if status.reason is not None:
        code = f"{status.code}: " if status.code else ""
        yield Named("reason", f"{code}{status.reason}", "doubtful" if ready else "bad")


def _fact_lines(status: DaemonStatus, now: datetime) -> Iterator[Named]:
    reported = age_text(now, status.at)
    yield Named(
        "daemon",
        f"{status.instance}, version {status.version}, feed {status.feed}, reported {reported} ago",
    )
    yield Named("market", _market(status, now))
    yield Named("symbols", _counts(status))
    last = "none yet" if status.last_message_at is None else ago_text(status.last_message_at, now)
    lag = "unknown" if status.lag_ms is None else f"{status.lag_ms:,.1f} ms"
    yield Named("last message", f"{last}, lag {lag}")
    lost = f"{counted(status.reconnects, 'connection')} lost or not made"
    yield Named("stream", f"breaker {status.breaker}, {lost}")
    yield Named(
        "traffic",
        f"{status.quotes_received:,} quotes received, "
        f"{counted(status.updates_published, 'update')} published",
    )
    if not status.gaps:
        yield Named("gaps", "none stated since this daemon started")
    for number, gap in enumerate(reversed(status.gaps[-_MOST_GAPS:])):
        yield Named("" if number else "gaps", _gap(gap))


def _gap(gap: Gap) -> str:
    seconds = (gap.ends - gap.begins).total_seconds()
    code = f"{gap.code}: " if gap.code else ""
    return (
        f"{moment_text(gap.begins)} to {gap.ends:%H:%M:%S}Z ({seconds:,.1f} s), "
        f"{counted(gap.symbols, 'symbol')}, {code}{gap.reason}"
    )


def _market(status: DaemonStatus, now: datetime) -> str:
    if status.market is None:
        return "unknown"
    changes = status.market_changes_at
    if changes is None:
        return status.market
    return f"{status.market} until {moment_text(changes)} ({age_text(changes, now)})"


def _counts(status: DaemonStatus) -> str:
    counts = status.symbols
    parts = [f"{counts.desired:,} desired", f"{counts.live:,} live"]
    others = {
        "pending": counts.pending,
        "stale": counts.stale,
        "halted": counts.halted,
        "refused": counts.refused,
    }
    return ", ".join(parts + [f"{number:,} {name}" for name, number in others.items() if number])


def _demand_lines(demand: DemandOrigins) -> Iterator[Named]:
    if not demand.entries and not demand.leases and not demand.garbage:
        yield Named("demand", "none: spotd symbols add SPY")
        return
    leases = sum(map(len, demand.leases.values()))
    told = f"{counted(len(demand.entries), 'symbol')} in the set, {counted(leases, 'lease')}"
    yield Named("demand", f"{told} of {counted(len(demand.of_owner), 'owner')}")
    owners = list(demand.of_owner.items())
    for owner, symbols in owners[:_MOST_OWNERS]:
        yield Named("", f"{printable(owner, 24) or '(no owner)'}: {names_text(symbols, 40)}")
    if len(owners) > _MOST_OWNERS:
        yield Named("", f"and {counted(len(owners) - _MOST_OWNERS, 'owner')} more: status --json")
    if demand.garbage:
        names = names_text(demand.garbage, 40)
        name = "names" if len(demand.garbage) == 1 else "name"
        yield Named("garbage", f"{len(demand.garbage):,} {name} no symbol: {names}", "doubtful")


def _state_lines(states: Sequence[SymbolState]) -> Iterator[Named]:
    groups = [(key, list(each)) for key, each in groupby(states, group_of)]
    for (_, code), members in groups[:_MOST_GROUPS]:
        state = members[0].state
        why = f"{code}: " if code else ""
        names = names_text([each.symbol for each in members])
        yield Named(state, f"{why}{names}", STATES[state])
        details = {each.detail for each in members}
        if len(details) == 1 and members[0].detail:
            yield Named("", members[0].detail)
        elif state == "refused":
            yield Named("", action_of(code) or "")
    if len(groups) > _MOST_GROUPS:
        left = sum(len(members) for _, members in groups[_MOST_GROUPS:])
        yield Named("", f"and {counted(left, 'symbol')} more: spotd symbols list")
