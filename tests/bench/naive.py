"""The naive baseline: alpaca-py as its documentation shows it, and a publish for every update.

    python -m tests.bench.naive STREAM_URL REDIS_URL NAME SYMBOLS

A handler of pydantic models, a leading-edge throttle in a dict, and two awaits of redis-py.
"""

from __future__ import annotations

import json
import sys
import time

import redis.asyncio as aioredis
from alpaca.data.live import StockDataStream
from alpaca.data.models import Quote

from tests.bench import frames
from tests.bench.source import MARK

_THROTTLE_S = 0.2


def main(stream_url: str, redis_url: str, name: str, symbols: int) -> None:
    """Stream until killed."""
    redis = aioredis.Redis.from_url(redis_url)
    stream = StockDataStream("key", "secret", url_override=stream_url)
    published_at: dict[str, float] = {}

    async def on_quote(quote: Quote) -> None:
        now = time.monotonic()
        if now - published_at.get(quote.symbol, 0.0) < _THROTTLE_S:
            return
        published_at[quote.symbol] = now
        update = json.dumps(
            {
                "symbol": quote.symbol,
                "bid_price": quote.bid_price,
                "ask_price": quote.ask_price,
                "mid_price": round((quote.bid_price + quote.ask_price) / 2, 6),
                "last_price": None,
                "timestamp": quote.timestamp.isoformat(),
            }
        )
        await redis.publish(f"{name}:{quote.symbol}", update)
        await redis.hset(f"{name}d:last", quote.symbol, update)

    stream.subscribe_quotes(on_quote, *frames.symbols(symbols), MARK)
    stream.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
