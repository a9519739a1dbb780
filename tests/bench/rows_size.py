"""Rows for sizing: what the daemon, its server and the network carry, by symbols and pace."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import cast

from tests.bench import frames
from tests.bench.bench import MARKET, WINDOWS_S, Bench, Contender
from tests.bench.orders import Worker
from tests.bench.results import Row
from tests.bench.rows_process import await_rest
from tests.bench.setup import Setup, cpu_ns, rss_mb

SIZES = (50, 500, 2_000, MARKET)
_PER_SYMBOL = (1, 5)  # quotes of each symbol in a second
_FRAMES_PER_S = 2_000  # beyond that, a frame holds several quotes, as Alpaca's do


def size(symbols: int) -> Callable[[Bench], Row]:
    """Return the row that measures what this number of symbols takes at each pace."""
    return partial(_row, symbols)


def _row(symbols: int, bench: Bench) -> Row:
    row = Row(
        f"size{symbols}",
        f"{symbols:,} symbols with 1 and 5 quotes/s each, one subscriber of all",
        "none: for sizing",
    )
    with bench.setup() as setup:
        daemon = bench.spotd(setup, symbols)
        reader = setup.reader()
        channels = [f"{daemon.name}:{name}" for name in frames.symbols(symbols)]
        reader.ask("subscribe", channels=channels)
        await_rest([daemon.process])
        measures = {
            f"{each}/s": partial(_measured, bench, setup, daemon, reader, symbols, each)
            for each in _PER_SYMBOL
        }
        for measure in measures.values():
            measure()  # warms up
        values = bench.each_in_turn(measures)
    for pace, found in values.items():
        for name, unit in _UNITS.items():
            row.add(f"{pace}: {name}", unit, found[name])
    return row


def _measured(
    bench: Bench, setup: Setup, daemon: Contender, reader: Worker, symbols: int, each: int
) -> dict[str, float]:
    rate = symbols * each
    per_frame = -(-rate // _FRAMES_PER_S)
    pool = f"{symbols}x{per_frame}"
    made = setup.source.ask(
        "pool", name=pool, symbols=symbols, quotes=symbols * per_frame, per_frame=per_frame
    )
    time.sleep(2 * WINDOWS_S)
    pids = {"daemon": daemon.process.pid, "Redis": setup.server.pid}
    cpu = {name: cpu_ns(pid) for name, pid in pids.items()}
    net, heard = _net(setup), reader.ask("count")["count"]
    sent = setup.source.ask(
        "pace", client=daemon.name, pool=pool, rate=rate, seconds=bench.plan.pace_s, stamp="sent"
    )
    time.sleep(WINDOWS_S)  # the last windows
    seconds, after = float(sent["seconds"]), _net(setup)
    found = {name: (cpu_ns(pid) - cpu[name]) / seconds / 1e7 for name, pid in pids.items()}
    frame_bytes = made["bytes"] / made["frames"]
    return {
        "daemon": found["daemon"],
        "daemon's memory": rss_mb(daemon.process.pid),
        "Redis": found["Redis"],
        "Redis' memory": int(_info(setup, "memory")["used_memory"]) / 1e6,
        "from Alpaca": sent["quotes"] / per_frame * frame_bytes / seconds / 1e3,
        "to Redis": (after[0] - net[0]) / seconds / 1e3,
        "from Redis": (after[1] - net[1]) / seconds / 1e3,
        "updates": (reader.ask("count")["count"] - heard) / seconds,
    }


_UNITS = {
    "daemon": "%",
    "daemon's memory": "MB",
    "Redis": "%",
    "Redis' memory": "MB",
    "from Alpaca": "kB/s",
    "to Redis": "kB/s",
    "from Redis": "kB/s",
    "updates": "/s",
}


def _net(setup: Setup) -> tuple[int, int]:
    """Return the bytes that the server has received and sent."""
    stats = _info(setup, "stats")
    return int(stats["total_net_input_bytes"]), int(stats["total_net_output_bytes"])


def _info(setup: Setup, section: str) -> dict[str, int]:
    return cast("dict[str, int]", setup.redis.info(section))
