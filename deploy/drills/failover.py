#!/usr/bin/env python3
"""Fail-over drill: end the leader, and print how long prices were missing and who leads now.

It watches one symbol as any consumer does, and needs two daemons, the leader and a standby::

    python deploy/drills/failover.py SPY                          # asks you to end the leader
    python deploy/drills/failover.py SPY --run 'kill -9 {pid}'    # ends it by itself
    python deploy/drills/failover.py SPY --run 'kill -STOP {pid}' --afterwards 'kill -CONT {pid}'
    python deploy/drills/failover.py SPY --run 'kubectl delete pod {host}' --at-most-s 5

`{pid}` and `{host}` are those of the leader. Redis is found by the settings of spotd
(SPOTD_REDIS_URL, SPOTD_KEY_PREFIX, SPOTD_CHANNEL_PREFIX), so server, Sentinel and cluster work.
Exit codes: 0 another daemon leads and prices go on; 1 they do not, or they were missing for longer
than `--at-most-s`; 2 wrong usage or settings. Choose a symbol that trades all the time: between
two of its own prices nobody can tell whether one is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from itertools import pairwise

from spotd import DaemonStatus, Gap, SpotClient, SpotdError
from spotd.settings import Settings

CHECK_EVERY_S = 0.02
GAP_WAIT_S = 5.0  # the gap is told with the first prices, or soon after


class DrillError(Exception):
    """The drill cannot begin, or the fail-over did not happen."""


class Watch:
    """What one consumer sees. Prices arrive at monotonic times, events by their content."""

    def __init__(self) -> None:
        self.prices_at: list[float] = []
        self.gaps: list[Gap] = []
        self.status: DaemonStatus | None = None
        self.said: list[str] = []  # states of daemons, each change once

    async def take_prices(self, spot: SpotClient, symbol: str) -> None:
        """Note when each new price arrives. The first one may be an old one that was stored."""
        async for _ in spot.updates(symbol):
            self.prices_at.append(time.monotonic())

    async def take_events(self, spot: SpotClient) -> None:
        """Keep the newest status, and each gap."""
        async for event in spot.events():
            if isinstance(event, Gap):
                self.gaps.append(event)
            elif isinstance(event, DaemonStatus):
                self.status = event
                said = f"{event.instance} {event.state}"
                said += "" if event.reason is None else f": {event.code}: {event.reason}"
                if said not in self.said[-1:]:
                    self.said.append(said)

    def longest_pause_s(self, since: float) -> float:
        """Return the longest time without a price that ended after ``since``."""
        pauses = (b - a for a, b in pairwise(self.prices_at) if b > since)
        return max(pauses, default=0.0)


async def drill(args: argparse.Namespace, settings: Settings) -> float:
    """Run the drill, and print what is seen. Return for how many seconds prices were missing."""
    async with SpotClient(
        settings.redis_url.get_secret_value(),
        key_prefix=settings.key_prefix,
        channel_prefix=settings.channel_prefix,
    ) as spot:
        if await spot.status() is None:
            raise DrillError("no daemon runs here")
        async with watching(spot, args.symbol) as watch:
            return await fail_over(args, watch)


async def fail_over(args: argparse.Namespace, watch: Watch) -> float:
    """End the leader, and print what follows. Return for how many seconds prices were missing."""
    leader, usual_s = await calm(args, watch)
    ended_at, gaps_before, said_before = time.monotonic(), len(watch.gaps), len(watch.said)
    await end_leader(args.run, leader)

    def replaced() -> bool:
        now = watch.status
        return now is not None and now.instance != leader.instance and now.state == "streaming"

    await until(replaced, args.limit_s, f"nobody replaced {leader.instance}")
    streaming_at = time.monotonic()
    await until(
        lambda: watch.prices_at[-1] > streaming_at,
        args.limit_s,
        f"the new leader streams, and no price of {args.symbol} came",
    )
    gap = await first_gap(watch, gaps_before)
    missing_s = watch.longest_pause_s(ended_at)
    show("prices missing", f"{missing_s:.2f} s (usually {usual_s:.2f} s between two prices)")
    show("gap event", "none was told" if gap is None else gap_text(gap))
    for said in watch.said[said_before:]:
        show("was said", said)
    show("leader now", "" if watch.status is None else watch.status.instance)
    if args.afterwards:
        await run(args.afterwards, leader)
    return missing_s


@asynccontextmanager
async def watching(spot: SpotClient, symbol: str) -> AsyncIterator[Watch]:
    """Yield what is seen from now on."""
    watch = Watch()
    tasks = [
        asyncio.create_task(watch.take_prices(spot, symbol), name="prices"),
        asyncio.create_task(watch.take_events(spot), name="events"),
    ]
    try:
        yield watch
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def calm(args: argparse.Namespace, watch: Watch) -> tuple[DaemonStatus, float]:
    """Return the leader, and the longest pause between prices while nothing is wrong."""
    # The stored price may be old. Those behind it were published while we watched.
    await until(lambda: len(watch.prices_at) > 1, args.limit_s, f"no price of {args.symbol} came")
    begun = watch.prices_at[1]
    await asyncio.sleep(args.before_s)
    usual_s = watch.longest_pause_s(begun)
    leader = watch.status
    if leader is None:
        raise DrillError("the daemon ended by itself")
    show("leader", f"{leader.instance}, {leader.state}, {leader.symbols.live} symbols live")
    return leader, usual_s


async def end_leader(command: str | None, leader: DaemonStatus) -> None:
    """End the leader, or have a person end it."""
    if command is None:
        show("to do", f"end {leader.instance} now (watching)")
        return
    show("ended at", f"{datetime.now(UTC):%H:%M:%S.%f} UTC")
    await run(command, leader)


async def run(command: str, leader: DaemonStatus) -> None:
    """Run a command of the operator's. Raise DrillError if it fails."""
    host, pid, _ = leader.instance.rsplit("-", 2)
    text = command.replace("{pid}", pid).replace("{host}", host)
    show("run", text)
    process = await asyncio.create_subprocess_shell(text)
    if code := await process.wait():
        raise DrillError(f"exit code {code}: {text}")


async def first_gap(watch: Watch, before: int) -> Gap | None:
    """Return the gap that was told, or None."""
    with suppress(DrillError):
        await until(lambda: len(watch.gaps) > before, GAP_WAIT_S, "no gap")
    return watch.gaps[before] if len(watch.gaps) > before else None


async def until(condition: Callable[[], object], limit_s: float, failure: str) -> None:
    """Wait for a condition. Raise DrillError after the limit."""
    ends = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() >= ends:
            raise DrillError(f"{failure} within {limit_s:g} s")
        await asyncio.sleep(CHECK_EVERY_S)


def gap_text(gap: Gap) -> str:
    """Return a gap for a person."""
    lasted_s = (gap.ends - gap.begins).total_seconds()
    return (
        f"{gap.begins:%H:%M:%S.%f} to {gap.ends:%H:%M:%S.%f} UTC ({lasted_s:.2f} s), "
        f"{gap.symbols} symbols, {gap.code}: {gap.reason}"
    )


def show(name: str, value: str) -> None:
    """Print one line of the report."""
    sys.stdout.write(f"{name:<16}{value}\n")
    sys.stdout.flush()


def parsed(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("symbol", help="the symbol to watch; it is demanded meanwhile")
    parser.add_argument("--run", metavar="COMMAND", help="how to end the leader; default: ask you")
    parser.add_argument("--afterwards", metavar="COMMAND", help="what to run at the end")
    parser.add_argument(
        "--before-s", type=float, default=3.0, help="how long to watch first (default: 3)"
    )
    parser.add_argument(
        "--limit-s",
        type=float,
        default=180.0,
        help="how long to wait for each step (default: 180; Alpaca may hold a dead session for 90)",
    )
    parser.add_argument("--at-most-s", type=float, help="fail if prices were missing for longer")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the drill. Return its exit code."""
    args = parsed()
    try:
        missing_s = asyncio.run(drill(args, Settings.load()))
    except SpotdError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except (DrillError, ValueError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    if args.at_most_s is not None and missing_s > args.at_most_s:
        sys.stderr.write(f"prices were missing for longer than {args.at_most_s:g} s\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
