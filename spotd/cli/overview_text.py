"""Decides the text of ``spotd status``: what a person needs to know, on one screen.

Must not talk to anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import NamedTuple

import click

from spotd.cli.overview import NO_DAEMON, Overview, action_of, group_of
from spotd.cli.text import printable
from spotd.core.demand_origins import DemandOrigins
from spotd.models import DaemonStatus, Gap, SymbolState

_MOST_GAPS, _MOST_OWNERS, _MOST_GROUPS = 3, 2, 3  # so that all fits a screen of 24 lines
_NAMES_CHARS = 34  # of a list of names; then they are counted


class Line(NamedTuple):
    """A name and what is said of it. ``name`` is "" where a line continues the one before."""

    name: str
    text: str
    color: str | None = None

    def styled(self) -> str:
        """Return the line as a terminal shows it."""
        return f"{self.name:<13}{click.style(printable(self.text), fg=self.color)}"


def lines_of(seen: Overview, now: datetime) -> Iterator[Line]:
    """Yield what a person needs to know, and what to do, at most 24 lines."""
    status = seen.status
    if seen.away is not None:
        yield Line("state", f"unknown: {seen.away}", "red")
    elif status is None:
        yield Line("state", f"{NO_DAEMON}: Redis answers, but holds no status", "red")
    else:
        yield from _status_lines(status, seen.ready, now)
    action = action_of(seen.code)
    if action is not None:
        yield Line("do", action)
    if status is not None:
        yield from _fact_lines(status, now)
    if seen.demand is not None:
        yield from _demand_lines(seen.demand)
    elif seen.away is None:
        yield Line("demand", "unknown: the user of Redis may not read it")
    yield from _state_lines(seen.not_live)


def moment_text(moment: datetime) -> str:
    """Return a time to the second."""
    return f"{moment:%Y-%m-%d %H:%M:%S}Z"


def ago_text(moment: datetime, now: datetime) -> str:
    """Return a time, and how long ago it was. Clocks that disagree make no negative age."""
    return f"{moment_text(moment)} ({_span((now - moment).total_seconds())} ago)"


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


def _span(seconds: float) -> str:
    whole = max(0, int(seconds))
    hours, minutes = whole // 3600, whole // 60
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return (
        f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else f"{whole} s"
    )


def _status_lines(status: DaemonStatus, ready: bool, now: datetime) -> Iterator[Line]:
    since = ago_text(status.since, now)
    yield Line("state", f"{status.state} since {since}", "green" if ready else "red")
    if status.reason is not None:
        code = f"{status.code}: " if status.code else ""
        yield Line("reason", f"{code}{status.reason}", "yellow" if ready else "red")


def _fact_lines(status: DaemonStatus, now: datetime) -> Iterator[Line]:
    reported = _span((now - status.at).total_seconds())
    yield Line(
        "daemon",
        f"{status.instance}, version {status.version}, feed {status.feed}, reported {reported} ago",
    )
    yield Line("market", _market(status, now))
    yield Line("symbols", _counts(status))
    last = "none yet" if status.last_message_at is None else ago_text(status.last_message_at, now)
    lag = "unknown" if status.lag_ms is None else f"{status.lag_ms:,.1f} ms"
    yield Line("last message", f"{last}, lag {lag}")
    lost = f"{_number(status.reconnects, 'connection')} lost or not made"
    yield Line("stream", f"breaker {status.breaker}, {lost}")
    yield Line(
        "traffic",
        f"{status.quotes_received:,} quotes received, "
        f"{_number(status.updates_published, 'update')} published",
    )
    if not status.gaps:
        yield Line("gaps", "none stated since this daemon started")
    for number, gap in enumerate(reversed(status.gaps[-_MOST_GAPS:])):
        yield Line("" if number else "gaps", _gap(gap))


def _gap(gap: Gap) -> str:
    seconds = (gap.ends - gap.begins).total_seconds()
    code = f"{gap.code}: " if gap.code else ""
    return (
        f"{moment_text(gap.begins)} to {gap.ends:%H:%M:%S}Z ({seconds:,.1f} s), "
        f"{_number(gap.symbols, 'symbol')}, {code}{gap.reason}"
    )


def _market(status: DaemonStatus, now: datetime) -> str:
    if status.market is None:
        return "unknown"
    changes = status.market_changes_at
    if changes is None:
        return status.market
    return (
        f"{status.market} until {moment_text(changes)} ({_span((changes - now).total_seconds())})"
    )


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


def _demand_lines(demand: DemandOrigins) -> Iterator[Line]:
    if not demand.entries and not demand.leases and not demand.garbage:
        yield Line("demand", "none: spotd symbols add SPY")
        return
    leases = sum(map(len, demand.leases.values()))
    told = f"{_number(len(demand.entries), 'symbol')} in the set, {_number(leases, 'lease')}"
    yield Line("demand", f"{told} of {_number(len(demand.of_owner), 'owner')}")
    owners = list(demand.of_owner.items())
    for owner, symbols in owners[:_MOST_OWNERS]:
        yield Line("", f"{printable(owner, 24) or '(no owner)'}: {names_text(symbols, 40)}")
    if len(owners) > _MOST_OWNERS:
        yield Line("", f"and {_number(len(owners) - _MOST_OWNERS, 'owner')} more: status --json")
    if demand.garbage:
        names = names_text(demand.garbage, 40)
        yield Line("garbage", f"{len(demand.garbage):,} name no symbol: {names}", "yellow")


_COLORS = {"refused": "red", "stale": "yellow", "halted": "magenta"}


def _state_lines(states: Sequence[SymbolState]) -> Iterator[Line]:
    groups = [(key, list(each)) for key, each in groupby(states, group_of)]
    for (_, code), members in groups[:_MOST_GROUPS]:
        state = members[0].state
        why = f"{code}: " if code else ""
        yield Line(
            state, f"{why}{names_text([each.symbol for each in members])}", _COLORS.get(state)
        )
        details = {each.detail for each in members}
        if len(details) == 1 and members[0].detail:
            yield Line("", members[0].detail)
        elif state == "refused":
            yield Line("", action_of(code) or "")
    if len(groups) > _MOST_GROUPS:
        left = sum(len(members) for _, members in groups[_MOST_GROUPS:])
        yield Line("", f"and {_number(left, 'symbol')} more: spotd symbols list")


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
