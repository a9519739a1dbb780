"""Rows about the process itself: at rest, its memory, its start, and many symbols at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

from tests.bench import frames
from tests.bench.bench import MARKET, SOME, Bench
from tests.bench.orders import Process, Worker
from tests.bench.results import Row
from tests.bench.rows_output import probes, spread_since, start_probes
from tests.bench.world import World, cpu_ns, rss_mb

_MEMORY_MB = 180
_FLAT_MB = 2.0  # growth that still counts as flat
_MEMORY_QUOTES_PER_S = 100_000
_START_S = 2.0
_ADDING_S = 10.0
_PARTS = ("p50", "p99", "max")
_KEEPS_MS = 20.0  # p99 of what is live, as at 100,000 quotes/s

_IMPORTS = """
import json, os, time
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
bare, began = rss(), time.perf_counter()
import alpaca.data.live, alpaca.data.historical, alpaca.data.requests
alpaca_mb, alpaca_s = rss() - bare, time.perf_counter() - began
import spotd.cli, spotd.daemon
print(json.dumps({"bare_mb": bare, "alpaca_mb": alpaca_mb, "alpaca_s": alpaca_s,
                  "all_mb": rss(), "all_s": time.perf_counter() - began}))
"""


def imports() -> dict[str, float]:
    """What importing costs, in a new process: time and memory, alpaca-py's share apart."""
    told = subprocess.run(
        [sys.executable, "-c", _IMPORTS], check=True, capture_output=True, timeout=60
    ).stdout
    return {name: float(value) for name, value in json.loads(told).items()}


def idle(bench: Bench) -> Row:
    """Nothing comes in."""
    row = Row(
        "idle", f"CPU per second while nothing comes in, {SOME} symbols", "under 1 % of a core"
    )
    with bench.world() as world:
        daemon = bench.spotd(world, SOME).process
        some = bench.each_round(lambda: _at_rest(bench, daemon))
        world.demand("spotd", frames.symbols(MARKET))
        world.settled("spotd", daemon)
        market = bench.each_round(lambda: _at_rest(bench, daemon))
    row.reached = row.add("daemon", "%", some["share"]).median < 1.0
    row.add(f"with {MARKET:,} symbols", "%", market["share"])
    return row


def _at_rest(bench: Bench, daemon: Process) -> dict[str, float]:
    time.sleep(1.0)
    cpu, began = cpu_ns(daemon.pid), time.monotonic_ns()
    time.sleep(bench.plan.idle_s)
    return {"share": 100 * (cpu_ns(daemon.pid) - cpu) / (time.monotonic_ns() - began)}


def memory(bench: Bench) -> Row:
    """The whole market, busy for minutes."""
    plan = bench.plan
    row = Row(
        "memory",
        f"memory at {MARKET:,} symbols, {_MEMORY_QUOTES_PER_S:,} quotes/s for "
        f"{plan.memory_s / 60:.3g} min",
        f"under {_MEMORY_MB} MB; flat: grows by less than {_FLAT_MB:g} MB after its first quarter",
    )
    with bench.world() as world:
        bench.pool(world, MARKET, 50)
        daemon = bench.spotd(world, MARKET).process
        samples = _sampled(bench, world, daemon)
    quarter = max(1, len(samples) // 4)
    settled, end = samples[quarter : 2 * quarter], samples[-quarter:]
    most = row.add("most", "MB", [max(samples)])
    grew = row.add(
        "growth from the second quarter to the last", "MB",
        [statistics.median(end) - statistics.median(settled)],
    )  # fmt: skip
    share = imports()
    row.add("of which alpaca-py and what it imports", "MB", [share["alpaca_mb"]])
    row.add("all imports", "MB", [share["all_mb"]])
    if plan.memory_s < 600:
        row.notes.append("shorter than the 10 min aimed at: --memory-minutes 10")
    row.series["rss_mb"] = samples
    row.reached = most.median < _MEMORY_MB and grew.median < _FLAT_MB
    return row


def _sampled(bench: Bench, world: World, daemon: Process) -> list[float]:
    seconds = bench.plan.memory_s
    sending = world.feed.order(
        "pace", client="spotd", pool=f"{MARKET}", rate=_MEMORY_QUOTES_PER_S, seconds=seconds
    )
    samples = []
    for second in range(max(4, int(seconds))):
        daemon.check()
        samples.append(rss_mb(daemon.pid))
        if second % 30 == 0:
            bench.say(f"after {second} s: {samples[-1]:.1f} MB")
        time.sleep(1.0)
    world.feed.answer(sending, seconds + 60)
    return samples


def start(bench: Bench) -> Row:
    """From the command to the first subscribe."""
    row = Row(
        "start",
        f"`spotd run` to the first subscribe message, {SOME} symbols",
        f"under {_START_S:g} s",
    )
    with bench.world() as world:
        values = bench.each_round(lambda: _started(world))
    took = row.add("start", "s", values["seconds"])
    row.add("of which imports", "s", values["imports"])
    row.add("of which alpaca-py's", "s", values["alpaca"])
    row.reached = took.median < _START_S
    return row


def _started(world: World) -> dict[str, float]:
    process = world.daemon("spotd", frames.symbols(SOME), ready=False)

    def subscribed_at() -> float:
        state = world.feed.ask("state", client="spotd")
        at = float(state.get("first_subscribe_at") or 0.0)
        return at if at > process.started_at else 0.0

    world.wait(subscribed_at, "the first subscribe message", process)
    seconds = subscribed_at() - process.started_at
    process.stop()
    share = imports()
    return {"seconds": seconds, "imports": share["all_s"], "alpaca": share["alpaca_s"]}


def adding(bench: Bench) -> Row:
    """The whole market at once, beside symbols that are live."""
    row = Row(
        "adding",
        f"adding {MARKET:,} symbols at once, beside {SOME} live ones with {SOME} quotes/s; and "
        "removing them again",
        f"subscribed, acknowledged and primed in under {_ADDING_S:g} s; p99 of the live ones stays "
        f"under {_KEEPS_MS:g} ms, both times",
    )
    with bench.world() as world:
        reader = world.reader()
        daemon = world.daemon("spotd", probes(world, reader))
        values = bench.each_round(lambda: _added(bench, world, daemon, reader))
    primed = row.add("primed", "s", values["primed_s"])
    row.add("acknowledged", "s", values["acknowledged_s"])
    row.add("removed", "s", values["removed_s"])
    for when in ("before", "meanwhile", "while removing"):
        for part in _PARTS:
            row.add(f"{part} {when}", "ms", values[f"{when} {part}"])
    kept = max(statistics.median(values[f"{when} p99"]) for when in ("meanwhile", "while removing"))
    row.reached = primed.median < _ADDING_S and kept < _KEEPS_MS
    return row


def _added(bench: Bench, world: World, daemon: Process, reader: Worker) -> dict[str, float]:
    names = frames.symbols(MARKET)
    time.sleep(1.0)  # the windows that first prices opened have ended
    first = reader.ask("count")["count"]
    world.feed.answer(start_probes(world, bench.plan.latency_s))
    before = spread_since(reader, first)
    sending = start_probes(world, 6 * _ADDING_S)
    first, began = reader.ask("count")["count"], time.monotonic()
    world.demand("spotd", names)
    world.settled("spotd", daemon, 3 * _ADDING_S)
    primed_s = time.monotonic() - began
    state = world.feed.ask("state", client="spotd")
    meanwhile = spread_since(reader, first)
    time.sleep(1.0)  # the windows that first prices opened have ended
    first, dropped = reader.ask("count")["count"], time.monotonic()
    world.drop("spotd", names)
    world.settled("spotd", daemon, 2 * _ADDING_S)
    removed_s = time.monotonic() - dropped
    removing = spread_since(reader, first)
    world.feed.ask("halt")
    world.feed.answer(sending)
    return {
        "primed_s": primed_s,
        "acknowledged_s": state["acknowledged_at"] - began,
        "removed_s": removed_s,
        **{f"before {part}": before[part] for part in _PARTS},
        **{f"meanwhile {part}": meanwhile[part] for part in _PARTS},
        **{f"while removing {part}": removing[part] for part in _PARTS},
    }
