"""Fetches a first price for new symbols: latest quote and trade over REST, in batches.

A failure costs a first price, never the stream: after one more try the symbol waits for its first
quote. In each term nothing is fetched before the prices that were published earlier are known.

Must not decide whether a snapshot is newer than what the stream brought, nor which symbols come
first (``core.snapshot_queue`` does).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

import structlog
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception_type,
    stop_after_attempt,
)

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.core.demand import Demand
from spotd.core.leadership import Leadership
from spotd.core.snapshot_queue import SnapshotQueue
from spotd.core.states import StreamState
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.ops.metrics import Metrics
from spotd.symbols import WILDCARD

_CALLS_AT_ONCE = 4
# The pause between the starts of two calls. Calls run in threads, and the event loop waits while a
# thread computes. With the pause, other prices stay in time while a whole market is fetched.
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
        self._queue = SnapshotQueue()
        self._wake_up = WakeUp()
        demand.wakes(self._wake_up)

    def want(self, symbols: Iterable[str]) -> None:
        """Fetch these before those that wait already."""
        self._queue.want(symbols)
        if self._queue:
            self._wake_up.set()

    async def run(self) -> None:
        """Fetch the symbols that wait, in batches, a few calls at a time."""
        free = asyncio.Semaphore(_CALLS_AT_ONCE)
        async with asyncio.TaskGroup() as calls:
            while True:
                if not (self._queue and self._floors_known()):
                    await self._wake_up.wait()
                    continue
                await free.acquire()
                batch = self._queue.take(MAX_SYMBOLS_PER_CALL)
                call = calls.create_task(self._fetch(batch), name="snapshots")
                call.add_done_callback(lambda _: free.release())
                await asyncio.sleep(_CALL_EVERY_S)

    async def _fetch(self, symbols: list[str]) -> None:
        trying = AsyncRetrying(
            # REST's refusal of the keys is final. It does not end the daemon: a plan may lack REST.
            retry=retry_if_exception_type(SnapshotError),
            stop=stop_after_attempt(self._retry.tries),
            wait=self._pause_s,
            reraise=True,
        )
        with suppress(SnapshotError, AlpacaRefusedError):
            self._take_in(symbols, await trying(self._ask, symbols))

    def _pause_s(self, trying: RetryCallState) -> float:
        """Return how long to wait before the next try: longer where the server asks for it."""
        error = None if trying.outcome is None else trying.outcome.exception()
        asked_s = error.after_s if isinstance(error, SnapshotError) else None
        return max(self._retry.retry_s, asked_s or 0.0)

    async def _ask(self, symbols: list[str]) -> dict[str, Snapshot]:
        try:
            return await self._snapshots.fetch(symbols, deadline_s=self._retry.deadline_s)
        except (SnapshotError, AlpacaRefusedError) as error:
            self._metrics.snapshots_failed += 1
            log.warning("no snapshots", why=str(error), symbols=len(symbols))
            raise

    def _take_in(self, asked: list[str], found: Mapping[str, Snapshot]) -> None:
        if not self._floors_known():
            self.want(asked)  # a term has begun meanwhile
            return
        subscriptions = self._stream.get().subscriptions
        if WILDCARD not in subscriptions.active:
            # The others are stale, or pending. They are fetched anew when Alpaca acknowledges them.
            found = {name: found[name] for name in found if name in subscriptions.active}
        self._prices.take_snapshots(found, trades=subscriptions.trades)
        log.debug("snapshots taken in", asked=len(asked), found=len(found))

    def _floors_known(self) -> bool:
        """Return whether the prices that were published before this term are known.

        Another daemon may have published newer prices than REST has. They are read before the
        demand of a term is published. The stream of that term may be open earlier.
        """
        return self._demand.get().term == self._leadership.get().term
