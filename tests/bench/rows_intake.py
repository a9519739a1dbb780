"""Rows about quotes coming in: what one costs, against both baselines and over the market."""

from __future__ import annotations

import time

from tests.bench.bench import MARKET, SOME, WINDOWS_S, Bench, Burst, Contender, costs_us
from tests.bench.results import Row
from tests.bench.world import World, cpu_ns

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
    with bench.world() as world:
        bench.pool(world, SOME, per_frame)
        contenders = [bench.spotd(world, SOME), *bench.baselines(world, SOME)]
        bursts = bench.paired(world, contenders)
    _costs(row, bursts)
    ratio = row.add("naive / spotd", "×", _ratios(bursts, "naive", "spotd"))
    row.add("careful / spotd", "×", _ratios(bursts, "careful", "spotd"))
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


def _ratios(bursts: dict[str, list[Burst]], dear: str, cheap: str) -> list[float]:
    pairs = zip(bursts[dear], bursts[cheap], strict=True)
    return [one.cpu_us / other.cpu_us for one, other in pairs]


def paced(bench: Bench) -> Row:
    """At a rate that all can follow, where a burst would let each one conflate more or less."""
    row = Row(
        "paced",
        f"quotes in at {_PACED_PER_S:,}/s, 1 quote per frame, {SOME} symbols: CPU time per quote "
        "when most of them are published",
        "reported",
    )
    with bench.world() as world:
        pool = bench.pool(world, SOME, 1)
        contenders = [bench.spotd(world, SOME), *bench.baselines(world, SOME)]

        def measure() -> dict[str, float]:
            return {c.name: _paced_us(bench, world, c, pool) for c in contenders}

        measure()  # warms up
        values = bench.each_round(measure)
    for name, costs in values.items():
        row.add(name, "µs", costs)
    for name in ("naive", "careful"):
        pairs = zip(values[name], values["spotd"], strict=True)
        row.add(f"{name} / spotd", "×", [one / other for one, other in pairs])
    return row


def _paced_us(bench: Bench, world: World, contender: Contender, pool: str) -> float:
    pid = contender.process.pid
    cpu = cpu_ns(pid)
    sent = world.feed.ask(
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
    with bench.world() as world:
        contenders = []
        for count in counts:
            bench.pool(world, count, 50)
            contenders += _over_the_market(bench, world, count)
            bench.say(f"{count} symbols: ready")
        bursts = bench.paired(world, contenders)
    for kind in ("spotd", "intake", "floor", "naive", "careful"):
        of_kind = {count: bursts[f"{kind}{count}"] for count in counts}
        row.series[kind] = {str(count): costs_us(found) for count, found in of_kind.items()}
    for kind, words in (("spotd", "all of it"), ("intake", "intake alone"), ("floor", "floor")):
        few, many = f"{kind}{counts[0]}", f"{kind}{MARKET}"
        row.add(f"{words}: {counts[0]} symbols", "µs", costs_us(bursts[few]))
        row.add(f"{MARKET:,} symbols", "µs", costs_us(bursts[many]))
        row.add("growth", "×", _ratios(bursts, many, few))
    for count in (counts[0], MARKET):
        updates = [1_000 * b.updates / b.quotes for b in bursts[f"spotd{count}"]]
        row.add(f"updates per 1,000 quotes with {count:,}", "", updates)
    row.notes.append("floor: a program that only decodes, and stores each quote in a dictionary")
    row.reached = row.figures[2].median < 1.5
    return row


def _over_the_market(bench: Bench, world: World, count: int) -> list[Contender]:
    """The daemon, one with a throttle that lets next to nothing out, the floor, both baselines."""
    intake = bench.spotd(world, count, name=f"intake{count}", settings=_SILENT)
    intake.silent = True
    return [
        bench.spotd(world, count, name=f"spotd{count}"),
        intake,
        bench.floor(world, count),
        *bench.baselines(world, count, suffix=str(count)),
    ]
