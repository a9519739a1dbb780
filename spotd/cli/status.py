"""``spotd status``: what the daemon and its demand are like, and what to do about it.

Reads Redis. Must write nothing.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

import click

from spotd.cli.options import (
    json_option,
    load_settings,
    observer_of,
    redis_url_option,
    until_stopped,
)
from spotd.cli.overview import Overview, read_overview
from spotd.cli.overview_text import lines_of
from spotd.errors import SpotdError
from spotd.settings import Settings

_EVERY_S = 2.0
_PAUSE_PER_READ = 20.0  # a refresh is at most 5 % of the time, however large the demand is


@click.command()
@redis_url_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.2, 3600),
    default=_EVERY_S,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: the pause between two refreshes.",
)
def status(redis_url: str | None, as_json: bool, watch: bool, every_s: float) -> None:
    """Show the daemon, its market and its demand, what is wrong, and what to do.

    Exit codes: 0 a daemon leads and works (idle or streaming); 1 none does, or Redis does not
    answer; 2 wrong usage or settings. With --watch: 0 asked to stop.
    """
    settings = load_settings(redis_url)
    if watch:
        until_stopped(lambda: _watch(settings, every_s, as_json=as_json))
        return
    seen = asyncio.run(_once(settings))
    if as_json:
        click.echo(seen.to_json())
    elif seen.away is not None:
        raise SpotdError(seen.away)
    else:
        click.echo(_text(seen))
    raise click.exceptions.Exit(0 if seen.ready else 1)


async def _once(settings: Settings) -> Overview:
    observer = observer_of(settings)
    try:
        return await read_overview(observer)
    finally:
        await observer.close()


async def _watch(settings: Settings, every_s: float, *, as_json: bool) -> None:
    observer = observer_of(settings)
    loop = asyncio.get_running_loop()
    on_terminal = sys.stdout.isatty() and not as_json
    screen: AbstractContextManager[Callable[[str], None]]
    screen = _live() if on_terminal else nullcontext(lambda text: click.echo(f"{text}\n"))
    try:
        with screen as show:
            while True:
                began = loop.time()
                seen = await read_overview(observer)
                if as_json:
                    click.echo(seen.to_json())
                else:
                    show(_text(seen))
                spent_s = loop.time() - began
                await asyncio.sleep(max(every_s, _PAUSE_PER_READ * spent_s))
    finally:
        await observer.close()


def _text(seen: Overview) -> str:
    return "\n".join(line.styled() for line in lines_of(seen, datetime.now(UTC)))


def _live() -> AbstractContextManager[Callable[[str], None]]:
    """Return a screen of its own. It is left when the context ends, and the last text stays."""
    from spotd.cli.live_screen import live_screen  # noqa: PLC0415 - loads rich

    return live_screen()
