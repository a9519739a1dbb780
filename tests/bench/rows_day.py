"""Rows about realistic activity: what each program spends beyond what it spends at rest."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from tests.bench.bench import BEFORE, SOME, WINDOWS_S, Bench, Contender
from tests.bench.results import Row
from tests.bench.rows_process import await_rest
from tests.bench.setup import PRESENT, Setup, cpu_ns
from tests.kit.recorded_day import DAY, MISSING

_THIRD = 1 / 3
_TWO_THIRDS = 2 / 3
_UNEVEN_PER_S = 2_000


def day(bench: Bench) -> Row:
    """Measure the first minutes of a recorded day at their own pace, all programs at once."""
    plan = bench.plan
    row = Row(
        "day",
        f"the first {plan.day_s / 60:.3g} min of a recorded day of AMZN at their own pace, quotes "
        "only: CPU time beyond that at rest",
        "at most a third of naive's",
    )
    if not DAY.exists():
        row.notes.append(f"not measured: {MISSING}")
        return row
    with bench.setup() as setup:
        contenders = [*_contenders(bench, setup, 1), bench.floor_publish(setup, 1)]
        setup.source.ask("recorded", name="day", seconds=plan.day_s)
        values = bench.each_round(lambda: _beyond_rest(bench, setup, contenders, together=True))
    _figures(row, contenders, values)
    row.reached = row.figures[-2].median <= _THIRD
    row.ratio("floor / naive", values["floor"], values["naive"])
    return row


def uneven(bench: Bench) -> Row:
    """Measure uneven activity with bursts, one program after the other."""
    row = Row(
        "uneven",
        f"{SOME} symbols with uneven activity, {_UNEVEN_PER_S:,} quotes/s on average, bursts of 10 "
        "times that, 1 quote per frame: CPU time beyond that at rest",
        "at most a third of naive's, and two thirds of careful's",
    )
    with bench.setup() as setup:
        contenders = _contenders(bench, setup, SOME)
        setup.source.ask(
            "uneven", name="day", symbols=SOME, rate=_UNEVEN_PER_S, seconds=bench.plan.uneven_s
        )
        values = bench.each_round(lambda: _beyond_rest(bench, setup, contenders, together=False))
    _figures(row, contenders, values)
    naive, careful = row.figures[-2:]
    row.reached = naive.median <= _THIRD and careful.median <= _TWO_THIRDS
    return row


def _contenders(bench: Bench, setup: Setup, symbols: int) -> list[Contender]:
    contenders = [*bench.daemons(setup, symbols), *bench.baselines(setup, symbols)]
    await_rest([contender.process for contender in contenders])
    return contenders


def _figures(row: Row, contenders: list[Contender], values: dict[str, list[float]]) -> None:
    for contender in contenders:
        row.add(contender.name, "% of a core", values[contender.name])
        row.add("at rest", "%", values[f"{contender.name} at rest"])
    if BEFORE in values:
        row.ratio("before / spotd", values[BEFORE], values[PRESENT.name])
    row.ratio("spotd / naive", values[PRESENT.name], values["naive"])
    row.ratio("spotd / careful", values[PRESENT.name], values["careful"])


def _beyond_rest(
    bench: Bench, setup: Setup, contenders: list[Contender], *, together: bool
) -> dict[str, float]:
    """Return the shares of a core that playing costs each, and what it spends at rest, in %."""
    time.sleep(1.0)
    rest = _shares(contenders, partial(time.sleep, bench.plan.idle_s))
    found = {f"{contender.name} at rest": rest[contender.name] for contender in contenders}
    for played in [contenders] if together else [[each] for each in contenders]:
        shares = _shares(played, partial(_play, bench, setup, played))
        for contender in played:
            found[contender.name] = shares[contender.name] - rest[contender.name]
    return found


def _play(bench: Bench, setup: Setup, contenders: list[Contender]) -> None:
    orders = [
        setup.source.order("play", client=contender.name, schedule="day")
        for contender in contenders
    ]
    for order in orders:
        setup.source.answer(order, 4 * bench.plan.day_s + 60)
    time.sleep(2 * WINDOWS_S)


def _shares(contenders: list[Contender], meanwhile: Callable[[], None]) -> dict[str, float]:
    before = [cpu_ns(contender.process.pid) for contender in contenders]
    began = time.monotonic_ns()
    meanwhile()
    took_ns = time.monotonic_ns() - began
    return {
        contender.name: 100 * (cpu_ns(contender.process.pid) - used) / took_ns
        for contender, used in zip(contenders, before, strict=True)
    }
