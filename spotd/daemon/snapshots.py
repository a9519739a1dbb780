"""Gives new symbols a price at once: latest quote and trade over REST, in batches.

A failure costs a first price, never the stream: after one more try the symbol waits for its
first quote. The market rules decide whether a snapshot is newer than what the stream told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.daemon.intake import Intake
from spotd.daemon.shared import Shared
from spotd.errors import AlpacaRefusedError, SnapshotError

_CALLS_AT_ONCE = 4
# Between the starts of two calls: they run in threads, and what a thread computes the event loop
# waits for. So a whole market is asked for in seconds, and what is live does not feel it.
_CALL_EVERY_S = 0.02

log = structlog.get_logger("spotd.prime")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and how often, a batch is asked for."""

    deadline_s: float = 10.0
    tries: int = 2
    retry_s: float = 2.0  # between two tries


class PrimeLoop:
    """Fetches snapshots of the symbols that the stream loop names."""

    def __init__(
        self,
        shared: Shared,
        snapshots: Snapshots,
        intake: Intake,
        patience: Patience | None = None,
    ) -> None:
        self._shared = shared
        self._snapshots = snapshots
        self._intake = intake
        self._patience = Patience() if patience is None else patience
        self._waiting: dict[str, None] = {}  # the next one last

    async def run(self) -> None:
        """Prime what is new, for ever."""
        shared = self._shared
        free = asyncio.Semaphore(_CALLS_AT_ONCE)
        async with asyncio.TaskGroup() as calls:
            while True:
                if not self._waiting and not shared.to_prime:
                    await shared.bells.prime.wait()
                    continue
                await free.acquire()
                call = calls.create_task(self._prime(self._next_batch()), name="prime")
                call.add_done_callback(lambda _: free.release())
                await asyncio.sleep(_CALL_EVERY_S)

    def _next_batch(self) -> list[str]:
        """The newest ones: a single new symbol does not wait for a whole market."""
        waiting = self._waiting
        for symbol in sorted(self._shared.to_prime, reverse=True):
            waiting.pop(symbol, None)
            waiting[symbol] = None
        self._shared.to_prime.clear()
        return [waiting.popitem()[0] for _ in range(min(len(waiting), MAX_SYMBOLS_PER_CALL))]

    async def _prime(self, symbols: list[str]) -> None:
        patience = self._patience
        for attempt in range(1, patience.tries + 1):
            try:
                found = await self._snapshots.fetch(symbols, deadline_s=patience.deadline_s)
            except (SnapshotError, AlpacaRefusedError) as error:
                # Refused keys end the daemon when the *stream* says so: plans may lack REST.
                self._shared.metrics.snapshots_failed += 1
                log.warning("no snapshots", why=str(error), symbols=len(symbols), attempt=attempt)
                if isinstance(error, AlpacaRefusedError) or attempt == patience.tries:
                    return
                await asyncio.sleep(patience.retry_s)
            else:
                take_in(self._shared, found)
                self._intake.primed()
                log.debug("primed", asked=len(symbols), found=len(found))
                return


def take_in(shared: Shared, found: Mapping[str, Snapshot]) -> None:
    """Tell the market; without a stream of trades no last price, for it would never change."""
    trades = shared.subscriptions.trades
    shared.conflator.now = time.monotonic()
    for symbol, snapshot in found.items():
        shared.market.prime(symbol, snapshot.quote, snapshot.trade if trades else None)
