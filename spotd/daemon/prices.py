"""Owns the newest prices: every change of the price cache or of the conflator is made here.

This is the hot path, so it is mutable and synchronous. Each method leaves the prices complete when
it returns, and wakes the publishing loop where something is due.

Must not await, and must not decide which price is newer (the cache does).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from datetime import datetime

from spotd.alpaca.rest import Snapshot
from spotd.core.conflate import Conflator, Slot
from spotd.core.demand import Demand, DemandStep
from spotd.core.freshness import Silence
from spotd.core.lag import SAMPLE_EVERY_S, Lag
from spotd.core.messages import Message, Quote, Trade
from spotd.core.mute_symbols import MuteSymbols, MuteSymbolTimes
from spotd.core.prices import PriceCache
from spotd.core.publishing import SeqCounter
from spotd.daemon.value import Turn, Value, WakeUp
from spotd.ops.metrics import Metrics
from spotd.symbols import WILDCARD

_SEEN_EVERY_S = 0.001  # the time of the last message is no more exact than that


class Prices:
    """The newest prices of one daemon, and what is still to be dropped from Redis.

    ``halted`` are all halted symbols, ``mute`` those of which the stream brings nothing although
    it brings others. ``due`` calls the part that publishes. ``dropping`` are the symbols whose
    prices Redis still has to drop: the publishing loop removes them from it.
    ``under_way`` are the slots that are being published, and ``settled`` is the wake-up that the
    end of a call of the publishing loop sets; None: none. ``first_quotes`` is the wake-up of the
    loop that writes states. It is set when a symbol gets its first quote, and ``cache.quoted``
    tells which.
    """

    def __init__(
        self,
        *,
        throttle_s: float,
        demand: Value[Demand],
        silence: Silence,
        metrics: Metrics,
        lag: Lag | None = None,
        mute_symbol_times: MuteSymbolTimes | None = None,
    ) -> None:
        self.conflator = Conflator(throttle_s)
        self.cache = PriceCache(self.conflator, lambda symbol: demand.get().wants(symbol))
        self.seq = SeqCounter()
        self.halted: Value[frozenset[str]] = Value(self.cache.halts.symbols())
        self.mute_symbols = MuteSymbols(self.quoted_at, mute_symbol_times)
        self.mute: Value[frozenset[str]] = Value(self.mute_symbols.mute)
        self.lag = Lag(None) if lag is None else lag
        self.due = Turn()
        self.dropping: set[str] = set()
        self.under_way: Sequence[Slot] = ()
        self.settled: WakeUp | None = None
        self.first_quotes = WakeUp()
        self._stored: frozenset[str] = frozenset()  # symbols in ``spotd:last`` when last read
        self.last_message_unix_s: float | None = None
        self._demand = demand
        self._silence = silence
        self._metrics = metrics
        # For each frame: attributes of our own are found faster than those of others.
        self._receive = self.cache.receive
        self._halts = self.cache.halts
        self._mute_told = self.mute_symbols.mute
        self._first_quotes_told = 0
        self._seen_at = self._lag_seen_at = self._lag_sampled_at = 0.0

    def receive(self, messages: Sequence[Message]) -> None:
        """Take in one frame of the stream, in order."""
        now = self._silence.data_at = time.monotonic()
        self._receive(messages, now)
        if now - self._seen_at >= _SEEN_EVERY_S:
            self._see(messages, now)
        if self._mute_told:
            self._hear_mute(messages)
        if self.cache.first_quotes != self._first_quotes_told:
            self._tell_first_quotes()
        if self._halts.changed:
            self._tell_halted()
        if self.conflator.sooner:
            self.due.now()

    def take_snapshots(self, found: Mapping[str, Snapshot], *, trades: bool) -> None:
        """Take in latest values from REST.

        ``trades`` says whether the stream brings trades. Where it does not, a last price that
        cannot change would soon be wrong, so it is left out.
        """
        now = time.monotonic()
        for symbol, snapshot in found.items():
            trade = snapshot.trade if trades else None
            self.cache.take_snapshot(symbol, snapshot.quote, trade, now)
            if snapshot.trade is not None and not trades:
                self.cache.see_trade(snapshot.trade)
        self._tell_halted()
        self._tell_first_quotes()
        self._wake()

    def follow(self, step: DemandStep) -> None:
        """Take in what follows from a change of the demand."""
        self.cache.drop(step.drop)
        stored = self._stored if WILDCARD in step.unsubscribe else frozenset[str]()
        self._drop(self.dropping | step.drop | stored)

    def drop_stored(self, symbols: Iterable[str]) -> None:
        """Have Redis drop the prices of stored ``symbols`` that nobody wants.

        A price that is wanted as a part of the whole market is dropped when the market leaves.
        """
        self._stored = frozenset(symbols)
        self._drop(self.dropping | self._stored)

    def _drop(self, symbols: Set[str]) -> None:
        # A symbol that came back is not dropped, also if it came back as a part of the market.
        self.dropping = self._demand.get().unwanted(symbols)
        if self.dropping:
            self.due.set()

    def set_floors(self, published: Mapping[str, datetime]) -> None:
        """Note what a predecessor published, by exchange time: no snapshot may be older."""
        self.cache.set_floors(published)

    def begin_term(self) -> None:
        """Publish every known price anew.

        A price that an earlier term was going to drop is not dropped: another daemon may have
        published it since. Which prices have to go is found out anew once the demand is read.
        """
        self.dropping.clear()
        self.republish()

    def republish(self) -> None:
        """Publish every known price anew: Redis may have lost it."""
        self.cache.republish(time.monotonic())
        self._wake()

    def forget(self) -> None:
        """Forget every price: another daemon publishes newer ones."""
        self.cache.forget()
        self._tell_halted()

    def forget_last_sales(self) -> None:
        """Forget every last price: the stream brings no trades any more."""
        self.cache.forget_last_sales(time.monotonic())
        self._wake()

    def begin_session(self) -> None:
        """Take in that a new session with Alpaca begins: trades may have been missed."""
        now = time.monotonic()
        self._silence.opened(now)
        self.lag.opened(now)
        self.mute_symbols.opened()
        self.tell_mute()
        self.cache.interrupted()

    def take_over_halts(self, published: Mapping[str, datetime]) -> None:
        """Take in the halts that a predecessor published, with the time of each."""
        self._halts.take_over(published)
        self._tell_halted()

    def quoted_at(self, symbol: str) -> datetime | None:
        """Return the exchange time of the newest quote of a symbol; None without one."""
        slot = self.cache.slots.get(symbol)
        return None if slot is None else slot.quoted_at

    def tell_mute(self) -> None:
        """Publish which symbols are mute."""
        self._mute_told = self.mute_symbols.mute
        self.mute.set(self._mute_told)

    def pending(self) -> bool:
        """Return whether any price has changed since it was last emitted."""
        return any(slot.changed for slot in self.cache.slots.values())

    def tell_settled(self) -> None:
        """Take in that a call of the publishing loop has ended."""
        self.under_way = ()
        if self.settled is not None:
            self.settled.set()

    def to_come(self) -> Callable[[str], bool]:
        """Return a function that says whether a price of a symbol is still to be published.

        What it says holds until the next call of the publishing loop, or message, is taken in.
        """
        under_way, slots = {slot.symbol for slot in self.under_way}, self.cache.slots

        def is_to_come(symbol: str) -> bool:
            if symbol == WILDCARD:
                return bool(under_way) or self.pending()
            slot = slots.get(symbol)
            return symbol in under_way or (slot is not None and slot.changed)

        return is_to_come

    def _wake(self) -> None:
        if self.conflator.sooner:
            self.due.set()

    def _tell_first_quotes(self) -> None:
        if self.cache.first_quotes != self._first_quotes_told:
            self._first_quotes_told = self.cache.first_quotes
            self.first_quotes.set()

    def _tell_halted(self) -> None:
        self.halted.set(self._halts.symbols())

    def _hear_mute(self, messages: Sequence[Message]) -> None:
        """Take in that mute symbols are quoted again. A one-sided quote is one too."""
        quoted = {message.symbol for message in messages if isinstance(message, Quote)}
        if not quoted.isdisjoint(self._mute_told):
            self.mute_symbols.heard(quoted)
            self.tell_mute()

    def _see(self, messages: Sequence[Message], now: float) -> None:
        """Note when the last message came, and now and then how late it was."""
        newest = messages[-1]
        if not isinstance(newest, Quote | Trade):
            return
        self._seen_at = now
        self.last_message_unix_s = received = time.time()
        if now - self._lag_seen_at >= SAMPLE_EVERY_S:
            self._lag_seen_at = now
            self._metrics.feed_lag.observe(max(0.0, received - newest.at.timestamp()))
        if now - self._lag_sampled_at < SAMPLE_EVERY_S:
            return
        quote: Message | None = newest
        if isinstance(newest, Trade):
            # Only quotes count: trades of the overnight feed are 15 minutes late by design.
            quote = next((each for each in reversed(messages) if isinstance(each, Quote)), None)
        if isinstance(quote, Quote):
            self._lag_sampled_at = now
            self.lag.samples.add(received - quote.at.timestamp(), now)
