"""Rows about the Python client: what a consumer costs, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import time

from spotd.models import spot_price, utc
from tests.bench import frames
from tests.bench.bench import SOME, Bench
from tests.bench.consumer import END
from tests.bench.orders import ROOT, Process
from tests.bench.results import Row
from tests.bench.setup import Setup, cpu_ns, rss_mb

_PER_S = 10_000
_EVERY_S = 0.005
_AT_MOST = 0.5  # of a core
_IMPORT_S = 0.15
_IMPORT = "import time; a = time.perf_counter(); import {}; print(time.perf_counter() - a)"


def consumer(bench: Bench) -> Row:
    """Measure one consumer of 10,000 updates per second, and an import."""
    row = Row(
        "consumer",
        f"one consumer of {_PER_S:,} updates/s, {SOME} symbols",
        f"under {_AT_MOST:g} of a core; importing at most {_IMPORT_S:g} s more than redis.asyncio",
    )
    with bench.setup() as setup:
        found = {
            kind: bench.each_round(lambda kind=kind: _consume(bench, setup, kind))  # type: ignore[misc]
            for kind in ("async", "sync")
        }
    imports = bench.each_round(
        lambda: {name: _import_s(name) for name in ("redis.asyncio", "spotd.client")}
    )
    row.reached = True
    for kind, name in (("async", "SpotClient"), ("sync", "Spot")):
        row.add(f"{name}: CPU", "of a core", found[kind]["cores"])
        row.add("taken", "per s", found[kind]["taken"])
        row.add("memory that grew meanwhile", "MB", found[kind]["grew_mb"])
        row.reached = row.reached and max(found[kind]["cores"]) < _AT_MOST
    pairs = zip(imports["spotd.client"], imports["redis.asyncio"], strict=True)
    more = row.add("importing spotd.client, beyond redis.asyncio", "s", [a - b for a, b in pairs])
    row.reached = row.reached and more.median <= _IMPORT_S
    row.notes.append("CPU is the scheduler's count of the whole process, in nanoseconds")
    return row


def _consume(bench: Bench, setup: Setup, kind: str) -> dict[str, float]:
    names = frames.symbols(SOME)
    command = [sys.executable, "-m", "tests.bench.consumer", kind, setup.server.url]
    process = Process(f"consumer-{kind}", [*command, ",".join(names)], home=setup.home)
    try:
        setup.redis.delete("spotd:last")
        setup.wait(lambda: setup.redis.pubsub_numsub(f"spot:{END}")[0][1], "a consumer", process)
        seq = _publish(setup, names, 0, 1.0)  # warm, and joined
        before, rss, began = cpu_ns(process.pid), rss_mb(process.pid), time.monotonic()
        sent = _publish(setup, names, seq, bench.plan.pace_s) - seq
        seconds, used = time.monotonic() - began, cpu_ns(process.pid) - before
        grew = rss_mb(process.pid) - rss
        setup.redis.publish(f"spot:{END}", _update(END, 1))
        setup.wait(lambda: process.tail().split()[1:], "the consumer's count", process)
        taken, skipped = map(int, process.tail().split()[-2:])
    finally:
        process.kill()
    share = taken / (taken + skipped)
    return {
        "cores": used / seconds / 1e9,
        "taken": sent / seconds * share,
        "grew_mb": max(grew, 0.01),
    }


def _publish(setup: Setup, names: list[str], seq: int, seconds: float) -> int:
    """Publish at the pace for some seconds. Return the last ``seq``."""
    began, first = time.monotonic(), seq
    while (passed := time.monotonic() - began) < seconds:
        with setup.redis.pipeline(transaction=False) as batch:
            while seq - first < passed * _PER_S:
                seq += 1
                name = names[seq % len(names)]
                batch.publish(f"spot:{name}", _update(name, seq))
            batch.execute()
        time.sleep(_EVERY_S)
    return seq


def _update(symbol: str, seq: int) -> bytes:
    return spot_price(symbol, 421.35, 421.39, 421.36, utc(time.time()), seq).to_json()


def _import_s(module: str) -> float:
    ran = subprocess.run(
        [sys.executable, "-c", _IMPORT.format(module)],
        check=True, capture_output=True, text=True, timeout=60, cwd=ROOT,
    )  # fmt: skip
    return float(ran.stdout)
