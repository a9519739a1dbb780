"""``spotd watch``: prices as they arrive. Talks to Redis; demands the named symbols by leases.

On a terminal it shows the screen, which ``spotd.cli.screen`` draws. Otherwise it writes lines.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import click

from spotd.cli.options import (
    POSITIVE,
    client_of,
    json_option,
    listed,
    load_settings,
    redis_url_option,
    symbols_meant,
    until_stopped,
)
from spotd.cli.screen.show import show
from spotd.cli.screen.terminal import has_screen
from spotd.cli.table import LAST_KNOWN, event_line, price_line, state_text
from spotd.client import SpotClient
from spotd.client.tasks import until_first_ends
from spotd.errors import RedisUnavailableError, SpotdError
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate
from spotd.settings import Settings

_PRESENCE_S = 2.0  # between two checks for a daemon, whose status lapses after 10 s


@click.command()
@click.argument("entries", metavar="[SYMBOL]...", nargs=-1)
@click.option("--seconds", type=POSITIVE, help="End after this many seconds.")
@click.option("--count", type=click.IntRange(min=1), help="End after this many updates.")
@json_option
@redis_url_option
def watch(
    entries: tuple[str, ...],
    seconds: float | None,
    count: int | None,
    redis_url: str | None,
    *,
    as_json: bool,
) -> None:
    """Watch prices as they arrive.

    The command demands the named symbols while it runs. Without names it shows the symbols that
    are streamed now, and demands none. On a terminal it shows a screen, of at most 2,000 symbols
    that nobody named, and tells how many more there are: press ? for its keys.
    In a pipe, with --count or with --json, it writes one line per update, and abnormal states on
    stderr. q, Ctrl-C and SIGTERM end it with exit code 0.
    """
    settings = load_settings(redis_url)
    symbols = symbols_meant(listed(entries))
    if has_screen() and count is None and not as_json:
        until_stopped(lambda: _screen(settings, symbols, seconds))
    else:
        line_of = json_line if as_json else price_line
        until_stopped(lambda: _stream(settings, symbols, seconds, count, line_of))


def json_line(update: SpotPriceUpdate) -> str:
    """Return an update as it was published."""
    return update.to_json().decode()


async def _screen(settings: Settings, symbols: list[str], seconds: float | None) -> None:
    async with client_of(settings) as spot:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await show(spot, symbols, everything=not symbols)


async def _stream(
    settings: Settings,
    symbols: list[str],
    seconds: float | None,
    count: int | None,
    line_of: Callable[[SpotPriceUpdate], str],
) -> None:
    async with client_of(settings) as spot:
        demand = bool(symbols)
        if not demand:
            symbols = [symbol for symbol, update in (await spot.latest()).items() if update]
        if not symbols:
            raise SpotdError("nothing is streamed here: name symbols, as in `spotd watch SPY`")
        with suppress(TimeoutError):
            async with (
                asyncio.timeout(seconds),
                aclosing(spot.updates(*symbols, demand=demand)) as updates,
            ):
                await _lines(spot, symbols, _first(count, updates), line_of)


async def _first(
    count: int | None, updates: AsyncIterator[SpotPriceUpdate]
) -> AsyncIterator[SpotPriceUpdate]:
    """Yield updates, at most ``count`` of them."""
    taken = 0
    async for update in updates:
        yield update
        taken += 1
        if taken == count:
            return


async def _lines(
    spot: SpotClient,
    symbols: list[str],
    updates: AsyncIterator[SpotPriceUpdate],
    line_of: Callable[[SpotPriceUpdate], str],
) -> None:
    shown = frozenset(symbols)
    last: dict[str | None, str] = {}  # what was said of each symbol, and under None of the daemon

    def no_daemon() -> None:
        if last.get(None) != LAST_KNOWN:
            last[None] = LAST_KNOWN
            click.echo(LAST_KNOWN, err=True)

    async def take_prices() -> None:
        async for update in updates:
            click.echo(line_of(update))

    async def take_states() -> None:
        async for event in spot.events():
            if isinstance(event, Gap):
                click.echo(event_line(event), err=True)
                continue
            symbol = None if isinstance(event, DaemonStatus) else event.symbol
            if symbol is not None and symbol not in shown:
                continue
            said = state_text(event)
            # A normal state is shown only after one that was not normal.
            before = last.setdefault(symbol, "")
            if said == before or (not before and event.state in _NORMAL):
                continue
            last[symbol] = said
            click.echo(event_line(event), err=True)

    if await spot.status() is None:
        no_daemon()  # before the first price
    await until_first_ends(
        {
            "watch-prices": take_prices(),
            "watch-states": take_states(),
            "watch-daemon": _check_for_daemon(spot, no_daemon),
        }
    )


_NORMAL = ("pending", "live", "starting", "connecting", "streaming", "idle")


async def _check_for_daemon(spot: SpotClient, missing: Callable[[], None]) -> None:
    """Call ``missing`` at each check that finds no status. A crash announces nothing."""
    while True:
        with suppress(RedisUnavailableError):  # the prices join again by themselves
            if await spot.status() is None:
                missing()
        await asyncio.sleep(_PRESENCE_S)
