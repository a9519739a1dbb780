"""The publisher of a scale-out measurement: spotd's own script and connection, at a chosen rate.

    python -m tests.bench.scale_publisher URL KEY_PREFIX SYMBOLS

Renders cheaply, so that the servers are what is measured. The ``timestamp`` of an update is the
time at which its call began. Order (see ``orders``): ``publish``.
"""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import UTC, datetime

from spotd.keys import Keys
from spotd.redis.port import RedisPort
from tests.bench import frames
from tests.bench.orders import Json, serve
from tests.kit.redis_port import publish

_EVERY_S = 0.01  # the daemon's calls under load are about as far apart
_MOST_PER_CALL = 2_000
_CALL_TIMEOUT_S = 30.0
_TOKEN = "scale-out"


class Publisher:
    """Publishes every symbol in turn."""

    def __init__(self, url: str, keys: Keys, names: list[str]) -> None:
        self._port = RedisPort(url, keys, call_timeout_s=_CALL_TIMEOUT_S)
        self._heads = [
            f'{{"symbol":"{name}","bid_price":421.35,"ask_price":421.39,"mid_price":421.37,'
            '"last_price":421.36,"timestamp":"'
            for name in names
        ]
        self._next = 0

    async def publish(self, rate: float, seconds: float) -> Json:
        """Publish ``rate`` updates a second, or as many as the server takes. Return the count."""
        await self._port.lead(_TOKEN, 3_600.0)
        began = at = time.monotonic()
        published = calls = 0
        owed = 0.0
        most = min(_MOST_PER_CALL, len(self._heads))  # no symbol twice in a call
        while at < began + seconds:
            number = min(int(owed), most)
            if number:
                await self._call(number)
                calls += 1
                published += number
            # What a slow server did not take is not made up for: the daemon conflates it.
            owed = min(owed - number, float(most))
            before, at = at, max(time.monotonic(), at + _EVERY_S)
            owed += rate * (at - before)
            await asyncio.sleep(max(0.0, at - time.monotonic()))
        took_s = time.monotonic() - began
        return {"published": published, "calls": calls, "per_s": published / took_s}

    async def _call(self, number: int) -> None:
        now = datetime.now(UTC)
        seq = int(now.timestamp() * 1_000_000)
        tail = f'{now:%Y-%m-%dT%H:%M:%S.%f}Z","seq":{seq}}}\n'
        heads, first = self._heads, self._next
        self._next = (first + number) % len(heads)
        some = (heads * 2)[first : first + number] if self._next <= first else None
        lines = "".join([head + tail for head in some or heads[first : first + number]])
        await publish(self._port, _TOKEN, lines.encode(), seq)


if __name__ == "__main__":
    url, prefix, number = sys.argv[1:]
    publisher = Publisher(url, Keys(prefix), frames.symbols(int(number)))
    asyncio.run(serve({"publish": publisher.publish}))
