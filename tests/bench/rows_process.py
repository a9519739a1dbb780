"""Rows about the process itself: at rest, its memory, its start, and many symbols at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from functools import partial

from tests.bench import frames
from tests.bench.bench import BEFORE, MARKET, SOME, Bench
from tests.bench.orders import Process, Worker
from tests.bench.results import Row
from tests.bench.rows_output import probes, spread_since, start_probes
from tests.bench.setup import PRESENT, Program, Setup, cpu_ns, rss_mb

_IDLE_PERCENT = 0.4
_STANDBY_PERCENT = 0.2
_STARTED_S = 5.0  # after that, a daemon has read the trading days
_STARTED_PERCENT = 2.0  # of a core is what a daemon at rest never uses
_MEMORY_MB = 180
_FLAT_MB = 2.0  # growth that still counts as flat
_MEMORY_QUOTES_PER_S = 100_000
_START_S = 2.0
_ADDING_S = 10.0
_PARTS = ("p50", "p99", "max")
_WHEN = ("before", "meanwhile", "while removing")
_KEEPS_MS = 20.0  # p99 of what is live, as at 100,000 quotes/s

_IMPORTS = """
import json, os, time
def rss():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
bare, began = rss(), time.perf_counter()
import alpaca.data.live, alpaca.data.historical, alpaca.data.requests
alpaca_mb, alpaca_s = rss() - bare, time.perf_counter() - began
import spotd.cli, spotd.daemon
try:
    import spotd.cli.main, spotd.daemon.daemon
except ModuleNotFoundError:
    pass  # an older checkout, in which both are modules and no packages
print(json.dumps({"bare_mb": bare, "alpaca_mb": alpaca_mb, "alpaca_s": alpaca_s,
                  "all_mb": rss(), "all_s": time.perf_counter() - began}))
"""


def imports(program: Program = PRESENT) -> dict[str, float]:
    """Return what importing costs, in a new process: time and memory, alpaca-py's share apart."""
    told = subprocess.run(
        [program.python, "-c", _IMPORTS],
        check=True,
        capture_output=True,
        timeout=60,
        env=program.env(),
        cwd=program.python.parent,  # not in a tree, which would be imported first
    ).stdout
    return {name: float(value) for name, value in json.loads(told).items()}


def idle(bench: Bench) -> Row:
    """Measure the CPU time while nothing comes in."""
    row = Row(
        "idle", f"CPU per second while nothing comes in, {SOME} symbols", "under 0.4 % of a core"
    )
    with bench.setup() as setup:
        daemons = [contender.process for contender in bench.daemons(setup, SOME)]
        await_rest(daemons)
        some = bench.each_round(lambda: _at_rest(bench, daemons))
        for daemon in daemons:
            setup.demand(daemon.name, frames.symbols(MARKET))
            setup.settled(daemon.name, daemon)
        market = bench.each_round(lambda: _at_rest(bench, daemons))
    row.reached = row.add("daemon", "%", some["spotd"]).median < _IDLE_PERCENT
    row.add(f"with {MARKET:,} symbols", "%", market["spotd"])
    if BEFORE in some:
        row.add("before", "%", some[BEFORE])
        row.add(f"before with {MARKET:,} symbols", "%", market[BEFORE])
        row.ratio("before / spotd", some[BEFORE], some["spotd"])
        row.ratio(f"with {MARKET:,} symbols", market[BEFORE], market["spotd"])
    return row


def await_rest(processes: list[Process]) -> None:
    """Wait until what new processes still do after their start is done."""
    shares = [100.0]
    while max(shares) > _STARTED_PERCENT:
        cpu = [cpu_ns(process.pid) for process in processes]
        time.sleep(_STARTED_S)
        shares = [
            (cpu_ns(process.pid) - before) / _STARTED_S / 1e7
            for process, before in zip(processes, cpu, strict=True)
        ]


def standby(bench: Bench) -> Row:
    """Measure the CPU time of a standby, beside a leader with symbols."""
    row = Row("standby", "CPU per second of a standby", f"under {_STANDBY_PERCENT:g} % of a core")
    with bench.setup() as setup:
        daemons = []
        for leader in bench.daemons(setup, SOME):
            name = f"{leader.name}-standby"
            keys = {
                "SPOTD_KEY_PREFIX": f"{leader.name}d:",
                "SPOTD_CHANNEL_PREFIX": f"{leader.name}:",
            }
            program = next(each for each in bench.programs if each.name == leader.name)
            daemons.append(setup.daemon(name, [], keys, program=program, ready=False))
        await_rest(daemons)
        values = bench.each_round(lambda: _at_rest(bench, daemons))
        for daemon in daemons:
            daemon.check()
            if setup.source.ask("state", client=daemon.name)["open"]:
                raise RuntimeError(f"{daemon.name} leads")
    row.reached = row.add("standby", "%", values["spotd-standby"]).median < _STANDBY_PERCENT
    if f"{BEFORE}-standby" in values:
        row.add("before", "%", values[f"{BEFORE}-standby"])
        row.ratio("before / spotd", values[f"{BEFORE}-standby"], values["spotd-standby"])
    return row


def _at_rest(bench: Bench, daemons: list[Process]) -> dict[str, float]:
    """Return the share of a core that each daemon uses, all in the same seconds, in percent."""
    time.sleep(1.0)
    cpu, began = [cpu_ns(daemon.pid) for daemon in daemons], time.monotonic_ns()
    time.sleep(bench.plan.idle_s)
    took_ns = time.monotonic_ns() - began
    return {
        daemon.name: 100 * (cpu_ns(daemon.pid) - before) / took_ns
        for daemon, before in zip(daemons, cpu, strict=True)
    }


def memory(bench: Bench) -> Row:
    """Measure the memory while the whole market is busy for minutes."""
    plan = bench.plan
    row = Row(
        "memory",
        f"memory at {MARKET:,} symbols, {_MEMORY_QUOTES_PER_S:,} quotes/s for "
        f"{plan.memory_s / 60:.3g} min",
        f"under {_MEMORY_MB} MB; flat: grows by less than {_FLAT_MB:g} MB after its first quarter",
    )
    with bench.setup() as setup:
        bench.pool(setup, MARKET, 50)
        daemon = bench.spotd(setup, MARKET).process
        samples = _sampled(bench, setup, daemon)
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


def _sampled(bench: Bench, setup: Setup, daemon: Process) -> list[float]:
    seconds = bench.plan.memory_s
    sending = setup.source.order(
        "pace", client="spotd", pool=f"{MARKET}", rate=_MEMORY_QUOTES_PER_S, seconds=seconds
    )
    samples = []
    for second in range(max(4, int(seconds))):
        daemon.check()
        samples.append(rss_mb(daemon.pid))
        if second % 30 == 0:
            bench.say(f"after {second} s: {samples[-1]:.1f} MB")
        time.sleep(1.0)
    setup.source.answer(sending, seconds + 60)
    return samples


def start(bench: Bench) -> Row:
    """Measure the time from the command to the first subscribe."""
    row = Row(
        "start",
        f"`spotd run` to the first subscribe message, {SOME} symbols",
        f"under {_START_S:g} s",
    )
    with bench.setup() as setup:
        values = bench.each_in_turn(
            {program.name: partial(_started, setup, program) for program in bench.programs}
        )
    for name, found in values.items():
        row.add("start" if name == PRESENT.name else f"{name}: start", "s", found["seconds"])
        row.add("of which imports", "s", found["imports"])
        row.add("of which alpaca-py's", "s", found["alpaca"])
    row.reached = row.figures[0].median < _START_S
    if BEFORE in values:
        row.ratio("before / spotd", values[BEFORE]["seconds"], values["spotd"]["seconds"])
    return row


def _started(setup: Setup, program: Program) -> dict[str, float]:
    process = setup.daemon(program.name, frames.symbols(SOME), program=program, ready=False)

    def subscribed_at() -> float:
        state = setup.source.ask("state", client=program.name)
        at = float(state.get("first_subscribe_at") or 0.0)
        return at if at > process.started_at else 0.0

    setup.wait(subscribed_at, "the first subscribe message", process)
    seconds = subscribed_at() - process.started_at
    process.stop()
    share = imports(program)
    return {"seconds": seconds, "imports": share["all_s"], "alpaca": share["alpaca_s"]}


def adding(bench: Bench) -> Row:
    """Measure the whole market that is added at once, beside symbols that are live."""
    row = Row(
        "adding",
        f"adding {MARKET:,} symbols at once, beside {SOME} live ones with {SOME} quotes/s; and "
        "removing them again",
        f"subscribed, acknowledged and priced in under {_ADDING_S:g} s; p99 of the live ones stays "
        f"under {_KEEPS_MS:g} ms, both times",
    )
    with bench.setup() as setup:
        reader = setup.reader()
        measures = {}
        for program in bench.programs:
            names = probes(setup, reader, program.name)
            daemon = setup.daemon(program.name, names, program=program)
            measures[program.name] = partial(_added, bench, setup, daemon, reader)
        of = bench.each_in_turn(measures)
    for name, values in of.items():
        whose = "" if name == PRESENT.name else f"{name}: "
        for what in ("priced", "acknowledged", "removed"):
            row.add(whose + what, "s", values[f"{what}_s"])
        for when in _WHEN:
            for part in _PARTS:
                row.add(f"{whose}{part} {when}", "ms", values[f"{when} {part}"])
    values = of[PRESENT.name]
    kept = max(statistics.median(values[f"{when} p99"]) for when in _WHEN[1:])
    row.reached = statistics.median(values["priced_s"]) < _ADDING_S and kept < _KEEPS_MS
    if BEFORE in of:
        for key in ("priced_s", "removed_s", *(f"{when} p99" for when in _WHEN[1:])):
            row.ratio(f"before / spotd: {key.removesuffix('_s')}", of[BEFORE][key], values[key])
    return row


def _added(bench: Bench, setup: Setup, daemon: Process, reader: Worker) -> dict[str, float]:
    names, client = frames.symbols(MARKET), daemon.name
    time.sleep(1.0)  # the windows that first prices opened have ended
    first = reader.ask("count")["count"]
    setup.source.answer(start_probes(setup, bench.plan.latency_s, client))
    before = spread_since(reader, first)
    sending = start_probes(setup, 6 * _ADDING_S, client)
    first, began = reader.ask("count")["count"], time.monotonic()
    setup.demand(client, names)
    setup.settled(client, daemon, 3 * _ADDING_S)
    priced_s = time.monotonic() - began
    state = setup.source.ask("state", client=client)
    meanwhile = spread_since(reader, first)
    time.sleep(1.0)  # the windows that first prices opened have ended
    first, dropped = reader.ask("count")["count"], time.monotonic()
    setup.drop(client, names)
    setup.settled(client, daemon, 2 * _ADDING_S)
    removed_s = time.monotonic() - dropped
    removing = spread_since(reader, first)
    setup.source.ask("halt")
    setup.source.answer(sending)
    return {
        "priced_s": priced_s,
        "acknowledged_s": state["acknowledged_at"] - began,
        "removed_s": removed_s,
        **{f"before {part}": before[part] for part in _PARTS},
        **{f"meanwhile {part}": meanwhile[part] for part in _PARTS},
        **{f"while removing {part}": removing[part] for part in _PARTS},
    }
