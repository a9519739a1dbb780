"""One daemon in this process, between a simulated Alpaca and a real server.

A test says things as Alpaca does (``sim``) and as services do (``values``), and reads what the
daemon made of it in Redis or in the daemon's public values. It waits with ``until`` alone.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

from pydantic import SecretStr

from spotd.alpaca.handshake import Timeouts
from spotd.core.freshness import SilenceTimes
from spotd.core.pacing import Pauses
from spotd.daemon.daemon import Daemon, Timing
from spotd.daemon.states import STATUS_EVERY_S
from spotd.daemon.stream import PAUSE_IN_ROW_S
from spotd.daemon.trading_days import ReadDays
from spotd.settings import Settings
from spotd.simulator import Simulator
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import GUARD_S, until

KEY, SECRET = "demo-key", "demo-secret"
# Longer than ``until`` waits, so that no busy machine ends a term. A test about the end of a term
# names its own.
LONG_TTL_S = 120.0
# For a test about a Redis that hangs. A second in which any process may stand still ends no call.
GIVES_UP_S = 1.5
# No pause between tries that a test would have to sit out.
BRISK = Pauses(
    first_s=0.01, most_s=0.05, jitter_s=0.01, connection_limit_s=0.1, rate_limit_s=0.1, steady_s=60
)


def quote(symbol: str, bid: float, ask: float | None = None, **more: Any) -> dict[str, Any]:
    """Return a quote as ``Simulator.send`` takes it, as of now."""
    return {"T": "q", "S": symbol, "bp": bid, "ap": bid + 0.02 if ask is None else ask, **more}


def trade(symbol: str, price: float, **more: Any) -> dict[str, Any]:
    """Return a trade as ``Simulator.send`` takes it, as of now."""
    return {"T": "t", "S": symbol, "p": price, "c": ["@"], "z": "C", **more}


class Rig:
    """One daemon, its simulator and a client of its values. ``async with`` runs the daemon.

    ``values_url`` is where the test itself reads and writes, if that is not ``url``. ``settings``
    are those of the daemon, by field name, ``timing`` further times of ``Timing``. By default it
    has no throttle, takes no snapshots, allows any lag, knows no trading days and waits for any
    answer of Redis, so that nothing happens but what the test says. Where Redis hangs, a test gives
    ``redis_call_s``.
    """

    def __init__(
        self,
        url: str,
        sim: Simulator,
        *,
        pauses: Pauses = BRISK,
        silence_s: float = 30.0,
        grace_s: float = 0.1,
        timing: Mapping[str, Any] | None = None,
        linger_s: float = 10.0,
        status_every_s: float = STATUS_EVERY_S,
        timeouts: Timeouts | None = None,
        pause_in_row_s: float = PAUSE_IN_ROW_S,
        redis_call_s: float = GUARD_S,
        leads: bool = True,
        values_url: str | None = None,
        read_days: ReadDays = lambda _: (),
        **settings: Any,
    ) -> None:
        defaults: dict[str, Any] = {
            "api_key": SecretStr(KEY),
            "secret_key": SecretStr(SECRET),
            "stream_url": sim.stream_url("iex"),
            "data_url": sim.data_url,
            "redis_url": SecretStr(url),
            "http_port": 0,
            "leader_ttl_s": LONG_TTL_S,
            "snapshots": False,
            "max_lag_s": 0,
            "throttle_ms": 0,
        }
        self.settings = Settings(**(defaults | settings))
        self.sim = sim
        self.daemon = Daemon(
            self.settings,
            Timing(
                pauses=pauses,
                timeouts=Timeouts() if timeouts is None else timeouts,
                silence=SilenceTimes(silence_s, silence_s, silence_s, silence_s, grace_s),
                question_every_s=0.0,
                linger_s=linger_s,
                status_every_s=status_every_s,
                pause_in_row_s=pause_in_row_s,
                redis_call_s=redis_call_s,
                **({} if timing is None else timing),
            ),
            read_days=read_days,
        )
        self.values = Values(values_url or url, self.settings.keys, decode_responses=True)
        self._waits_to_lead = leads
        self._running: asyncio.Task[int] | None = None

    async def __aenter__(self) -> Self:
        """Run the daemon, and wait until it leads and has read the demand."""
        self._running = asyncio.create_task(self.daemon.run(), name="daemon")
        if self._waits_to_lead:
            await until(self.leads, "leading")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop the daemon in order, and fail where one of its loops ended by itself."""
        try:
            assert await self.stop() == 0
        finally:
            await self.values.aclose()

    async def stop(self) -> int:
        """Stop the daemon in order. Return its exit code."""
        running, self._running = self._running, None
        if running is None:
            return 0
        if not running.done():
            self.daemon.stop()
        async with asyncio.timeout(GUARD_S):
            return await running

    def leads(self) -> bool:
        """Return whether the daemon may publish and has read the demand in this term."""
        leadership = self.daemon.leadership.get()
        read_in = self.daemon.demand.get().term
        return leadership.may_publish(time.monotonic()) and read_in == leadership.term

    @property
    def status(self) -> dict[str, Any]:
        """What the daemon says of itself over HTTP at this moment, decoded."""
        decoded: dict[str, Any] = json.loads(self.daemon.status_json())
        return decoded

    @property
    def active(self) -> frozenset[str]:
        """What Alpaca has acknowledged."""
        return self.daemon.stream.get().subscriptions.active

    def waits(self, *words: str) -> bool:
        """Return whether the daemon says that it waits, with these words in its reason."""
        status = self.status
        return status["state"] == "waiting" and all(word in status["reason"] for word in words)

    def metric(self, sample: str) -> float:
        """Return one sample of the daemon's metrics, by its name and labels as they are written."""
        for line in self.daemon.metrics_text().decode().splitlines():
            if line.startswith(f"{sample} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"no sample {sample}")

    def works(self) -> bool:
        """Return whether all that the daemon says of itself is what a leader at work says."""
        return (
            self.leads()
            and self.status["state"] == "streaming"
            and self.metric("spotd_leader") == 1.0
            and self.daemon.not_ready() == []
        )

    def stands_by(self) -> bool:
        """Return whether all that the daemon says is what a healthy standby says."""
        status = self.status
        return (
            (status["state"], status["reason"]) == ("standby", "another daemon is the leader")
            and self.metric("spotd_leader") == 0.0
            and self.metric("spotd_stream_connected") == 0.0
            and self.daemon.not_ready() == []
        )

    async def want(self, *symbols: str) -> None:
        """Demand symbols, and wait until Alpaca has acknowledged all of them."""
        await self.values.want(*symbols)
        await until(lambda: self.active.issuperset(symbols), f"{symbols} to be active")

    async def want_only(self, *symbols: str) -> None:
        """Demand these symbols and no others, in one step, and wait until exactly they are active.

        An answer to a request for trading statuses may still be awaited.
        """
        keys = self.settings.keys
        async with self.values.redis.pipeline(transaction=True) as step:
            step.delete(keys.symbols)
            if symbols:
                step.sadd(keys.symbols, *symbols)
            step.publish(keys.wake, "")
            await step.execute()
        await until(lambda: self.active == set(symbols), f"exactly {symbols[:20]} to be active")

    async def lose_leadership(self) -> None:
        """Have another daemon lead, and wait until this one knows."""
        await self.values.redis.set(self.settings.keys.leader, "other:1", ex=600)
        await until(lambda: not self.daemon.leadership.get().leads, "the end of the term")

    async def lead_again(self) -> None:
        """Have the other daemon vanish, and wait until this one leads."""
        await self.values.redis.delete(self.settings.keys.leader)
        await until(self.leads, "leading again")

    async def quote(self, symbol: str, bid: float, ask: float | None = None) -> None:
        """Have Alpaca send one quote, and wait until the daemon has it."""
        await self.send(quote(symbol, bid, ask))

    async def send(self, *messages: dict[str, Any]) -> None:
        """Have Alpaca send messages, and wait until the daemon has taken them in."""
        cache = self.daemon.prices.cache
        before = cache.quotes_received + cache.trades_received
        expected = before + sum(message["T"] in "qt" for message in messages)
        await self.sim.send(messages)
        await until(
            lambda: cache.quotes_received + cache.trades_received >= expected,
            "the daemon to take in what Alpaca sent",
        )


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Have the server hang: connections stay open and nothing is answered."""
    server.freeze()
    try:
        yield
    finally:
        server.thaw()


@contextmanager
def commands(server: Server) -> Iterator[list[str]]:
    """Collect every command that the server takes meanwhile; all are there at the end."""
    seen: list[str] = []
    with server.client() as watching, watching.monitor() as monitor, server.client() as client:
        yield seen
        client.echo("the end")
        while "the end" not in (command := monitor.next_command()["command"]):
            seen.append(command)


def logged(lines: Sequence[Mapping[str, Any]], event: str) -> list[Mapping[str, Any]]:
    """Return the log lines of one event."""
    return [line for line in lines if line["event"] == event]


NewRig = Callable[..., Rig]
