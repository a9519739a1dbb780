"""The loops of one daemon without its stream, and what a test says to them and hears of them.

Waiting is done in ``eventually`` alone: on a condition, with a deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Self

import redis.asyncio as aioredis
import redis.exceptions

from spotd.core.messages import Quote, Trade
from spotd.daemon.demand import DemandLoop
from spotd.daemon.intake import Intake
from spotd.daemon.leader import LeaderLoop
from spotd.daemon.publish import PublishLoop
from spotd.daemon.shared import Shared
from spotd.daemon.states import ReportLoop
from spotd.errors import RedisUnavailableError
from spotd.redis.port import RedisPort
from spotd.settings import Settings

PATIENCE_S = 10.0
_LOOK_EVERY_S = 0.005

JSON = dict[str, Any]


async def eventually(
    condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S
) -> float:
    """Wait until a condition, plain or awaitable, holds. Gives how long it took, in seconds."""
    started = time.monotonic()
    while True:
        held = False
        with contextlib.suppress(redis.exceptions.ConnectionError):  # not there yet, or again
            answer = condition()
            held = await answer if inspect.isawaitable(answer) else answer
        took_s = time.monotonic() - started
        if held:
            return took_s
        assert took_s < patience_s, f"waited {patience_s} s for: {what}"
        await asyncio.sleep(_LOOK_EVERY_S)


class Ear:
    """Hears channels, and notes when each message came."""

    def __init__(self, url: str, *patterns: str) -> None:
        self._client = aioredis.Redis.from_url(url, socket_timeout=5.0)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)
        self._patterns = patterns
        self._listening = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.heard: list[tuple[float, str, bytes]] = []

    async def __aenter__(self) -> Self:
        """Listen from here on."""
        self._task = asyncio.create_task(self._listen())
        await self._listening.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        await self._client.aclose()

    def messages(self, symbol: str) -> list[JSON]:
        """What came on the channel of one symbol, in order."""
        return [json.loads(raw) for _, channel, raw in self.heard if channel.endswith(f":{symbol}")]

    def raw(self, symbol: str) -> list[bytes]:
        """The bytes that came on the channel of one symbol, in order."""
        return [raw for _, channel, raw in self.heard if channel.endswith(f":{symbol}")]

    def events(self, kind: str) -> list[JSON]:
        """States (``symbol``) or statuses (``daemon``) announced, in order."""
        said = [json.loads(raw) for _, channel, raw in self.heard if channel.endswith(":events")]
        return [event for event in said if event["type"] == kind]

    async def _listen(self) -> None:
        while True:
            try:
                await self._pubsub.psubscribe(*self._patterns)
                self._listening.set()
                async for message in self._pubsub.listen():
                    self.heard.append(
                        (time.monotonic(), message["channel"].decode(), message["data"])
                    )
            except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError):
                await asyncio.sleep(0.02)


class Busy:
    """The longest stretch of CPU time for which the event loop ran nothing else.

    CPU time, not wall time: other processes on the machine are none of our doing.
    """

    def __init__(self) -> None:
        self.longest_s = 0.0
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Measure from here on."""
        self._task = asyncio.create_task(self._measure())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _measure(self) -> None:
        while True:
            before = time.thread_time()
            await asyncio.sleep(0.001)
            self.longest_s = max(self.longest_s, time.thread_time() - before)


class Rig:
    """One daemon's loops between the market and Redis."""

    def __init__(
        self,
        url: str,
        *,
        instance: str = "test",
        acknowledge: bool = True,
        linger_s: float | None = None,
        own_client: str | None = None,
        **settings: Any,
    ) -> None:
        defaults: dict[str, Any] = {"redis_url": url, "http_port": 0, "leader_ttl_s": 1.0}
        self.settings = Settings(**(defaults | {"throttle_ms": 0} | settings))
        self.shared = Shared(self.settings)
        self.port = RedisPort(url, self.settings.keys)
        self.intake = Intake(self.shared)
        self.leader = LeaderLoop(self.shared, self.port, instance)
        lingering = {} if linger_s is None else {"linger_s": linger_s}
        self.demand = DemandLoop(self.shared, self.port, **lingering)
        self.publish = PublishLoop(self.shared, self.port)
        self.report = ReportLoop(self.shared, self.port, instance)
        self.shared.metrics.report(self.report.numbers)
        self.redis = aioredis.Redis.from_url(
            url if own_client is None else own_client,
            decode_responses=True,
            socket_timeout=5.0,
            socket_connect_timeout=1.0,
        )
        self._acknowledge = acknowledge
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def __aenter__(self) -> Self:
        """Run all loops."""
        self.resume()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Release the lease as the daemon does, and fail where a loop ended by itself."""
        died = [task for task in self._tasks.values() if task.done()]
        await self.freeze()
        with contextlib.suppress(RedisUnavailableError):
            await self.port.release(self.shared.token)
        await self.port.close()
        await self.redis.aclose()
        for task in died:
            task.result()
        assert not died

    def resume(self) -> None:
        """Run all loops, for the first time or after ``freeze``."""
        loops = {
            "leader": self.leader.run,
            "demand": self.demand.run,
            "wake": self.demand.listen,
            "publish": self.publish.run,
            "report": self.report.run,
        }
        if self._acknowledge:
            loops["stream"] = self._stream
        self._tasks = {name: asyncio.create_task(run()) for name, run in loops.items()}

    async def freeze(self) -> None:
        """Run nothing any more, and release nothing."""
        tasks, self._tasks = self._tasks, {}
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)

    # What the test says

    def receive(self, *messages: Quote | Trade) -> None:
        """One frame of the stream."""
        self.intake(messages)

    def quote(self, symbol: str, bid: float, ask: float | None = None) -> None:
        """One quote, as of now."""
        self.receive(Quote(symbol, bid, bid + 0.02 if ask is None else ask, datetime.now(UTC)))

    async def want(self, *symbols: str, wake: bool = True) -> None:
        """Add to the demand, and wait until the market keeps the symbols."""
        keys = self.settings.keys
        await self.redis.sadd(keys.symbols, *symbols)
        if wake:
            await self.redis.publish(keys.wake, "")
        await eventually(lambda: self.wanted(*symbols), f"{symbols} to be desired")

    def wanted(self, *symbols: str) -> bool:
        """Whether all these are desired."""
        return self.shared.demand.symbols.issuperset(symbols)

    async def leads(self, patience_s: float = PATIENCE_S) -> float:
        """Wait until it leads and knows the demand. Gives how long it took."""
        shared = self.shared
        return await eventually(
            lambda: shared.leads() and shared.facts.leader
            and shared.demand_read_in_term == shared.term,
            "leading",
            patience_s,
        )  # fmt: skip

    # What the test hears

    async def last(self, symbol: str) -> JSON | None:
        """What ``spotd:last`` holds of a symbol."""
        raw = await self.redis.hget(self.settings.keys.last, symbol)
        return None if raw is None else json.loads(raw)

    async def bid(self, symbol: str) -> float | None:
        """The bid that ``spotd:last`` holds of a symbol."""
        last = await self.last(symbol)
        return None if last is None else float(last["bid_price"])

    async def states(self) -> dict[str, JSON]:
        """What ``spotd:states`` holds."""
        raw = await self.redis.hgetall(self.settings.keys.states)
        return {str(name): json.loads(state) for name, state in raw.items()}

    async def state(self, symbol: str) -> str | None:
        """The state of one symbol."""
        raw = await self.redis.hget(self.settings.keys.states, symbol)
        return None if raw is None else str(json.loads(raw)["state"])

    async def status(self) -> JSON | None:
        """What ``spotd:status`` holds."""
        raw = await self.redis.get(self.settings.keys.status)
        return None if raw is None else json.loads(raw)

    async def _stream(self) -> None:
        """Alpaca's part: every request is acknowledged as it is."""
        shared = self.shared
        subscriptions = shared.subscriptions
        shared.facts.stream_open = True
        subscriptions.connected()
        while True:
            request = subscriptions.next_request(time.monotonic())
            if request is None:
                await shared.bells.stream.wait(1.0)
                continue
            active = set(subscriptions.active)
            if request.action == "unsubscribe":
                active -= set(request.symbols)
            else:
                active |= set(request.symbols)
            new = subscriptions.acknowledged(active, active, time.monotonic())
            shared.facts.ever_active |= new
            shared.bells.report.ring()


def logged(lines: Sequence[Mapping[str, Any]], event: str) -> list[Mapping[str, Any]]:
    """The log lines of one event."""
    return [line for line in lines if line["event"] == event]
