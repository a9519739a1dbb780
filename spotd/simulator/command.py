"""`spotd simulate`: the simulated Alpaca alone, until it is told to stop.

Talks to the terminal. Every knob is a flag. The name and the help of a flag come from its field.
"""

import asyncio
import signal
import time
from collections.abc import Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

import click

from spotd.simulator.knobs import Faults, Limits, MarketModel, meanings
from spotd.simulator.messages import FEEDS
from spotd.simulator.replay import NothingToPlayError, Replay
from spotd.simulator.server import Simulator

PROGRESS_S = 5.0
_GROUPS: dict[str, type[Limits | Faults | MarketModel]] = {
    "market": MarketModel,
    "limits": Limits,
    "faults": Faults,
}
_FLAG_OF = {"limits.symbols": "symbols-limit", "limits.count": "symbols-count"}
_DEFAULT_OF = {"limits.dead_session_hold_s": 90.0}


def _flag(group: str, name: str) -> str:
    """Return a knob's flag: `dead_session_hold_s` is `dead-session-hold`. A rate keeps its unit."""
    if f"{group}.{name}" in _FLAG_OF:
        return _FLAG_OF[f"{group}.{name}"]
    if name.endswith("_s") and not name.endswith("_per_s"):
        name = name[:-2]
    return name.replace("_", "-")


def _option(group: str, knob: Field[Any], meaning: str) -> click.Option:
    """Return the option of a knob."""
    flag, dest = f"--{_flag(group, knob.name)}", f"{group}_{knob.name}"
    if knob.name.endswith("_s") and not knob.name.endswith("_per_s"):
        meaning = f"{meaning.rstrip('.')}; seconds."
    default = _DEFAULT_OF.get(f"{group}.{knob.name}", knob.default)
    if default is True:
        return click.Option([f"{flag}/--no-{flag[2:]}", dest], default=True, help=meaning)
    if default is False:
        return click.Option([flag, dest], is_flag=True, help=meaning)
    if knob.type is str:
        kind: Any = click.Choice(["entries", "symbols"])
    elif isinstance(default, float):
        kind = click.FloatRange(0, 1 if knob.name.endswith("_p") else None)
    elif knob.name == "seed":
        kind = click.INT
    elif isinstance(default, int) or default is None:
        kind = click.IntRange(0)
    else:
        meaning = f"{meaning} Comma-separated."
        return click.Option([flag, dest], default="", metavar="NAMES", help=meaning)
    return click.Option(
        [flag, dest], type=kind, default=default, help=meaning, show_default=default is not None
    )


class _Simulate(click.Command):
    """A command whose help lists its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each option in the section that its name begins with."""
        sections: dict[str, list[tuple[str, str]]] = {"options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            group = (parameter.name or "").partition("_")[0]
            if record is not None:
                sections.setdefault(group if group in _GROUPS else "options", []).append(record)
        for section, records in sections.items():
            with formatter.section(section.capitalize()):
                formatter.write_dl(records)


@click.command(cls=_Simulate)
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=0, help="The port; 0: any free port."
)
@click.option("--key", default="demo-key", show_default=True, help="The key that is accepted.")
@click.option("--secret", default="demo-secret", show_default=True, help="Its secret.")
@click.option(
    "--feed-entitlements",
    default=",".join(FEEDS),
    show_default=True,
    help="Feeds of the plan, comma-separated; others are refused with 409.",
)
@click.option(
    "--replay",
    type=click.Path(exists=True, dir_okay=False, readable=True, path_type=Path),
    help="Play this file instead of the market: Alpaca messages as JSON lines, plain or .gz.",
)
@click.option(
    "--speed",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    help="Play this many times faster; 0: as fast as clients read.",
)
@click.option("--loop", is_flag=True, help="Play the file again and again.")
@click.option("--at-once", is_flag=True, help="Play without waiting for a subscriber.")
@click.option("--no-market", is_flag=True, help="Send nothing, and have no prices.")
@click.option("--seconds", type=click.FloatRange(0), help="Stop after this many seconds.")
def simulate(
    host: str,
    port: int,
    key: str,
    secret: str,
    feed_entitlements: str,
    replay: Path | None,
    seconds: float | None,
    **flags: Any,
) -> None:
    """Simulate Alpaca's stock stream and REST on this machine.

    It prints the settings that point spotd to it. Every fault has a flag. A flag that ends in `-p`
    takes a probability.
    """
    playing = (
        Replay(replay, flags["speed"], flags["loop"], await_subscriber=not flags["at_once"])
        if replay
        else None
    )
    market = MarketModel(**_of_group("market", flags))
    try:
        simulator = Simulator(
            host,
            port,
            keys={key: secret},
            feeds=_names(feed_entitlements),
            limits=Limits(**_of_group("limits", flags)),
            faults=Faults(**_of_group("faults", flags)),
            market=None if playing or flags["no_market"] else market,
            replay=playing,
        )
    except ValueError as problem:
        raise click.UsageError(str(problem)) from problem
    try:
        asyncio.run(serve(simulator, seconds))
    except NothingToPlayError as problem:
        raise click.UsageError(str(problem)) from problem


for _group, _knobs in _GROUPS.items():
    simulate.params.extend(_option(_group, knob, meaning) for knob, meaning in meanings(_knobs))


def _names(given: str) -> list[str]:
    return [each.strip() for each in given.split(",") if each.strip()]


def _of_group(group: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs of one group from their flags."""
    knobs = {}
    for knob, _ in meanings(_GROUPS[group]):
        value = flags[f"{group}_{knob.name}"]
        knobs[knob.name] = set(_names(value)) if knob.type == set[str] else value
    return knobs


async def serve(
    simulator: Simulator, seconds: float | None, progress_s: float = PROGRESS_S
) -> None:
    """Serve until SIGINT, SIGTERM or SIGHUP, the given time, or a failure, which is raised."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN or number is not signal.SIGHUP:
            loop.add_signal_handler(number, asked.set)
    try:
        await simulator.start()
    except (OSError, UnicodeError) as problem:  # a host name may be none that can be looked up
        raise click.UsageError(str(problem)) from problem
    try:
        _print_settings(simulator)
        failed = asyncio.create_task(simulator.failed(), name="simulator: failures")
        progress = asyncio.create_task(
            _show_progress(simulator, progress_s), name="simulator: progress"
        )
        stop = asyncio.create_task(asked.wait(), name="simulator: signals")
        tasks = {failed, progress, stop}
        done, _ = await asyncio.wait(tasks, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks - done:
            task.cancel()
        await asyncio.wait(tasks)
        for task in done:
            task.result()
    finally:
        await simulator.stop()
    click.echo(_progress(simulator), err=True)


def _print_settings(simulator: Simulator) -> None:
    """Print the settings that make spotd use this simulator, ready for a `.env` file."""
    feed = simulator.feeds[0] if simulator.feeds else "iex"
    for key, secret in simulator.keys.items():
        click.echo(f"SPOTD_STREAM_URL={simulator.stream_url(feed)}")
        click.echo(f"SPOTD_DATA_URL={simulator.data_url}")
        click.echo(f"SPOTD_FEED={feed}")
        click.echo(f"ALPACA_API_KEY={key}")
        click.echo(f"ALPACA_SECRET_KEY={secret}")


async def _show_progress(simulator: Simulator, every_s: float) -> None:
    """Print a line on stderr in each period, and first one about malformed lines of a replay."""
    replay = simulator.replay
    if replay:
        await simulator.wait_for(lambda: replay.scanned, timeout_s=3600.0)
        if replay.malformed:
            first = replay.first_malformed
            left_out = _number(replay.malformed, "malformed line")
            click.echo(f"{left_out} left out; first {first}", err=True)
    while True:
        await asyncio.sleep(every_s)
        click.echo(_progress(simulator), err=True)


def _progress(simulator: Simulator) -> str:
    """Return the counts so far, in one line."""
    stats, replay = simulator.stats, simulator.replay
    symbols = set().union(*(one.quotes | one.trades for one in simulator.sessions))
    parts = [
        time.strftime("%H:%M:%S"),
        _number(len(simulator.sessions), "session"),
        _number(len(symbols), "symbol"),
        _number(stats.quotes_sent, "quote"),
        _number(stats.trades_sent, "trade"),
        _number(stats.rest_requests, "REST request"),
    ]
    if replay:
        at = replay.sent - replay.rounds * replay.total
        parts.append(f"replay {at:,}/{replay.total:,}, rounds done {replay.rounds}")
    if stats.refused:
        parts.append("refused " + " ".join(f"{code}x{n}" for code, n in stats.refused.items()))
    return ", ".join(parts)


def _number(count: int, noun: str) -> str:
    return f"{count:,} {noun}" + ("" if count == 1 else "s")
