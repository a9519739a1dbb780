"""Asks REST what the stream should have brought, for all loops that doubt the stream.

All questions together are at most 30 calls a minute, which leaves room for first prices within the
200 of Alpaca's free plan. Must not decide what to ask for, nor what an answer means.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from spotd.alpaca.rest import Snapshot, Snapshots
from spotd.core.lag import ClockReading
from spotd.core.mute_symbols import CALL_EVERY_S
from spotd.errors import AlpacaRefusedError, SnapshotError

_DEADLINE_S = 10.0

log = structlog.get_logger("spotd.questions")


class Questions:
    """Calls to REST, none of which begins sooner than ``call_every_s`` after the one before."""

    def __init__(self, snapshots: Snapshots, *, call_every_s: float = CALL_EVERY_S) -> None:
        self._snapshots = snapshots
        self._call_every_s = call_every_s
        self._free_at = time.monotonic()
        self._fails = False  # the last call failed, which is logged once

    @property
    def clock(self) -> ClockReading | None:
        """By how much this machine's clock is ahead of REST's, by the newest answer that told."""
        return self._snapshots.clock

    async def ask(self, symbols: Sequence[str]) -> dict[str, Snapshot] | None:
        """Return what REST knows of at most 100 symbols, or None where it does not answer."""
        begin = max(time.monotonic(), self._free_at)
        self._free_at = begin + self._call_every_s
        await asyncio.sleep(begin - time.monotonic())
        try:
            found = await self._snapshots.fetch(symbols, deadline_s=_DEADLINE_S)
        except (SnapshotError, AlpacaRefusedError) as error:
            if not self._fails:
                log.warning("cannot tell whether the stream is mute", why=str(error))
            self._fails = True
            return None
        if self._fails:
            log.info("REST answers again")
        self._fails = False
        return found
