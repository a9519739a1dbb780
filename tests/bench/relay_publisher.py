"""Publishes prices to Redis as the daemon does: HSET and PUBLISH, by the contract.

The ``seq`` of an update is the time of its publication, in monotonic microseconds, so that a client
on this machine knows how old it is. Ends at a line on stdin, and prints the newest ``seq`` of each
symbol as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from datetime import UTC, datetime

from redis.asyncio import Redis

from spotd.keys import Keys
from spotd.models import spot_price
from tests.bench.relay_clients import symbols
from tests.kit.publisher import status_of

_EVERY_S = 0.02  # the daemon's calls under load are about as far apart


async def publish(url: str, number: int, per_s: float) -> dict[str, int]:
    """Publish every symbol ``per_s`` times a second, until stdin says something."""
    redis, keys = Redis.from_url(url), Keys()
    names = symbols(number)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, stop.set)
    newest: dict[str, int] = {}
    share = number * per_s * _EVERY_S
    owed, at, turn, told = 0.0, time.monotonic(), 0, 0.0
    while not stop.is_set():
        if at - told > 5:
            told = at
            await redis.set(keys.status, status_of().to_json(), ex=15)
        owed += share
        now = datetime.now(UTC)
        pipeline = redis.pipeline(transaction=False)
        while owed >= 1:
            owed -= 1
            symbol = names[turn % number]
            turn += 1
            seq = time.monotonic_ns() // 1000
            raw = spot_price(symbol, 400 + turn % 100, 400.02 + turn % 100, 400, now, seq).to_json()
            pipeline.hset(keys.last, symbol, raw)
            pipeline.publish(keys.channel(symbol), raw)
            newest[symbol] = seq
        await pipeline.execute()
        at += _EVERY_S
        await asyncio.sleep(max(0.0, at - time.monotonic()))
    await redis.aclose()
    return newest


def main() -> None:
    """Parse arguments and publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis", required=True)
    parser.add_argument("--symbols", type=int, default=500)
    parser.add_argument("--per-s", type=float, default=5.0)
    args = parser.parse_args()
    print(json.dumps(asyncio.run(publish(args.redis, args.symbols, args.per_s))), flush=True)


if __name__ == "__main__":
    main()
