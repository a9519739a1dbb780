"""Fetches a first price for new symbols: latest quote and trade over REST, in batches.

A failure costs a first price, never the stream: after one more try the symbol waits for its first
quote. In each term nothing is fetched before it is known what was published earlier.

Must not decide whether a snapshot is newer than what the stream brought.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.core.demand import Demand
from spotd.core.leadership import Leadership
from spotd.core.states import StreamState
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.ops.metrics import Metrics

_CALLS_AT_ONCE = 4
# Between the starts of two calls: they run in threads, and the event loop waits for what a thread
# computes. With this pause other prices stay in time while a whole market is fetched.
_CALL_EVERY_S = 0.02

log = structlog.get_logger("spotd.snapshots")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long, and how often, a batch is asked for."""

    deadline_s: float = 10.0
    tries: int = 2
    retry_s: float = 2.0  # between two tries


class SnapshotLoop:
    """Fetches snapshots of the symbols that it was told to ``want``, the newest first."""

    def __init__(
        self,
        snapshots: Snapshots,
        prices: Prices,
        *,
        leadership: Value[Leadership],
        demand: Value[Demand],
        stream: Value[StreamState],
        metrics: Metrics,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._snapshots = snapshots
        self._prices = prices
        self._leadership = leadership
        self._demand = demand
        self._stream = stream
        self._metrics = metrics
        self._retry = RetryPolicy() if retry is None else retry
        self._waiting: dict[str, None] = {}  # the next one last
        self._wake_up = WakeUp()
        demand.wakes(self._wake_up)

    def want(self, symbols: Iterable[str]) -> None:
        """Fetch these before those that wait already: one new symbol does not wait for a market."""
        for symbol in sorted(symbols, reverse=True):
            self._waiting.pop(symbol, None)
            self._waiting[symbol] = None
        if self._waiting:
            self._wake_up.set()

    async def run(self) -> None:
        """Fetch what is wanted."""
        free = asyncio.Semaphore(_CALLS_AT_ONCE)
        async with asyncio.TaskGroup() as calls:
            while True:
                if not (self._waiting and self._floors_known()):
                    await self._wake_up.wait()
                    continue
                await free.acquire()
                call = calls.create_task(self._fetch(self._next_batch()), name="snapshots")
                call.add_done_callback(lambda _: free.release())
                await asyncio.sleep(_CALL_EVERY_S)

    def _next_batch(self) -> list[str]:
        waiting = self._waiting
        return [waiting.popitem()[0] for _ in range(min(len(waiting), MAX_SYMBOLS_PER_CALL))]

    async def _fetch(self, symbols: list[str]) -> None:
        retry = self._retry
        for attempt in range(1, retry.tries + 1):
            try:
                found = await self._snapshots.fetch(symbols, deadline_s=retry.deadline_s)
            except (SnapshotError, AlpacaRefusedError) as error:
                # Refused keys end the daemon when the *stream* says so: plans may lack REST.
                self._metrics.snapshots_failed += 1
                log.warning("no snapshots", why=str(error), symbols=len(symbols), attempt=attempt)
                if isinstance(error, AlpacaRefusedError) or attempt == retry.tries:
                    return
                await asyncio.sleep(retry.retry_s)
            else:
                self._take_in(symbols, found)
                return

    def _take_in(self, asked: list[str], found: Mapping[str, Snapshot]) -> None:
        if not self._floors_known():
            self.want(asked)  # a term began meanwhile
            return
        self._prices.take_snapshots(found, trades=self._stream.get().subscriptions.trades)
        log.debug("snapshots taken in", asked=len(asked), found=len(found))

    def _floors_known(self) -> bool:
        """Return whether it is known what was published before the newest term.

        Another daemon may have published newer prices than REST has. They are read before the
        demand of a term is published. The stream of that term may be open earlier.
        """
        return self._demand.get().term == self._leadership.get().term
