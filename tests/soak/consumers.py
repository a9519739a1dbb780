"""Two consumers as users have them: a ``SpotClient``, and a websocket of the relay."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import aiohttp

from spotd.client import SpotClient
from spotd.errors import RedisUnavailableError
from tests.soak.load import ALWAYS
from tests.soak.prices import number_of
from tests.soak.testbed import Testbed

Violated = Callable[[str, str, str, str], None]

_AGAIN_S = 0.3


@dataclass(slots=True)
class Consumer:
    """What one consumer was told. ``newest`` is the number of the newest quote of each symbol."""

    name: str
    violated: Violated
    updates: int = 0
    newest: dict[str, int] = field(default_factory=dict)
    _seqs: dict[str, int] = field(default_factory=dict)

    def take(self, symbol: str, bid: float, seq: int) -> None:
        """Take in an update: ``seq`` must rise."""
        self.updates += 1
        if seq <= self._seqs.get(symbol, 0):
            self.violated("seq did not rise for a consumer", f"{self.name} {symbol}", f"{seq}", "")
        self._seqs[symbol] = seq
        self.newest[symbol] = number_of(bid)

    def reconnected(self) -> None:
        """Take in that a new connection begins, which is told the newest value again."""
        self._seqs.clear()


async def follow_by_client(bed: Testbed, consumer: Consumer) -> None:
    """Iterate over updates, which must go on by itself whatever happens to Redis."""
    keys = bed.servers.keys
    while True:
        with suppress(RedisUnavailableError):  # only joining for the first time may raise it
            async with SpotClient(
                bed.servers.url, key_prefix=keys.key_prefix, lease_ttl_s=5.0, heartbeat_s=2.0
            ) as client:
                async for update in client.updates(*ALWAYS):
                    consumer.take(update.symbol, update.bid_price, update.seq)
        consumer.reconnected()
        await asyncio.sleep(_AGAIN_S)


async def follow_by_relay(bed: Testbed, consumer: Consumer) -> None:
    """Subscribe on the relay's websocket, which must stay open whatever happens to Redis."""
    url = f"http://127.0.0.1:{bed.relay.command.http_port}/ws"
    while True:
        consumer.reconnected()
        with suppress(aiohttp.ClientError, OSError):
            async with aiohttp.ClientSession() as http, http.ws_connect(url) as connection:
                await connection.send_json({"action": "subscribe", "symbols": list(ALWAYS)})
                async for message in connection:
                    told = json.loads(message.data)
                    if told["type"] == "spot_price_update":
                        update = told["update"]
                        consumer.take(update["symbol"], update["bid_price"], update["seq"])
        await asyncio.sleep(_AGAIN_S)
