"""Rows about updates going out: how many, how late, and whether that lasts."""

from __future__ import annotations

import statistics
import time
from functools import partial

from tests.bench import frames
from tests.bench.bench import BEFORE, MARKET, SOME, Bench
from tests.bench.orders import Json, Process, Worker
from tests.bench.results import Row
from tests.bench.setup import PRESENT, Setup, with_mark

_OUT_TARGET = 57_500  # every symbol of the market 5 times a second
_OUT_QUOTES_PER_S = 8 * MARKET
_OUT_THROTTLES_MS = (200, 190)
_PEAK_PER_S = 400_000
_EDGE_S = 5.0  # at the start and at the end of the peak
PROBES_PER_S = 500
_PROBES = "P"  # what the symbols of probes begin with
_SPREAD = ("p50", "p90", "p99", "p99.9")


def out(bench: Bench) -> Row:
    """All symbols of the market moving."""
    row = Row(
        "out",
        f"updates out, {MARKET:,} symbols all moving, one PSUBSCRIBE reader, "
        f"{_OUT_QUOTES_PER_S:,} quotes/s in",
        f"at least {_OUT_TARGET:,} per second with the daemon under 0.6 of a core",
    )
    with bench.setup() as setup:
        bench.pool(setup, MARKET, 50)
        values = {ms: _outflows(bench, setup, ms) for ms in _OUT_THROTTLES_MS}
    for throttle_ms, of in values.items():
        for name, found in of.items():
            whose = "" if name == PRESENT.name else f"{name}, "
            row.add(f"{whose}throttle {throttle_ms} ms: updates", "per s", found["updates"])
            row.add("daemon", "of a core", found["cores"])
            row.add("CPU per update, intake included", "µs", found["us"])
        if BEFORE in of:
            row.ratio("before / spotd: CPU per update", of[BEFORE]["us"], of["spotd"]["us"])
    row.notes.append(
        "a window opens when Redis has answered, so 5 a second needs one a little under 200 ms"
    )
    row.series = {
        str(throttle_ms) if name == PRESENT.name else f"{name} {throttle_ms}": found
        for throttle_ms, of in values.items()
        for name, found in of.items()
    }
    best = values[_OUT_THROTTLES_MS[-1]][PRESENT.name]
    rate, core = statistics.median(best["updates"]), statistics.median(best["cores"])
    row.reached = rate >= _OUT_TARGET and core < 0.6
    return row


def _outflows(bench: Bench, setup: Setup, throttle_ms: int) -> dict[str, dict[str, list[float]]]:
    bench.say(f"throttle {throttle_ms} ms")
    settings = {"SPOTD_THROTTLE_MS": str(throttle_ms)}
    measures, processes = {}, []
    for program in bench.programs:
        name = f"{program.name}{throttle_ms}"
        daemon = bench.spotd(setup, MARKET, program=program, name=name, settings=settings).process
        reader = setup.reader(f"reader-{name}")
        reader.ask("psubscribe", pattern=f"{name}:*")
        measures[program.name] = partial(_outflow, bench, setup, daemon, reader)
        processes += [daemon, reader]
    values = bench.each_in_turn(measures)
    for process in processes:
        process.stop()
    return values


def _outflow(bench: Bench, setup: Setup, daemon: Process, reader: Worker) -> dict[str, float]:
    seconds = bench.plan.out_s
    sending = setup.source.order(
        "pace", client=daemon.name, pool=f"{MARKET}", rate=_OUT_QUOTES_PER_S, seconds=seconds + 1.5
    )
    time.sleep(1.0)  # every symbol has moved, the windows are spread
    before, cores = reader.ask("count"), setup.cores(daemon, reader)
    time.sleep(seconds)
    after, used = reader.ask("count"), cores()
    setup.source.answer(sending)
    updates, took_s = after["count"] - before["count"], after["at"] - before["at"]
    return {
        "updates": updates / took_s,
        "us": used["cores"] * 1e6 * took_s / max(1, updates),
        **used,
    }


def limit(bench: Bench) -> Row:
    """A peak second, over and over."""
    plan = bench.plan
    row = Row(
        "limit",
        f"source at its limit: {MARKET:,} symbols, a peak second of {_PEAK_PER_S:,} quotes "
        f"repeated for {plan.limit_s:g} s",
        "no lag grows: exchange-to-publish lag p99 under 250 ms at the end as at the start",
    )
    with bench.setup() as setup:
        setup.source.ask("pool", name="peak", symbols=MARKET, quotes=_PEAK_PER_S, per_frame=50)
        reader = setup.reader()
        daemon = bench.spotd(setup, MARKET).process
        reader.ask("psubscribe", pattern="spotd:*")
        values = bench.each_round(lambda: _peak(bench, setup, daemon, reader))
    first = row.add("p99 of the start", "ms", values["first_p99"])
    last = row.add("p99 of the end", "ms", values["last_p99"])
    row.add("p50 of the end", "ms", values["last_p50"])
    row.add("sent behind its time, at most", "ms", values["late_ms"])
    row.add("quotes", "per s", values["quotes"])
    row.add("updates", "per s", values["updates"])
    row.add("daemon", "of a core", values["cores"])
    row.series = dict(values)
    row.reached = first.median < 250 and last.median < 250
    return row


def _peak(bench: Bench, setup: Setup, daemon: Process, reader: Worker) -> dict[str, float]:
    seconds = bench.plan.limit_s
    edge_s = min(_EDGE_S, seconds / 3)
    reader.ask("forget")
    cores = setup.cores(daemon, reader)
    sending = setup.source.order(
        "pace", client="spotd", pool="peak", rate=_PEAK_PER_S, seconds=seconds, stamp="due"
    )
    time.sleep(0.5)
    marks = [reader.ask("count")]
    for pause_s in (edge_s, seconds - 2 * edge_s - 0.5):
        time.sleep(pause_s)
        marks.append(reader.ask("count"))
    sent = setup.source.answer(sending, seconds + 120)
    marks.append(reader.ask("count"))
    used = cores()
    counts = [mark["count"] for mark in marks]
    first = reader.ask("lags", first=counts[0], end=counts[1])
    last = reader.ask("lags", first=counts[2], end=counts[3])
    between_s = marks[3]["at"] - marks[0]["at"]
    return {
        "first_p99": first["p99"],
        "last_p99": last["p99"],
        "last_p50": last["p50"],
        "late_ms": sent["late_ms"],
        "quotes": sent["quotes"] / sent["seconds"],
        "updates": (counts[3] - counts[0]) / between_s,
        **used,
    }


def latency(bench: Bench) -> Row:
    """Symbols that were quiet, while others are busy."""
    row = Row(
        "latency",
        "quote sent to SUBSCRIBE received, leading edge: 500 quotes/s; and 500/s of quiet symbols "
        "while others bring it to 100,000 quotes/s",
        "p50 under 1 ms, p99 under 5 ms; p99 under 20 ms",
    )
    found: dict[int, dict[str, dict[str, list[float]]]] = {}
    with bench.setup() as setup:
        reader = setup.reader()
        bench.pool(setup, SOME, 50)
        for program in bench.programs:
            names = with_mark(frames.symbols(SOME)) + probes(setup, reader, program.name)
            setup.daemon(program.name, names, program=program)
        for rate in bench.plan.rates:
            bench.say(f"{rate:,} quotes/s")
            time.sleep(1.0)  # the windows that first prices opened have ended
            found[rate] = bench.each_in_turn(
                {
                    program.name: partial(_spread, bench, setup, reader, rate, program.name)
                    for program in bench.programs
                }
            )
    for name in found[500]:
        for rate in (500, 100_000):
            for part in ("p50", "p99"):
                whose = "" if name == PRESENT.name else f"{name}: "
                row.add(f"{whose}{part} at {rate:,}/s", "ms", found[rate][name][part])
    row.series = {str(rate): values[PRESENT.name] for rate, values in found.items()}
    slow_p50, slow_p99, _, busy_p99 = (figure.median for figure in row.figures[:4])
    row.reached = slow_p50 < 1 and slow_p99 < 5 and busy_p99 < 20
    if BEFORE in found[500]:
        for rate, values in found.items():
            for part in ("p50", "p99"):
                figure = f"before / spotd: {part} at {rate:,}/s"
                row.ratio(figure, values[BEFORE][part], values["spotd"][part])
    return row


def probes(setup: Setup, reader: Worker, client: str) -> list[str]:
    """Have the reader hear symbols of a client that tick once a second each. Return them."""
    names = frames.symbols(SOME, first_letter=_PROBES)
    # As many quotes as symbols: always in the same order, so each is quiet for a whole second.
    setup.source.ask(
        "pool", name="probes", symbols=SOME, quotes=SOME, per_frame=1, first_letter=_PROBES
    )
    reader.ask("subscribe", channels=[f"{client}:{name}" for name in names])
    return names


def start_probes(setup: Setup, seconds: float, client: str) -> int:
    """Send probes to a client, each stamped when it is sent. Return the order's id."""
    return setup.source.order(
        "pace", client=client, pool="probes", rate=PROBES_PER_S, seconds=seconds, stamp="sent"
    )


def spread_since(reader: Worker, first: int) -> Json:
    """Return how the lags of all probes are spread that were heard since a count."""
    return reader.ask("lags", first=first, end=reader.ask("count")["count"])


def _spread(bench: Bench, setup: Setup, reader: Worker, rate: int, client: str) -> dict[str, float]:
    seconds = bench.plan.latency_s
    others = None
    if rate > PROBES_PER_S:
        others = setup.source.order(
            "pace", client=client, pool=f"{SOME}", rate=rate - PROBES_PER_S, seconds=seconds + 1
        )
        time.sleep(0.5)
    first = reader.ask("count")["count"]
    setup.source.answer(start_probes(setup, seconds, client))
    if others is not None:
        setup.source.answer(others, seconds + 60)
    wanted = int(PROBES_PER_S * seconds)
    setup.wait(
        lambda: reader.ask("count")["count"] >= first + wanted, f"{wanted} probes to come", reader
    )
    spread = spread_since(reader, first)
    return {part: float(spread[part]) for part in _SPREAD}
