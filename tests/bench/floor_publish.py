"""The floor under any Python program that publishes each quote on its own, at once.

    python -m tests.bench.floor_publish STREAM_URL REDIS_URL NAME SYMBOLS

Frames off the socket, decoded; one EVALSHA of spotd's own script for each quote, written from
within the callback of the frame; answers parsed by hiredis. The event loop wakes twice a quote, and
nothing else happens: no market rules, no throttle, no time limits, one server that never fails.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

import hiredis
import picows

from spotd.core.messages import Message, Quote
from spotd.models import encode_updates, spot_price
from spotd.redis.scripts import PUBLISH, digest_of
from tests.bench import frames
from tests.bench.floor import Floor
from tests.bench.source import MARK

_SHA = digest_of(PUBLISH)
_TOKEN = "token"
_TOO_HIGH = 1 << 60


class Answers(asyncio.Protocol):
    """The connection to Redis: parses answers, and stops at an error."""

    def __init__(self) -> None:
        self._parser = hiredis.Reader()

    def data_received(self, data: bytes) -> None:
        """Parse what came."""
        self._parser.feed(data)
        while (answer := self._parser.gets()) is not False:
            if isinstance(answer, Exception):
                raise SystemExit(f"floor: {answer}")


class PublishingFloor(Floor):
    """Publishes each quote with a call of its own."""

    def __init__(self, names: list[str], name: str, redis: asyncio.WriteTransport) -> None:
        super().__init__(names)
        self._keys = [f"{name}d:leader", f"{name}d:last", f"{name}d:seq"]
        self._prefix = f"{name}:"
        self._redis = redis
        self._seq = 0

    def take(self, messages: Sequence[Message]) -> None:
        """Publish the quotes of a frame."""
        for quote in messages:
            if type(quote) is not Quote:
                continue
            self._seq = seq = max(self._seq + 1, time.time_ns() // 1_000)
            update = spot_price(quote.symbol, quote.bid, quote.ask, None, quote.at, seq)
            self._redis.write(
                _packed(
                    "EVALSHA", _SHA, 3, *self._keys, _TOKEN, self._prefix, seq, _TOO_HIGH,
                    encode_updates([update]),
                )
            )  # fmt: skip


def _packed(*command: str | int | bytes) -> bytes:
    packed: bytes = hiredis.pack_command(command)  # type: ignore[arg-type] # any length will do
    return packed


async def main(stream_url: str, redis_url: str, name: str, symbols: int) -> None:
    """Stream until killed."""
    address = urlsplit(redis_url)
    redis, _ = await asyncio.get_running_loop().create_connection(
        Answers, address.hostname or "", address.port or 6379
    )
    redis.write(_packed("SCRIPT", "LOAD", PUBLISH))
    redis.write(_packed("SET", f"{name}d:leader", _TOKEN))
    names = [*frames.symbols(symbols), MARK]
    transport, _ = await picows.ws_connect(
        lambda: PublishingFloor(names, name, redis),
        stream_url,
        max_frame_size=16 * 1024 * 1024,
        use_aiofastnet=False,
    )
    gc.freeze()
    await transport.wait_disconnected()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
