"""``spotd symbols``: plain demand. Reads and writes ``spotd:symbols``; leases are only shown."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import click
import msgspec

from spotd.cli.options import client_of, json_option, listed, load_settings, redis_url_option
from spotd.cli.table import price_text
from spotd.cli.text import printable
from spotd.client import SpotClient, symbols_of
from spotd.models import MAX_ENTRY_CHARS, SpotPriceUpdate, SymbolState


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list. ``state`` is None where no daemon has read the demand yet."""

    symbol: str
    state: str | None = None
    mid_price: float | None = None
    reason: str | None = None
    detail: str | None = None


@click.group()
def symbols() -> None:
    """Add, remove and list symbols.

    Symbols that are added here are demanded until they are removed. Leases end with the programs
    that hold them.
    """


@symbols.command("add")
@click.argument("entries", metavar="SYMBOL...", nargs=-1, required=True)
@redis_url_option
def add(entries: tuple[str, ...], redis_url: str | None) -> None:
    """Have symbols streamed until they are removed."""
    names = listed(entries)
    added = _change(redis_url, lambda spot: spot.add(*names))
    there = [symbol for symbol in symbols_of(names, allow_wildcard=True) if symbol not in added]
    click.echo(_told("added", added, "already there", there))
    if "*" in added + there:
        click.echo(
            "* is the whole market: the daemon takes it only with SPOTD_ALLOW_WILDCARD=true",
            err=True,
        )


@symbols.command("remove")
@click.argument("entries", metavar="SYMBOL...", nargs=-1, required=True)
@redis_url_option
def remove(entries: tuple[str, ...], redis_url: str | None) -> None:
    """Remove symbols that were added. A malformed entry has to be written as it is stored."""
    names: list[str] = []

    async def change(spot: SpotClient) -> list[str]:
        stored = await spot.desired()
        for entry in entries:
            # A malformed entry may hold a comma.
            names.extend([entry] if entry in stored else listed([entry]))
        return await spot.remove(*names)

    gone = _change(redis_url, change)
    meant = dict.fromkeys(name if name in gone else name.strip().upper() for name in names)
    click.echo(_told("removed", gone, "not there", [name for name in meant if name not in gone]))


@symbols.command("list")
@redis_url_option
@json_option
def list_(redis_url: str | None, as_json: bool) -> None:
    """Show every desired symbol and refused entry with its state and last mid price.

    States count only while a daemon runs. Without one, a line on stderr says so.
    """
    daemon, rows = asyncio.run(_rows(redis_url))
    if not daemon and any(row.state for row in rows):
        click.echo("no daemon runs: these states were left behind, and do not count", err=True)
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    if not rows:
        click.echo("nothing is desired: spotd symbols add SPY", err=True)
    names = [printable(row.symbol, MAX_ENTRY_CHARS) for row in rows]
    width = max(map(len, names), default=0)
    for name, row in zip(names, rows, strict=True):
        why = printable(": ".join(text for text in (row.reason, row.detail) if text))
        mid = price_text(row.mid_price)
        click.echo(f"{name:<{width}}  {printable(row.state or '-'):<8} {mid:>12}  {why}".rstrip())


def _told(done: str, changed: list[str], else_: str, unchanged: list[str]) -> str:
    """Return one line that names the changed symbols and the unchanged ones."""
    parts = [f"{done} {len(changed)}: {', '.join(changed)}"] if changed else []
    parts += [f"{else_}: {', '.join(unchanged)}"] if unchanged else []
    return "; ".join(parts)


def _change(
    redis_url: str | None, change: Callable[[SpotClient], Awaitable[list[str]]]
) -> list[str]:
    async def body() -> list[str]:
        async with client_of(load_settings(redis_url)) as spot:
            return await change(spot)

    try:
        return asyncio.run(body())
    except ValueError as error:
        raise click.UsageError(
            f"{error}. A symbol is 1 to 8 letters, optionally a dot and 1 to 4 more."
        ) from error


async def _rows(redis_url: str | None) -> tuple[bool, list[Row]]:
    """Return whether a daemon runs, and a row for each symbol and entry."""
    async with client_of(load_settings(redis_url)) as spot:
        desired, states, last = await spot.desired(), await spot.states(), await spot.latest()
        daemon = await spot.status() is not None
    return daemon, [
        _row(symbol, states.get(symbol), last.get(symbol))
        for symbol in sorted(desired | states.keys())
    ]


def _row(symbol: str, state: SymbolState | None, update: SpotPriceUpdate | None) -> Row:
    mid_price = None if update is None else update.mid_price
    if state is None:
        return Row(symbol=symbol, mid_price=mid_price)
    return Row(
        symbol=symbol,
        state=state.state,
        mid_price=mid_price,
        reason=state.reason,
        detail=state.detail,
    )
