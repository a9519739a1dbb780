"""``spotd status``: what the daemon and its demand are like, and what to do about it.

Reads Redis. Must write nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click

from spotd.cli.options import (
    Number,
    json_option,
    load_settings,
    observer_of,
    redis_url_option,
    until_stopped,
)
from spotd.cli.overview import Overview, read_overview
from spotd.cli.overview_text import NAME_CELLS, lines_of
from spotd.cli.screen.escapes import styled
from spotd.cli.screen.styles import Line
from spotd.cli.screen.terminal import colours_wanted, has_screen
from spotd.cli.screen.text import text_screen
from spotd.redis.observer import Observer
from spotd.settings import Settings

_EVERY_S = 2.0
_PAUSE_PER_READ = 20.0  # a refresh is at most 5 % of the time, however large the demand is


@click.command()
@redis_url_option
@json_option
@click.option("--watch", is_flag=True, help="Show it again and again, until q or Ctrl-C.")
@click.option(
    "--every",
    "every_s",
    type=Number(0.2, 3600),
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
    else:
        click.echo(_text(seen))
    raise click.exceptions.Exit(0 if seen.ready else 1)


async def _once(settings: Settings) -> Overview:
    async with observer_of(settings) as observer:
        return await read_overview(observer)


async def _watch(settings: Settings, every_s: float, *, as_json: bool) -> None:
    async with observer_of(settings) as observer:
        if has_screen() and not as_json:
            await _on_screen(observer, every_s)
            return
        async for seen in _again(observer, every_s):
            click.echo(seen.to_json() if as_json else f"{_text(seen)}\n")


async def _on_screen(observer: Observer, every_s: float) -> None:
    task = asyncio.current_task()
    if task is None:
        raise AssertionError("it runs in a task, which the user may cancel")
    with text_screen(task.cancel, NAME_CELLS) as show:
        async for seen in _again(observer, every_s):
            show(_lines(seen))


async def _again(observer: Observer, every_s: float) -> AsyncIterator[Overview]:
    loop = asyncio.get_running_loop()
    while True:
        began = loop.time()
        yield await read_overview(observer)
        await asyncio.sleep(max(every_s, _PAUSE_PER_READ * (loop.time() - began)))


def _lines(seen: Overview) -> list[Line]:
    return [told.line for told in lines_of(seen, datetime.now(UTC))]


def _text(seen: Overview) -> str:
    """Return the text. On a terminal it has colours; elsewhere `click.echo` removes them."""
    return "\n".join(styled(line, colours=colours_wanted()) for line in _lines(seen))
