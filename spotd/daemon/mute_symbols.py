"""Asks REST about silent symbols while the stream brings others, and renews those that are mute.

Must not decide whom to ask about, nor what REST's answer means: ``core.mute_symbols`` does.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import datetime

import structlog

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshot
from spotd.core.lag import LagState
from spotd.core.states import StreamState
from spotd.daemon.prices import Prices
from spotd.daemon.questions import Questions
from spotd.daemon.value import Value, WakeUp, beat_before
from spotd.models import utc
from spotd.symbols import WILDCARD

# How soon it is noticed that quotes come again after a silence.
FLOW_EVERY_S = 5.0
_NAMES_IN_LOG = 5

log = structlog.get_logger("spotd.mute_symbols")


class MuteSymbolLoop:
    """The loop that finds mute symbols. ``renew`` subscribes symbols anew."""

    def __init__(
        self,
        questions: Questions,
        prices: Prices,
        *,
        stream: Value[StreamState],
        lag: Value[LagState],
        renew: Callable[[frozenset[str]], None],
        flow_every_s: float = FLOW_EVERY_S,
    ) -> None:
        self._questions = questions
        self._prices = prices
        self._symbols = prices.mute_symbols
        self._stream = stream
        self._lag = lag
        self._renew = renew
        self._flow_every_s = flow_every_s
        self._withheld: dict[str, Snapshot] = {}  # what REST knows of suspected symbols
        self._wake_up = WakeUp()
        stream.wakes(self._wake_up)

    async def run(self) -> None:
        """Ask, and judge, while the stream brings quotes."""
        while True:
            if not self._stream.get().serves:
                await self._wake_up.wait()
                continue
            now = time.monotonic()
            lag_s = self._prices.lag.samples.median_s(now)
            if lag_s is None or self._lag.get().behind is not None:
                # Of a stream that is silent or behind, single symbols tell nothing.
                await self._wake_up.wait(beat_before(now + self._flow_every_s))
                continue
            self._follow()
            self._judge(now, lag_s - self._lag.get().clock_ahead_s)
            if now >= self._symbols.ask_at and await self._ask(utc(time.time() - lag_s)):
                continue
            soonest = min(self._symbols.ask_at, self._symbols.judge_at or self._symbols.ask_at)
            await self._wake_up.wait(max(soonest, now + 0.05))

    def _follow(self) -> None:
        subscriptions = self._stream.get().subscriptions
        if WILDCARD not in subscriptions.active:
            self._symbols.follow(subscriptions.active, subscriptions.served)
        elif self._symbols.round_over:
            priced = frozenset(self._prices.cache.slots)
            self._symbols.follow(priced, priced)
        self._prices.tell_mute()

    async def _ask(self, exchange_now: datetime) -> bool:
        """Ask about the next symbols. Return whether any was silent."""
        chosen = self._symbols.take(MAX_SYMBOLS_PER_CALL, exchange_now, time.monotonic())
        if not chosen:
            return False
        held = {symbol: self._prices.quoted_at(symbol) for symbol in chosen}
        found = await self._questions.ask(chosen)
        now = time.monotonic()
        if found is None:
            self._symbols.could_not_ask(now)
            return True
        if not self._stream.get().serves:
            return True
        quotes = {symbol: snapshot.quote for symbol, snapshot in found.items()}
        answer = self._symbols.answered(held, quotes, now)
        self._take({symbol: found[symbol] for symbol in answer.take})
        self._withheld.update((symbol, found[symbol]) for symbol in answer.suspected)
        self._renew_mute(answer.take, now)
        return True

    def _judge(self, now: float, lag_s: float) -> None:
        mute = self._symbols.judge(now, lag_s)
        if mute:
            log.warning("symbols are mute", symbols=len(mute), first=sorted(mute)[:_NAMES_IN_LOG])
            self._prices.tell_mute()
            self._take({symbol: self._withheld[symbol] for symbol in mute})
            self._renew_mute(mute, now)
        for symbol in self._withheld.keys() - self._symbols.suspected:
            del self._withheld[symbol]

    def _renew_mute(self, symbols: Iterable[str], now: float) -> None:
        due = self._symbols.renews(symbols, now)
        if due:
            self._renew(due)

    def _take(self, found: dict[str, Snapshot]) -> None:
        self._prices.take_snapshots(found, trades=self._stream.get().subscriptions.trades)
