"""Asks REST about a stream that is open and silent, and ends its session where it is mute.

Must not decide when to ask, nor what REST's answer means: ``core.freshness`` does.
"""

from __future__ import annotations

import time

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot
from spotd.alpaca.stream import AlpacaStream
from spotd.core.freshness import Silence
from spotd.core.prices import reflected_at
from spotd.core.states import StreamState
from spotd.core.trading_hours import Market, TradingHours
from spotd.daemon.prices import Prices
from spotd.daemon.questions import Questions
from spotd.daemon.value import Value, WakeUp
from spotd.errors import StreamError
from spotd.models import utc
from spotd.symbols import WILDCARD

log = structlog.get_logger("spotd.silence")


class SilenceLoop:
    """The loop that asks REST about a silent stream, sooner while the market is open."""

    def __init__(
        self,
        alpaca: AlpacaStream,
        questions: Questions,
        prices: Prices,
        *,
        silence: Silence,
        stream: Value[StreamState],
        hours: Value[TradingHours],
    ) -> None:
        self._alpaca = alpaca
        self._questions = questions
        self._prices = prices
        self._silence = silence
        self._stream = stream
        self._hours = hours
        self._withheld: dict[str, Snapshot] = {}  # what REST knows of suspected symbols
        self._wake_up = WakeUp()
        for value in (stream, hours):
            value.wakes(self._wake_up)

    async def run(self) -> None:
        """Ask, and judge, whenever ``Silence`` says that it is time."""
        while True:
            market = self._hours.get().at(utc(time.time()))
            if not self._stream.get().serves:
                await self._wake_up.wait()
            elif self._silence.judge_at is not None:
                self._judge()
                await self._wake_up.wait(self._silence.judge_at or time.monotonic())
            elif self._silence.due(market.name, time.monotonic()):
                await self._ask()
            else:
                await self._wake_up.wait(self._next_at(market))

    def _next_at(self, market: Market) -> float:
        """Return when to ask, or when the market changes, in monotonic seconds."""
        at = self._silence.check_at(market.name)
        if market.changes_at is None:
            return at
        return min(at, time.monotonic() + market.changes_at.timestamp() - time.time())

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
        found = await self._questions.ask(chosen)
        if found is None:
            self._silence.could_not_ask(time.monotonic())
            return
        if not self._stream.get().serves:
            return
        judgement = self._silence.judge(
            {symbol: slots[symbol].quoted_at if symbol in slots else None for symbol in chosen},
            {symbol: snapshot.quote for symbol, snapshot in found.items()},
            time.monotonic(),
            asked_at=asked_at,
        )
        self._withheld = {symbol: found[symbol] for symbol in judgement.suspected}
        self._take({symbol: found[symbol] for symbol in judgement.unpriced if symbol in found})

    def _judge(self) -> None:
        mute = self._silence.judge_mute(time.monotonic())
        if mute is None:
            return
        found, self._withheld = self._withheld, {}
        if mute:
            self._take(found)
            log.warning("the stream is mute")
            self._alpaca.give_up(
                StreamError("the stream was mute although the market moved", reason="mute")
            )

    def _take(self, found: dict[str, Snapshot]) -> None:
        self._prices.take_snapshots(found, trades=self._stream.get().subscriptions.trades)
