"""Rows about everyday paces: one quote a frame, and every update the first after a quiet window."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.bench import frames
from tests.bench.bench import BEFORE, WINDOWS_S, Bench, Contender
from tests.bench.orders import Worker
from tests.bench.results import Row
from tests.bench.setup import PRESENT, Setup, cpu_ns

# Quotes per second: symbols, how many times the floor a quote may cost, and the p50 aimed at in ms.
_PACES = {
    50: (30, 1.8, 0.5),
    500: (500, 1.6, 0.5),
    2_000: (2_000, 1.2, 2.0),
    5_000: (5_000, 1.0, 2.0),
}
PACES = tuple(_PACES)
_P99_MS = 5.0


def pace(rate: int) -> Callable[[Bench], Row]:
    """Return the row that measures what a quote costs, and how late it is, at a pace."""
    return partial(_row, rate, *_PACES[rate])


def _row(rate: int, symbols: int, times: float, p50_ms: float, bench: Bench) -> Row:
    row = Row(
        f"pace{rate}",
        f"{rate:,} quotes/s, 1 quote per frame, {symbols:,} symbols, each a leading edge: CPU time "
        "per quote, everything included",
        f"at most {times:g} times the floor; p50 under {p50_ms:g} ms, p99 under {_P99_MS:g} ms",
    )
    with bench.setup() as setup:
        pool = _pool(setup, symbols)
        reader = setup.reader()
        contenders = []
        for program in bench.programs:
            daemon = bench.spotd(setup, symbols, program=program)
            contenders.append(daemon)
        contenders += [*bench.baselines(setup, symbols), bench.floor_publish(setup, symbols)]
        for contender in contenders:
            reader.ask(
                "subscribe",
                channels=[f"{contender.name}:{name}" for name in frames.symbols(symbols)],
            )

        def measure() -> dict[str, float]:
            found: dict[str, float] = {}
            for contender in contenders:
                found |= _measured(bench, setup, contender, reader, pool, rate)
            return found

        measure()  # warms up
        values = bench.each_round(measure)
    for contender in contenders:
        name = contender.name
        row.add(name, "µs", values[name])
        for part in ("p50", "p99"):
            row.add(f"{name}: {part}", "ms", values[f"{name} {part}"])
    ratio = row.ratio("spotd / floor", values[PRESENT.name], values["floor"])
    row.ratio("naive / spotd", values["naive"], values[PRESENT.name])
    row.ratio("careful / spotd", values["careful"], values[PRESENT.name])
    if BEFORE in values:
        row.ratio("before / spotd", values[BEFORE], values[PRESENT.name])
    row.reached = (
        ratio.median <= times and row.figures[1].median < p50_ms and row.figures[2].median < _P99_MS
    )
    return row


def _pool(setup: Setup, symbols: int) -> str:
    # As many quotes as symbols: always in the same order, so each symbol is quiet for as long.
    setup.source.ask("pool", name=f"{symbols}", symbols=symbols, quotes=symbols, per_frame=1)
    return f"{symbols}"


def _measured(
    bench: Bench, setup: Setup, contender: Contender, reader: Worker, pool: str, rate: int
) -> dict[str, float]:
    time.sleep(2 * WINDOWS_S)
    pid, name = contender.process.pid, contender.name
    first = reader.ask("count")["count"]
    cpu = cpu_ns(pid)
    sent = setup.source.ask(
        "pace", client=name, pool=pool, rate=rate, seconds=bench.plan.pace_s, stamp="sent"
    )
    quotes = int(sent["quotes"])
    _await_silence(reader)
    cpu_us = (cpu_ns(pid) - cpu) / quotes / 1_000
    spread = reader.ask("lags", first=first, end=reader.ask("count")["count"])
    return {name: cpu_us, f"{name} p50": spread["p50"], f"{name} p99": spread["p99"]}


def _await_silence(reader: Worker) -> None:
    """Wait until nothing more is published: the naive baseline cannot follow each pace."""
    heard, before = reader.ask("count")["count"], -1
    while heard != before:
        time.sleep(WINDOWS_S)
        heard, before = reader.ask("count")["count"], heard
