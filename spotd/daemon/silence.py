"""Watches for a stream that is open but mute: pings are answered, yet no data comes.

Silence alone says nothing: a closed market is silent for hours. So after some silence Alpaca's
REST is asked for the same symbols. If it knows prices that the stream should have brought, the
stream is mute: symbols go stale, the REST prices are taken in, and the stream is opened anew.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot, Snapshots
from spotd.alpaca.stream import AlpacaStream
from spotd.core.conflate import Slot
from spotd.core.market import is_two_sided, reflected_at
from spotd.core.states import brings_too_little
from spotd.daemon.intake import Intake
from spotd.daemon.shared import Shared
from spotd.daemon.snapshots import take_in
from spotd.errors import AlpacaRefusedError, SnapshotError, StreamError

SILENCE_S = 30.0
_DEADLINE_S = 10.0

log = structlog.get_logger("spotd.watch")


class WatchLoop:
    """Asks REST after ``silence_s`` seconds without data, and again after as long."""

    def __init__(
        self,
        shared: Shared,
        stream: AlpacaStream,
        snapshots: Snapshots,
        intake: Intake,
        *,
        silence_s: float = SILENCE_S,
    ) -> None:
        self._shared = shared
        self._stream = stream
        self._snapshots = snapshots
        self._intake = intake
        self._silence_s = silence_s

    async def run(self) -> None:
        """Watch for ever."""
        shared = self._shared
        while True:
            silent_s = time.monotonic() - shared.data_at
            await asyncio.sleep(max(self._silence_s - silent_s, self._silence_s / 10))
            if not shared.facts.stream_open or not shared.subscriptions.active:
                continue
            if time.monotonic() - shared.data_at >= self._silence_s:
                await self._ask()

    async def _ask(self) -> None:
        shared = self._shared
        data_at = shared.data_at
        slots = self._latest_moved()
        try:
            found = await self._snapshots.fetch(
                [slot.symbol for slot in slots], deadline_s=_DEADLINE_S
            )
        except (SnapshotError, AlpacaRefusedError) as error:
            log.warning("cannot tell whether the silent stream is mute", why=str(error))
            shared.data_at = time.monotonic()  # ask again after as long
            return
        if shared.data_at != data_at or not shared.facts.stream_open:
            return  # it spoke meanwhile, or is another one, or none
        shared.data_at = time.monotonic()
        ahead = [slot.symbol for slot in slots if self._is_ahead(found.get(slot.symbol), slot)]
        if not ahead:
            if any(slot.quoted_at is None for slot in slots):
                take_in(shared, found)  # no price yet: what REST knows is better than none
                self._intake.primed()
            return
        log.warning("the stream is mute", silent_s=self._silence_s, symbols=len(ahead))
        shared.facts.stream_mute = True
        shared.subscriptions.version += 1
        shared.bells.report.ring()
        take_in(shared, found)
        self._intake.primed()
        self._stream.give_up(
            StreamError("the stream was mute although the market moved", reason="mute")
        )

    def _latest_moved(self) -> list[Slot]:
        """The symbols without a price, then those that moved last: as many as one call takes."""
        slots = list(self._shared.market.slots.values())
        unknown = [slot for slot in slots if slot.quoted_at is None]
        known = [slot for slot in slots if slot.quoted_at is not None]
        known.sort(key=reflected_at, reverse=True)
        # Only those with a price tell whether the stream is mute, so they get most of the room.
        room = MAX_SYMBOLS_PER_CALL - min(len(unknown), MAX_SYMBOLS_PER_CALL // 4)
        return [*known[:room], *unknown[: MAX_SYMBOLS_PER_CALL - len(known[:room])]]

    def _is_ahead(self, snapshot: Snapshot | None, slot: Slot) -> bool:
        """Whether REST knows what the stream should have told.

        A one-sided quote is no such thing: the stream may have told it, and no slot keeps it.
        """
        if snapshot is None or snapshot.quote is None or slot.quoted_at is None:
            return False
        if not is_two_sided(snapshot.quote.bid, snapshot.quote.ask):
            return False
        return brings_too_little(stream_at=slot.quoted_at, rest_at=snapshot.quote.at)
