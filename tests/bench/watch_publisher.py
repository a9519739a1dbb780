"""Publishes prices evenly, each by itself: the dearest way for whoever watches them.

    python -m tests.bench.watch_publisher URL SYMBOLS UPDATES_PER_S

``UPDATES_PER_S`` is of each symbol. It runs until it is killed.
"""

from __future__ import annotations

import random
import sys
import time
from datetime import UTC, datetime

import redis

from spotd.keys import Keys
from spotd.models import spot_price
from tests.bench import frames


def run(url: str, symbols: int, rate: float) -> None:
    """Publish the symbols in turn."""
    keys, chance, seq = Keys(), random.Random(1), 0
    prices = {name: chance.uniform(20, 600) for name in frames.symbols(symbols)}
    due = time.monotonic()
    with redis.Redis.from_url(url) as client:
        while True:
            for name, price in prices.items():
                seq += 1
                prices[name] = price * (1 + chance.gauss(0, 1e-4))
                bid = round(prices[name], 2)
                ask = round(bid + 0.03, 2)
                json = spot_price(name, bid, ask, bid, datetime.now(UTC), seq).to_json()
                with client.pipeline(transaction=False) as calls:
                    calls.hset(keys.last, name, json)
                    calls.publish(keys.channel(name), json)
                    calls.execute()
                due += 1 / (symbols * rate)
                time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]))
