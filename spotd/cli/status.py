"""``spotd status``: the state of the daemon, from ``spotd:status``. Must write nothing."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import click

from spotd.cli.options import client_of, json_option, load_settings, redis_url_option
from spotd.cli.table import state_text
from spotd.cli.text import printable
from spotd.errors import SpotdError
from spotd.models import DaemonStatus, rfc3339
from spotd.settings import Settings


@click.command()
@redis_url_option
@json_option
def status(redis_url: str | None, as_json: bool) -> None:
    """Show the state of the daemon. The exit code is 1 where no daemon runs."""
    settings = load_settings(redis_url)
    found = asyncio.run(_fetch(settings))
    if found is None:
        raise SpotdError(f"no daemon runs here: Redis answers, but holds no {settings.keys.status}")
    if as_json:
        click.echo(found.to_json())
        return
    for name, value in lines_of(found, datetime.now(UTC)):
        click.echo(f"{name:<13}{printable(value)}")


def lines_of(status: DaemonStatus, now: datetime) -> list[tuple[str, str]]:
    """Return the status for a person, as names and values."""
    counts = status.symbols
    parts = [f"{counts.desired} desired", f"{counts.live} live"]
    parts += [
        f"{number} {name}"
        for name, number in (
            ("pending", counts.pending),
            ("stale", counts.stale),
            ("halted", counts.halted),
            ("refused", counts.refused),
        )
        if number
    ]
    last = "none" if status.last_message_at is None else _ago(status.last_message_at, now)
    return [
        ("state", state_text(status)),
        ("since", _ago(status.since, now)),
        ("instance", f"{status.instance}, version {status.version}"),
        ("feed", status.feed),
        ("market", _market(status)),
        ("symbols", ", ".join(parts)),
        ("last message", last),
        ("lag", "unknown" if status.lag_ms is None else f"{status.lag_ms:.1f} ms"),
        ("breaker", status.breaker),
        ("quotes", f"{status.quotes_received:,} received"),
        ("updates", f"{status.updates_published:,} published"),
        ("reconnects", f"{status.reconnects:,}"),
        ("reported", _ago(status.at, now)),
    ]


def _market(status: DaemonStatus) -> str:
    if status.market is None:
        return "unknown"
    changes = status.market_changes_at
    return status.market + ("" if changes is None else f", until {rfc3339(changes)}")


async def _fetch(settings: Settings) -> DaemonStatus | None:
    async with client_of(settings) as spot:
        return await spot.status()


def _ago(moment: datetime, now: datetime) -> str:
    seconds = max(0, int((now - moment).total_seconds()))
    hours, minutes = seconds // 3600, seconds // 60
    span = f"{hours} h {minutes % 60} min" if hours else f"{minutes} min" if minutes else None
    return f"{rfc3339(moment)} ({span or f'{seconds} s'} ago)"
