"""Measure spotd against what it promises: prints a table, and writes JSON and pictures.

    python -m tests.bench [--quick] [--rounds N] [--only ROW,…] [--json FILE] [--svg FILE]
                          [--against SPOTD]

Everything runs on this machine, on loopback. Progress goes to stderr. ``--against`` takes the
executable of another checkout, such as ../before/.venv/bin/spotd, and measures it as *before* in
the same rounds as the present one: rows of intake, out, latency, idle, start and adding.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import (
    pictures,
    rows_client,
    rows_day,
    rows_intake,
    rows_output,
    rows_pace,
    rows_process,
    rows_size,
    rows_watch,
)
from tests.bench.bench import Bench, Plan
from tests.bench.results import Row, machine, table

ROWS: dict[str, Callable[[Bench], Row]] = {
    "batched": rows_intake.batched,
    "single": rows_intake.single,
    "paced": rows_intake.paced,
    "out": rows_output.out,
    "limit": rows_output.limit,
    "latency": rows_output.latency,
    "idle": rows_process.idle,
    "standby": rows_process.standby,
    "memory": rows_process.memory,
    "start": rows_process.start,
    "growth": rows_intake.growth,
    "adding": rows_process.adding,
    "consumer": rows_client.consumer,
    "watch": rows_watch.watch,
    **{f"pace{rate}": rows_pace.pace(rate) for rate in rows_pace.PACES},
    **{f"size{count}": rows_size.size(count) for count in rows_size.SIZES},
    "day": rows_day.day,
    "uneven": rows_day.uneven,
}


def main() -> int:
    """Run the rows that are asked for. Return 1 where one could not be measured."""
    options = _options()
    if options.rounds < 1:
        raise SystemExit("--rounds must be at least 1")
    plan = Plan.quick(options.rounds) if options.quick else Plan(options.rounds)
    if options.memory_minutes is not None:
        plan = dataclasses.replace(plan, memory_s=60 * options.memory_minutes)
    rows: dict[str, Row] = {}
    failed: list[str] = []
    began = machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as home:
        bench = Bench(plan, Path(home), options.against)
        for key in options.only or ROWS:
            row = _measure(bench, key)
            if row is None:
                failed.append(key)
            else:
                rows[key] = row
    found = {
        "machine": began,
        "plan": dataclasses.asdict(plan),
        "quick": options.quick,
        "against": None if options.against is None else str(options.against),
        "rows": [row.json() for row in rows.values()],
        "failed": failed,
    }
    if options.json is not None:
        options.json.write_text(json.dumps(found, indent=1) + "\n")
    if options.svg is not None:
        options.svg.write_text(pictures.draw(rows))
    print(table(list(rows.values())))
    print(f"\n{plan.rounds} rounds on {began['cpu']}, {began['cores']} cores, {began['system']},")
    print(f"Python {began['python']}; load at the start {began['load']:.1f}.")
    if options.quick:
        print("Quick: too short for figures that count.")
    return 1 if failed else 0


def _measure(bench: Bench, key: str) -> Row | None:
    bench.begin(key)
    began = time.monotonic()
    try:
        row = ROWS[key](bench)
    except (RuntimeError, AssertionError, OSError) as error:
        bench.say(f"could not be measured: {error}")
        return None
    bench.say(f"{row.what}: target {row.target}")
    bench.say("; ".join([*map(str, row.figures), *row.notes]))
    bench.say(f"reached: {row.verdict} ({time.monotonic() - began:.0f} s)")
    return row


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="short: shows only that it works")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", type=_keys, metavar="ROW,…", help=", ".join(ROWS))
    parser.add_argument("--memory-minutes", type=float, help="default: 2; aimed at: 10")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--svg", type=Path, metavar="FILE")
    parser.add_argument(
        "--against", type=_executable, metavar="SPOTD", help="the spotd of another checkout"
    )
    return parser.parse_args()


def _keys(text: str) -> list[str]:
    keys = text.split(",")
    if unknown := set(keys) - ROWS.keys():
        raise argparse.ArgumentTypeError(f"no such row: {', '.join(sorted(unknown))}")
    return keys


def _executable(text: str) -> Path:
    path = Path(text).absolute()  # not resolved: its directory is that of its virtual environment
    if not os.access(path, os.X_OK) or path.is_dir():
        raise argparse.ArgumentTypeError(f"not an executable file: {path}")
    return path


if __name__ == "__main__":
    sys.exit(main())
