"""``spotd symbols``: plain demand, and who asks for a symbol.

Reads and writes ``spotd:symbols``; leases are only shown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

import click
import msgspec

from spotd.cli.options import (
    client_of,
    json_option,
    listed,
    load_settings,
    observer_of,
    redis_url_option,
    symbols_meant,
)
from spotd.cli.symbol_origins import Asked, asked_lines, read_asked
from spotd.cli.table import NO_DAEMON, price_text, why_text
from spotd.cli.text import printable
from spotd.client import SpotClient
from spotd.core.demand_origins import origins
from spotd.errors import RedisUnavailableError, SpotdError
from spotd.models import MAX_ENTRY_CHARS, DaemonStatus, SpotPriceUpdate, SymbolState
from spotd.redis.errors import RefusedError
from spotd.redis.observer import Observer
from spotd.settings import Settings

T = TypeVar("T")

_ANSWER_WITHIN_S = 2.0  # the daemon sees a change within 1 s, and Alpaca answers at once
_READ_AGAIN_S = 0.05
_NO_DAEMON = f"{NO_DAEMON}, so nothing is streamed: spotd run"
_COMPLETE_WITHIN_S = 0.5  # a person waits at the prompt


def complete_symbols(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Return the symbols of the demand that begin so; none where Redis does not answer at once."""

    async def read() -> list[str]:
        async with observer_of(load_settings()) as observer, asyncio.timeout(_COMPLETE_WITHIN_S):
            demand = origins(*await observer.demand())
        return sorted({*demand.entries, *demand.leases})

    try:
        symbols = asyncio.run(read())
    except (SpotdError, TimeoutError):
        return []
    return [symbol for symbol in symbols if symbol.startswith(incomplete.upper())]


_new_symbols_argument = click.argument("entries", metavar="SYMBOL...", nargs=-1, required=True)
_symbols_argument = click.argument(
    "entries", metavar="SYMBOL...", nargs=-1, required=True, shell_complete=complete_symbols
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list.

    ``state`` is None where no daemon has read the demand yet, and where none runs: then
    ``last_state`` is what the last one wrote.
    """

    symbol: str
    state: str | None = None
    mid_price: float | None = None
    reason: str | None = None
    detail: str | None = None
    last_state: str | None = None


@click.group()
def symbols() -> None:
    """Add, remove and list symbols, and see who asks for them.

    Symbols that are added here are demanded until they are removed. Leases end with the programs
    that hold them. Several symbols are separated by spaces or commas.
    """


@symbols.command("add")
@_new_symbols_argument
@redis_url_option
def add(entries: tuple[str, ...], redis_url: str | None) -> None:
    """Have symbols streamed until they are removed.

    A malformed one is exit code 2, and nothing is changed. Where a daemon runs, its answer is
    waited for, for 2 seconds at most: symbols that it refuses are told, and are exit code 1.
    Without a daemon the demand is written all the same: that is told, and is exit code 0. So is an
    answer that the user of Redis may not read.
    """
    settings = load_settings(redis_url)
    wanted = _meant(listed(entries))
    added = asyncio.run(_change(settings, lambda spot: spot.add(*wanted)))
    there = [symbol for symbol in wanted if symbol not in added]
    click.echo(_told("added", added, "already there", there))
    try:
        status, states = asyncio.run(_observed(settings, lambda seen: _answer(seen, wanted)))
    except RedisUnavailableError as error:  # what was asked for is done
        click.echo(f"the daemon's answer is not known: {error}", err=True)
        # A user who may not read the answer did all that it may.
        raise click.exceptions.Exit(0 if isinstance(error, RefusedError) else 1) from error
    if status is None:
        click.echo(_NO_DAEMON, err=True)
        if "*" in wanted:
            click.echo("* is taken only with SPOTD_ALLOW_WILDCARD=true", err=True)
        return
    refused = [each for each in states.values() if each.state == "refused"]
    for each in refused:
        why = why_text(each.reason, each.detail)
        click.echo(f"refused {printable(each.symbol)}: {why}", err=True)
    raise click.exceptions.Exit(1 if refused else 0)


@symbols.command("remove")
@_symbols_argument
@redis_url_option
def remove(entries: tuple[str, ...], redis_url: str | None) -> None:
    """Remove symbols that were added. A malformed entry has to be written as it is stored."""
    settings = load_settings(redis_url)
    stored = asyncio.run(_observed(settings, _stored))
    # An entry that is stored may hold commas and spaces.
    doomed = [
        each for entry in entries for each in ([entry] if entry in stored else listed([entry]))
    ]
    _meant(each for each in doomed if each not in stored)
    gone = asyncio.run(_change(settings, lambda spot: spot.remove(*doomed)))
    meant = dict.fromkeys(entry if entry in gone else entry.strip().upper() for entry in doomed)
    click.echo(_told("removed", gone, "not there", [name for name in meant if name not in gone]))


@symbols.command("list", short_help="Show symbols with state and price.")
@click.argument("entries", metavar="[SYMBOL]...", nargs=-1, shell_complete=complete_symbols)
@redis_url_option
@json_option
def list_(entries: tuple[str, ...], redis_url: str | None, as_json: bool) -> None:
    """Show desired symbols and refused entries with their state and last mid price.

    Without names, all of them. States count only while a daemon runs: without one, the last state
    is shown as what it "was".
    """
    settings = load_settings(redis_url)
    rows, status = asyncio.run(_rows(settings))
    if entries:
        there = {row.symbol for row in rows}
        # A refused entry is named as it was written.
        names = {entry for entry in entries if entry in there}
        names.update(_meant(listed(entry for entry in entries if entry not in names)))
        rows = [row for row in rows if row.symbol in names]
    if status is None:
        click.echo(f"{NO_DAEMON}: states and prices are the last known", err=True)
    if as_json:
        click.echo(msgspec.json.encode(rows))
        return
    if not rows:
        what = "none of these is desired" if entries else "nothing is desired"
        click.echo(f"{what}: spotd symbols add SPY", err=True)
    names_shown = [printable(row.symbol, MAX_ENTRY_CHARS) for row in rows]
    width = max(map(len, names_shown), default=0)
    for name, row in zip(names_shown, rows, strict=True):
        why = why_text(row.reason, row.detail)
        mid = price_text(row.mid_price)
        state = f"was {row.last_state}" if row.last_state else row.state or "-"
        click.echo(f"{name:<{width}}  {printable(state):<11} {mid:>12}  {why}".rstrip())


@symbols.command("who", short_help="Show who asks for symbols.")
@_symbols_argument
@redis_url_option
@json_option
def who(entries: tuple[str, ...], redis_url: str | None, as_json: bool) -> None:
    """Show who asks for symbols: the set, leases with their owners, subscribers.

    The seconds that a lease has left are by the clock of Redis.
    """
    settings = load_settings(redis_url)
    wanted = _meant(listed(entries))
    asked: Sequence[Asked] = asyncio.run(
        _observed(
            settings,
            lambda seen: read_asked(
                seen, wanted, subscribers_are_demand=settings.subscribers_are_demand
            ),
        )
    )
    if as_json:
        click.echo(msgspec.json.encode(asked))
        return
    for each in asked:
        for line in asked_lines(each):
            click.echo(printable(line))


def _meant(entries: Iterable[str]) -> list[str]:
    """Return the symbols that entries mean. The demand may hold ``*``. Raises UsageError."""
    return symbols_meant(entries, allow_wildcard=True)


def _told(done: str, changed: list[str], else_: str, unchanged: list[str]) -> str:
    """Return one line that names the changed symbols and the unchanged ones."""
    parts = [f"{done} {len(changed)}: {', '.join(changed)}"] if changed else []
    parts += [f"{else_}: {', '.join(unchanged)}"] if unchanged else []
    return printable("; ".join(parts), None)


async def _change(
    settings: Settings, change: Callable[[SpotClient], Awaitable[list[str]]]
) -> list[str]:
    async with client_of(settings) as spot:
        return await change(spot)


async def _observed(settings: Settings, read: Callable[[Observer], Coroutine[Any, Any, T]]) -> T:
    async with observer_of(settings) as observer:
        return await read(observer)


async def _stored(observer: Observer) -> set[str]:
    entries = await observer.entries()
    return {entry.decode("utf-8", "backslashreplace") for entry in entries}


async def _answer(
    observer: Observer, wanted: Sequence[str]
) -> tuple[DaemonStatus | None, dict[str, SymbolState]]:
    """Return the daemon's status, and what it said of these symbols before the time was over."""
    states: dict[str, SymbolState] = {}
    loop = asyncio.get_running_loop()
    over = loop.time() + _ANSWER_WITHIN_S
    status = await observer.status()
    while status is not None:
        states = await observer.states(*wanted)
        if all(_is_answered(states.get(name)) for name in wanted) or loop.time() >= over:
            break
        await asyncio.sleep(_READ_AGAIN_S)
    return status, states


def _is_answered(state: SymbolState | None) -> bool:
    return state is not None and state.state != "pending"


async def _rows(settings: Settings) -> tuple[list[Row], DaemonStatus | None]:
    async with client_of(settings) as spot:
        desired, states, last = await spot.desired(), await spot.states(), await spot.latest()
        status = await spot.status()
    # The daemon cuts a long entry in its states. A row has it whole, as it has to be removed.
    told = {name: name[:MAX_ENTRY_CHARS] for name in desired}
    rows = [
        _row(name, states.get(told.get(name, name)), last.get(name), runs=status is not None)
        for name in sorted(desired | (states.keys() - told.values()))
    ]
    return rows, status


def _row(
    symbol: str, state: SymbolState | None, update: SpotPriceUpdate | None, *, runs: bool
) -> Row:
    mid_price = None if update is None else update.mid_price
    if state is None:
        return Row(symbol=symbol, mid_price=mid_price)
    return Row(
        symbol=symbol,
        state=state.state if runs else None,
        mid_price=mid_price,
        reason=state.reason,
        detail=state.detail,
        last_state=None if runs else state.state,
    )
