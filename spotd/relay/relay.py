"""DRIVES. One relay without any framework: prices come from a source, clients come from an edge.

Knows the clock and the event loop, asks ``hub``, ``tick`` and ``limits`` what to do, and does it.
An edge brings connections: it joins each as a client with a ``Sink``, which is served when it is
due. Must not know how connections are made, and decides nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NoReturn, Protocol

from spotd.errors import RedisUnavailableError
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState, rfc3339, utc
from spotd.reasons import Reason
from spotd.relay import protocol
from spotd.relay.hub import Hub, Wanted
from spotd.relay.limits import Admission, Full, Limits
from spotd.relay.metrics import Numbers, RelayMetrics
from spotd.relay.slots import Client
from spotd.relay.tick import Tick
from spotd.relay.wire import Wire

_CONFIRM_S = 5.0  # the longest wait for Redis to take a demand


class Source(Protocol):
    """Where prices come from: ``spotd.client.Follower``."""

    def add(self, *symbols: str) -> None:
        """Follow these symbols too."""

    def remove(self, *symbols: str) -> None:
        """Follow these symbols no longer."""

    async def confirm(self, *symbols: str) -> None:
        """Wait until the demand of these is written. Raises RedisUnavailableError."""


class Sink(Protocol):
    """A client's connection."""

    def serve(self, now: float, timestamp: str) -> None:
        """Take what is due from the hub, and send it. ``timestamp`` is that of batches."""

    def beat(self, now: float) -> None:
        """Ping the client, or give it up, where it is time to."""

    def stop(self) -> None:
        """Send what is due, and say goodbye."""

    def abort(self) -> None:
        """End the connection at once."""


class Relay:
    """One relay. It is the source's listener, too.

    ``simulated``: clients are told that the prices are made up. ``clock`` is monotonic seconds.
    ``every_s``: how often clients are pinged and symbols that nobody wants any more are given up,
    where it is time to.
    """

    def __init__(
        self,
        limits: Limits,
        *,
        demand: bool = True,
        simulated: bool = False,
        clock: Callable[[], float] = time.monotonic,
        every_s: float = 1.0,
    ) -> None:
        self.limits = limits
        self.clock = clock
        self.hub = Hub(limits)
        self.metrics = RelayMetrics()
        self.metrics.numbers_from(self._numbers)
        self._demand = demand
        self._simulated = simulated
        self._every_s = every_s
        self._admission = Admission(limits, clock())
        self._tick = Tick()
        self._sinks: dict[Client, Sink] = {}
        self._source: Source | None = None
        self._wake_up = asyncio.Event()
        self._no_clients = asyncio.Event()
        self._no_clients.set()
        self._connected = False
        self._away = False  # unlike at the start, when nothing is known
        self._why = "not connected yet"
        self._status: DaemonStatus | None = None
        self._status_raw = b""
        self._stopping = False
        self._told = protocol.relay_status(self._not_ready())

    def attach(self, source: Source) -> None:
        """Take symbols from this source from now on."""
        self._source = source

    # What the source tells: spotd.client.FollowerListener

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Take in the newest price of a symbol."""
        raw = protocol.one_line(raw, update)
        self.hub.price(update.symbol, raw, self.clock(), time.time())
        self._serve_soon()

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Take in the newest state of a symbol."""
        self.hub.state(state.symbol, protocol.for_clients(raw, state), self.clock())
        self._serve_soon()

    def ended(self, symbol: str) -> None:
        """Take in that a symbol is streamed no longer."""
        self.hub.ended(symbol, self.clock(), time.time())
        self._serve_soon()

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """Take in the daemon's newest status; None: no daemon runs."""
        self._status = status
        self._status_raw = b"" if status is None else protocol.for_clients(raw, status)
        self.hub.daemon(None if status is None else self._status_raw, self.clock())
        self._tell_own_status()

    def gap(self, gap: Gap, raw: bytes) -> None:
        """Take in that no prices came between two times."""
        self.hub.gap(protocol.for_clients(raw, gap), self.clock())
        self._serve_soon()

    def connection(self, connected: bool, why: str) -> None:
        """Take in whether Redis is there."""
        self._connected = connected
        self._away = not connected
        self._why = why
        self._tell_own_status()

    # What edges ask

    def enter(self) -> Full | None:
        """Let a connection in that will ``join``, or return why not."""
        return self.full() or self._admission.enter(self.clock())

    def full(self) -> Full | None:
        """Return why no connection may come in, however few do. None: one may."""
        return Full("the relay stops", 1) if self._stopping else self._admission.full()

    def turn_back(self) -> None:
        """Forget a connection that has entered and was gone before it could join."""
        self._admission.leave()

    @property
    def has_nobody(self) -> bool:
        """Whether no connection is left."""
        return not self._sinks

    @property
    def stops(self) -> bool:
        """Whether the relay has begun to stop."""
        return self._stopping

    def join(self, wire: Wire, sink: Sink) -> Client:
        """Take in the client of a connection that has entered."""
        client = self.hub.join(wire)
        self._sinks[client] = sink
        self._no_clients.clear()
        return client

    def hello(self) -> bytes:
        """Return the first message for a client."""
        return protocol.hello(
            self.limits, self._status, self._status_raw, self._told, simulated=self._simulated
        )

    def retire(self, client: Client) -> None:
        """Tell a client nothing more: its connection is about to end."""
        self.hub.leave(client, self.clock())

    def leave(self, client: Client) -> None:
        """Forget a client whose connection ended. May be called twice."""
        if self._sinks.pop(client, None) is not None:
            self.hub.leave(client, self.clock())
            self._admission.leave()
        if not self._sinks:
            self._no_clients.set()

    def follow(self, new: Iterable[str]) -> None:
        """Have the source follow symbols that nobody wanted before, and clients served."""
        symbols = tuple(new)
        if symbols and self._source is not None:
            self._source.add(*symbols)
        self._serve_soon()

    def unblock(self, client: Client) -> None:
        """Serve a client again whose connection holds no bytes any more."""
        self.hub.unblock(client, self.clock())
        self._serve_soon()

    async def reserve(self, symbols: list[str]) -> Wanted:
        """Want symbols for a while.

        Raises RedisUnavailableError where Redis is away, also without demand: no prices would come.
        """
        wanted = self.hub.reserve(symbols, self.clock())
        self.follow(wanted.new)
        if not wanted.accepted:
            return wanted
        if self._source is None or self._away:
            # What was written before Redis went away is confirmed, and may be lost.
            raise RedisUnavailableError(self._why)
        if self._demand:
            try:
                async with asyncio.timeout(_CONFIRM_S):
                    await self._source.confirm(*wanted.accepted)
            except TimeoutError:
                raise RedisUnavailableError("Redis did not take the demand in time") from None
        return wanted

    @property
    def demands(self) -> bool:
        """Whether what clients want is demanded of the daemon."""
        return self._demand

    @property
    def has_daemon(self) -> bool:
        """Whether a daemon runs, as far as known."""
        return self._status is not None

    def not_ready(self) -> list[str]:
        """Return the reasons against being ready, each a code, a colon and a sentence.

        They are for operators, and name the address of Redis.
        """
        return list(map(str, self._not_ready()))

    # Loops

    async def run(self) -> NoReturn:
        """Serve clients until cancelled."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(self._serve(), name="relay-serve")
            loops.create_task(self._keep(), name="relay-keep")
        raise AssertionError("the loops never end")

    async def stop(self, limit_s: float) -> None:
        """Send every client what is due and say goodbye. Wait for them at most ``limit_s``."""
        self._stopping = True
        for sink in tuple(self._sinks.values()):
            sink.stop()
        try:
            async with asyncio.timeout(limit_s):
                await self._no_clients.wait()
        except TimeoutError:
            for sink in tuple(self._sinks.values()):
                sink.abort()

    async def _serve(self) -> NoReturn:
        clock, tick, hub = self.clock, self._tick, self.hub
        while True:
            if not hub.listed:
                await self._wait(hub.held_until)
                hub.release(clock())
                continue
            await asyncio.sleep(max(0.0, tick.next_at(clock()) - clock()))
            begun, timestamp = clock(), rfc3339(utc(time.time()))
            for client in hub.due(tick.begin(begun)):
                sink = self._sinks.get(client)
                if sink is not None:
                    sink.serve(begun, timestamp)
            hub.release(begun)
            # An edge that sends in tasks does so now: that costs time as well.
            await asyncio.sleep(0)
            tick.served(clock() - begun)

    async def _wait(self, until: float | None) -> None:
        """Wait until a client is listed, or until a time."""
        self._wake_up.clear()
        try:
            async with asyncio.timeout(None if until is None else max(0.0, until - self.clock())):
                await self._wake_up.wait()
        except TimeoutError:
            return

    async def _keep(self) -> NoReturn:
        while True:
            await asyncio.sleep(self._every_s)
            now = self.clock()
            gone = self.hub.lapse(now)
            if self._source is not None:
                # Also where nothing lapsed: a source that a defect ended raises here, and the
                # relay ends with it instead of showing old prices.
                self._source.remove(*gone)
            for sink in tuple(self._sinks.values()):
                sink.beat(now)

    def _serve_soon(self) -> None:
        # A price that max_hz holds back may be due before the time that the loop waits for.
        if not self._wake_up.is_set():
            self._wake_up.set()

    def _tell_own_status(self) -> None:
        told = protocol.relay_status(self._not_ready())
        if told != self._told:
            self._told = told
            self.hub.relay(told, self.clock())
        self._serve_soon()

    def _not_ready(self) -> list[Reason]:
        reasons = []
        if self._stopping:
            reasons.append(Reason("stopping", "the relay stops"))
        if not self._connected:
            reasons.append(Reason("redis_away", self._why))
        elif self._status is None:
            reasons.append(Reason("no_daemon", "no daemon runs"))
        return reasons

    def _numbers(self) -> Numbers:
        counts = self.hub.counts
        wires = Counter(client.wire for client in self._sinks)
        return Numbers(
            # Nobody scrapes a relay within FastAPI, whose clients are of the third kind.
            clients={kind.name.lower(): wires[kind] for kind in (Wire.WEBSOCKET, Wire.EVENTS)},
            blocked=self.hub.blocked,
            symbols=self.hub.symbols,
            messages=counts.messages,
            updates=counts.updates,
            skipped=counts.skipped,
            tick_s=self._tick.length_s,
            redis_connected=self._connected,
            ready=not self.not_ready(),
        )
