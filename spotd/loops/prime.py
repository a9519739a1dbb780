"""Gives new symbols a price at once: latest quote and trade over REST, in batches.

A failure costs a first price, never the stream: after one more try the symbol waits for its
first quote. The market rules decide whether a snapshot is newer than what the stream told.
"""

from __future__ import annotations

import asyncio
from itertools import islice

import structlog

from spotd.adapters.snapshots import MAX_SYMBOLS_PER_CALL, Snapshots
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.loops.intake import Intake
from spotd.loops.shared import Shared

_CALLS_AT_ONCE = 4
_DEADLINE_S = 10.0
_TRIES = 2
_RETRY_S = 2.0

log = structlog.get_logger("spotd.prime")


class PrimeLoop:
    """Fetches snapshots of the symbols that the stream loop names."""

    def __init__(self, shared: Shared, snapshots: Snapshots, intake: Intake) -> None:
        self._shared = shared
        self._snapshots = snapshots
        self._intake = intake

    async def run(self) -> None:
        """Prime what is new, for ever."""
        shared = self._shared
        while True:
            if not shared.to_prime:
                await shared.bells.prime.wait()
            wave = sorted(shared.to_prime)
            shared.to_prime.clear()
            batches = _batches(wave)
            for first in range(0, len(batches), _CALLS_AT_ONCE):
                async with asyncio.TaskGroup() as calls:
                    for batch in batches[first : first + _CALLS_AT_ONCE]:
                        calls.create_task(self._prime(batch), name="prime")

    async def _prime(self, symbols: list[str]) -> None:
        for attempt in range(1, _TRIES + 1):
            try:
                found = await self._snapshots.fetch(symbols, deadline_s=_DEADLINE_S)
            except (SnapshotError, AlpacaRefusedError) as error:
                # Refused keys end the daemon when the *stream* says so: plans may lack REST.
                self._shared.metrics.snapshots_failed += 1
                log.warning("no snapshots", why=str(error), symbols=len(symbols), attempt=attempt)
                if isinstance(error, AlpacaRefusedError) or attempt == _TRIES:
                    return
                await asyncio.sleep(_RETRY_S)
            else:
                for symbol, snapshot in found.items():
                    self._shared.market.prime(symbol, snapshot.quote, snapshot.trade)
                self._intake.primed()
                log.info("primed", asked=len(symbols), found=len(found))
                return


def _batches(symbols: list[str]) -> list[list[str]]:
    rest = iter(symbols)
    return list(iter(lambda: list(islice(rest, MAX_SYMBOLS_PER_CALL)), []))
