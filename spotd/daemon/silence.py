"""Asks REST about a stream that is open and silent, and ends its session where it is mute.

Must not decide when to ask, nor what REST's answer means: ``core.freshness`` does.
"""

from __future__ import annotations

import time

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshots
from spotd.alpaca.stream import AlpacaStream
from spotd.core.freshness import Silence
from spotd.core.prices import reflected_at
from spotd.core.states import StreamState
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import AlpacaRefusedError, SnapshotError, StreamError
from spotd.symbols import WILDCARD

_DEADLINE_S = 10.0

log = structlog.get_logger("spotd.silence")


class SilenceLoop:
    """The loop that asks REST about a silent stream."""

    def __init__(
        self,
        alpaca: AlpacaStream,
        snapshots: Snapshots,
        prices: Prices,
        *,
        silence: Silence,
        stream: Value[StreamState],
    ) -> None:
        self._alpaca = alpaca
        self._snapshots = snapshots
        self._prices = prices
        self._silence = silence
        self._stream = stream
        self._wake_up = WakeUp()
        stream.wakes(self._wake_up)

    async def run(self) -> None:
        """Ask whenever ``Silence`` says that it is time."""
        while True:
            if not self._serving():
                await self._wake_up.wait()
            elif self._silence.due(time.monotonic()):
                await self._ask()
            else:
                await self._wake_up.wait(self._silence.check_at)

    def _serving(self) -> bool:
        stream = self._stream.get()
        return stream.phase == "open" and bool(stream.subscriptions.active)

    async def _ask(self) -> None:
        slots = self._prices.cache.slots
        known = [
            (slot.symbol, slot.quoted_at, None if slot.quoted_at is None else reflected_at(slot))
            for slot in slots.values()
        ]
        active = self._stream.get().subscriptions.active
        unknown = [(s, None, None) for s in active if s not in slots and s != WILDCARD]
        chosen = self._silence.choose([*known, *unknown], MAX_SYMBOLS_PER_CALL)
        asked_at = time.monotonic()
        try:
            found = await self._snapshots.fetch(chosen, deadline_s=_DEADLINE_S)
        except (SnapshotError, AlpacaRefusedError) as error:
            log.warning("cannot tell whether the silent stream is mute", why=str(error))
            self._silence.could_not_ask(time.monotonic())
            return
        if not self._serving():
            return
        judgement = self._silence.judge(
            {symbol: slots[symbol].quoted_at if symbol in slots else None for symbol in chosen},
            {symbol: snapshot.quote for symbol, snapshot in found.items()},
            time.monotonic(),
            asked_at=asked_at,
        )
        if judgement.mute or judgement.unpriced:
            trades = self._stream.get().subscriptions.trades
            self._prices.take_snapshots(found, trades=trades)
        if judgement.mute:
            log.warning("the stream is mute", symbols=len(judgement.mute))
            self._alpaca.give_up(
                StreamError("the stream was mute although the market moved", reason="mute")
            )
