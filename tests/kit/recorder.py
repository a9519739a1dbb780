"""A subscriber that keeps every message of some channels, with the moment at which it came."""

from __future__ import annotations

import asyncio
import json
import time
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import redis.asyncio as aioredis
import redis.exceptions

from spotd.keys import Keys
from tests.kit.values import Json
from tests.kit.waiting import GUARD_S, cancelled

_BETWEEN_TRIES_S = 0.005


@dataclass(frozen=True, slots=True)
class Heard:
    """One message of a channel."""

    channel: str
    raw: bytes
    at: float = field(compare=False)
    """Monotonic seconds at which the subscriber had it."""

    @property
    def json(self) -> Json:
        """The message, decoded."""
        decoded: Json = json.loads(self.raw)
        return decoded


class Recorder:
    """Record the channels that match ``patterns``; all prices and events by default.

    When the connection breaks it subscribes again at once; it misses what was published meanwhile.
    """

    def __init__(self, url: str, *patterns: str, keys: Keys | None = None) -> None:
        self.heard: list[Heard] = []
        self.by_channel: dict[str, list[Heard]] = defaultdict(list)
        self._keys = keys or Keys()
        self._patterns = patterns or (self._keys.channel("*"), self._keys.events)
        self._client: Any = aioredis.Redis.from_url(url)
        self._subscribed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        await self.stop()

    async def start(self) -> None:
        """Subscribe; every message that is published from now on is recorded."""
        self._task = asyncio.create_task(self._listen(), name="recorder")
        async with asyncio.timeout(GUARD_S):
            await self._subscribed.wait()

    async def stop(self) -> None:
        """Unsubscribe and close the connection. What was heard stays readable."""
        if self._task is not None:
            await cancelled(self._task)
        await self._client.aclose()

    def of(self, symbol: str) -> list[Heard]:
        """Return the updates of one symbol, in order; the list grows as more arrive."""
        return self.by_channel[self._keys.channel(symbol)]

    def has_more(self, symbol: str, updates: int) -> bool:
        """Return whether more updates of one symbol were heard than ``updates``."""
        return len(self.of(symbol)) > updates

    def raw(self, symbol: str) -> list[bytes]:
        """Return the bytes of the updates of one symbol, in order."""
        return [heard.raw for heard in self.of(symbol)]

    def updates(self, symbol: str) -> list[Json]:
        """Return the updates of one symbol, decoded, in order."""
        return [heard.json for heard in self.of(symbol)]

    def prices(self, symbol: str) -> list[tuple[float, float]]:
        """Return bid and ask, in USD, of each update of one symbol, in order."""
        return [(update["bid_price"], update["ask_price"]) for update in self.updates(symbol)]

    def bids(self, symbol: str) -> list[float]:
        """Return the bid, in USD, of each update of one symbol, in order."""
        return [update["bid_price"] for update in self.updates(symbol)]

    def seqs(self, symbol: str) -> list[int]:
        """Return the ``seq`` of each update of one symbol, in order."""
        return [update["seq"] for update in self.updates(symbol)]

    def events(self, type_: str) -> list[Json]:
        """Return the events of one ``type`` (``symbol``, ``daemon``), decoded, in order."""
        events = (heard.json for heard in self.by_channel[self._keys.events])
        return [event for event in events if event["type"] == type_]

    def states(self, symbol: str) -> list[str]:
        """Return the states of one symbol, as announced, in order."""
        return [event["state"] for event in self.events("symbol") if event["symbol"] == symbol]

    def daemon_states(self) -> list[str]:
        """Return the states of the daemons, as announced, in order."""
        return [event["state"] for event in self.events("daemon")]

    def check_order(self) -> int:
        """Return the number of updates. Assert that ``seq`` rises strictly on every channel."""
        prefix, updates = self._keys.channel(""), 0
        for channel in list(self.by_channel):
            if not channel.startswith(prefix):
                continue
            seqs = self.seqs(channel.removeprefix(prefix))
            updates += len(seqs)
            wrong = [(a, b) for a, b in pairwise(seqs) if b <= a]
            assert not wrong, f"{channel}: seq did not rise: {wrong[:5]}"
        return updates

    async def _listen(self) -> None:
        while True:
            pubsub = self._client.pubsub()
            try:
                await pubsub.psubscribe(*self._patterns)
                confirmed = 0
                while True:
                    message = await pubsub.get_message(timeout=60)
                    if message is None:
                        continue
                    if message["type"] == "psubscribe":
                        confirmed += 1
                        if confirmed == len(self._patterns):
                            self._subscribed.set()
                    elif message["type"] == "pmessage":
                        self._take(message["channel"].decode(), message["data"])
            except (redis.exceptions.RedisError, OSError):
                await asyncio.sleep(_BETWEEN_TRIES_S)
            finally:
                await pubsub.aclose()

    def _take(self, channel: str, raw: bytes) -> None:
        heard = Heard(channel, raw, time.monotonic())
        self.heard.append(heard)
        self.by_channel[channel].append(heard)
