"""The careful baseline: alpaca-py without its models, and one pipeline for what changed.

    python -m tests.bench.careful STREAM_URL REDIS_URL NAME SYMBOLS

A handler that keeps the newest quote of each symbol; every 200 ms a pipeline of PUBLISH and HSET.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import redis.asyncio as aioredis
from alpaca.data.live import StockDataStream

from tests.bench import frames
from tests.bench.source import MARK

_EVERY_S = 0.2


def _update(quote: dict[str, Any]) -> str:
    return json.dumps(
        {
            "symbol": quote["S"],
            "bid_price": quote["bp"],
            "ask_price": quote["ap"],
            "mid_price": round((quote["bp"] + quote["ap"]) / 2, 6),
            "last_price": None,
            "timestamp": quote["t"].to_datetime().isoformat(),
        }
    )


async def main(stream_url: str, redis_url: str, name: str, symbols: int) -> None:
    """Stream until killed."""
    redis = aioredis.Redis.from_url(redis_url)
    stream = StockDataStream("key", "secret", raw_data=True, url_override=stream_url)
    changed: dict[str, dict[str, Any]] = {}

    async def on_quote(quote: dict[str, Any]) -> None:
        changed[quote["S"]] = quote

    async def flush() -> None:
        while True:
            await asyncio.sleep(_EVERY_S)
            if not changed:
                continue
            newest = list(changed.items())
            changed.clear()
            async with redis.pipeline(transaction=False) as pipeline:
                for symbol, quote in newest:
                    update = _update(quote)
                    pipeline.publish(f"{name}:{symbol}", update)
                    pipeline.hset(f"{name}d:last", symbol, update)
                await pipeline.execute()

    stream.subscribe_quotes(on_quote, *frames.symbols(symbols), MARK)
    await asyncio.gather(stream._run_forever(), flush())


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
