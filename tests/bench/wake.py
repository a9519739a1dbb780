"""How long a new entry of a large demand takes to Alpaca: ``python -m tests.bench.wake``.

A daemon runs as a process on a real server and the simulator, with many symbols desired and many
entries beside them that name none. Symbols are then added one by one, to the set and as leases,
half of them with a wake. The time is from before the command that adds to the request's arrival.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from itertools import islice, product
from pathlib import Path
from string import ascii_uppercase

from tests.e2e.setup import Setup

_EVERY_S = 0.71  # between two entries, so that they fall anywhere between two reads


async def measure(home: Path, symbols: int, garbage: int, rounds: int) -> dict[str, list[float]]:
    """Return the seconds that each entry took, with and without a wake."""
    took_s: dict[str, list[float]] = {"with a wake": [], "by itself": []}
    async with Setup(home) as setup:
        setup.sim.limits.symbols = None
        names = map("".join, product("M", ascii_uppercase, ascii_uppercase, ascii_uppercase))
        await setup.values.want(*islice(names, symbols))
        if garbage:
            await setup.values.want(*(f"garbage-{number}" for number in range(garbage)))
        await setup.daemon(SPOTD_SNAPSHOTS="false")

        async def all_live() -> bool:
            status = await setup.values.status() or {"symbols": {"live": 0}}
            return bool(status["symbols"]["live"] == symbols)

        await setup.until(all_live, "the whole demand")
        keys, redis = setup.values.keys, setup.redis
        for number in range(rounds):
            await asyncio.sleep(_EVERY_S)
            symbol = f"N{ascii_uppercase[number // 26]}{ascii_uppercase[number % 26]}"
            wakes = number % 2 == 0
            setup.sim.received.clear()
            began = time.perf_counter()
            if number % 4 < 2:
                await redis.sadd(keys.symbols, symbol)
            else:
                await redis.zadd(keys.leases, {f"{symbol}@bench": time.time() + 3_600})
            if wakes:
                await redis.publish(keys.wake, "")
            while True:
                if setup.asked("subscribe", symbol):
                    break
                await asyncio.sleep(0.001)
            took_s["with a wake" if wakes else "by itself"].append(time.perf_counter() - began)
    return took_s


def main() -> None:
    """Measure, and print a line for each way."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.wake", description=__doc__)
    parser.add_argument("--symbols", type=int, default=11_500)
    parser.add_argument("--garbage", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=60)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="spotd-wake-") as home:
        found = asyncio.run(measure(Path(home), args.symbols, args.garbage, args.rounds))
    print(f"{args.symbols:,} symbols, {args.garbage:,} entries beside them")
    for way, took_s in found.items():
        print(
            f"  {way}: median {statistics.median(took_s) * 1000:.0f} ms, "
            f"90 %: {statistics.quantiles(took_s, n=10)[-1] * 1000:.0f} ms, "
            f"most {max(took_s) * 1000:.0f} ms, of {len(took_s)}"
        )


if __name__ == "__main__":
    main()
