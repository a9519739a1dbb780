"""Rows about quotes coming in: what one costs, against both baselines and over the market."""

from __future__ import annotations

import time

from tests.bench.bench import BEFORE, MARKET, SOME, WINDOWS_S, Bench, Burst, Contender, costs_us
from tests.bench.results import Row
from tests.bench.setup import Setup, cpu_ns

_PACED_PER_S = 5_000
_SILENT = {"SPOTD_THROTTLE_MS": "60000"}


def batched(bench: Bench) -> Row:
    """50 quotes per frame."""
    return _against_baselines(bench, "batched", per_frame=50, times=40)


def single(bench: Bench) -> Row:
    """One quote per frame."""
    return _against_baselines(bench, "single", per_frame=1, times=10)


def _against_baselines(bench: Bench, key: str, *, per_frame: int, times: int) -> Row:
    quotes = "1 quote" if per_frame == 1 else f"{per_frame} quotes"
    row = Row(
        key,
        f"quotes in, {quotes} per frame, {SOME} symbols, throttle 200 ms: CPU time of the daemon "
        "per quote",
        f"at least {times} times less than the naive baseline",
    )
    with bench.setup() as setup:
        bench.pool(setup, SOME, per_frame)
        contenders = [*bench.daemons(setup, SOME), *bench.baselines(setup, SOME)]
        bursts = bench.paired(setup, contenders)
    _costs(row, bursts)
    costs = {name: costs_us(found) for name, found in bursts.items()}
    ratio = row.ratio("naive / spotd", costs["naive"], costs["spotd"])
    row.ratio("careful / spotd", costs["careful"], costs["spotd"])
    if BEFORE in costs:
        row.ratio("before / spotd", costs[BEFORE], costs["spotd"])
    row.reached = ratio.median >= times
    return row


def _costs(row: Row, bursts: dict[str, list[Burst]]) -> None:
    for name, found in bursts.items():
        row.add(name, "µs", costs_us(found))
    rates = {name: [b.quotes / b.seconds for b in found] for name, found in bursts.items()}
    row.series["quotes_per_s"] = rates
    row.series["updates_per_s"] = {
        name: [b.updates / b.seconds for b in found] for name, found in bursts.items()
    }


def paced(bench: Bench) -> Row:
    """At a rate that all can follow, where a burst would let each one conflate more or less."""
    row = Row(
        "paced",
        f"quotes in at {_PACED_PER_S:,}/s, 1 quote per frame, {SOME} symbols: CPU time per quote "
        "when most of them are published",
        "reported",
    )
    with bench.setup() as setup:
        pool = bench.pool(setup, SOME, 1)
        contenders = [*bench.daemons(setup, SOME), *bench.baselines(setup, SOME)]

        def measure() -> dict[str, float]:
            return {c.name: _paced_us(bench, setup, c, pool) for c in contenders}

        measure()  # warms up
        values = bench.each_round(measure)
    for name, costs in values.items():
        row.add(name, "µs", costs)
    for name in ("naive", "careful", BEFORE):
        if name in values:
            row.ratio(f"{name} / spotd", values[name], values["spotd"])
    return row


def _paced_us(bench: Bench, setup: Setup, contender: Contender, pool: str) -> float:
    pid = contender.process.pid
    cpu = cpu_ns(pid)
    sent = setup.source.ask(
        "pace", client=contender.name, pool=pool, rate=_PACED_PER_S, seconds=2 * bench.plan.burst_s
    )
    time.sleep(WINDOWS_S)
    return (cpu_ns(pid) - cpu) / 1_000 / float(sent["quotes"])


def growth(bench: Bench) -> Row:
    """From 100 symbols to the whole market."""
    counts = bench.plan.counts
    row = Row(
        "growth",
        f"cost per quote from {counts[0]} to {MARKET:,} symbols, 50 per frame",
        "grows by less than 1.5 times",
    )
    with bench.setup() as setup:
        contenders = []
        for count in counts:
            bench.pool(setup, count, 50)
            contenders += _over_the_market(bench, setup, count)
            bench.say(f"{count} symbols: ready")
        bursts = bench.paired(setup, contenders)
    costs = {name: costs_us(found) for name, found in bursts.items()}
    kinds = ["spotd", "intake", "floor", "naive", "careful", *_other(bench)]
    for kind in kinds:
        row.series[kind] = {str(count): costs[f"{kind}{count}"] for count in counts}
    for kind, words in (("spotd", "all of it"), ("intake", "intake alone"), ("floor", "floor")):
        few, many = f"{kind}{counts[0]}", f"{kind}{MARKET}"
        row.add(f"{words}: {counts[0]} symbols", "µs", costs[few])
        row.add(f"{MARKET:,} symbols", "µs", costs[many])
        row.ratio("growth", costs[many], costs[few])
    for count in (counts[0], MARKET):
        updates = [1_000 * b.updates / b.quotes for b in bursts[f"spotd{count}"]]
        row.add(f"updates per 1,000 quotes with {count:,}", "", updates)
    for other in _other(bench):
        for count in counts:
            figure = f"{other} / spotd with {count:,}"
            row.ratio(figure, costs[f"{other}{count}"], costs[f"spotd{count}"])
    row.notes.append("floor: a program that only decodes, and stores each quote in a dictionary")
    row.reached = row.figures[2].median < 1.5
    return row


def _other(bench: Bench) -> list[str]:
    """Return the names of the programs that the present one is compared with."""
    return [program.name for program in bench.programs[1:]]


def _over_the_market(bench: Bench, setup: Setup, count: int) -> list[Contender]:
    """Return daemons, one with a throttle that lets next to nothing out, floor and baselines."""
    intake = bench.spotd(setup, count, name=f"intake{count}", settings=_SILENT)
    intake.silent = True
    return [
        *bench.daemons(setup, count, suffix=str(count)),
        intake,
        bench.floor(setup, count),
        *bench.baselines(setup, count, suffix=str(count)),
    ]
