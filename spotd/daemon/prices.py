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
from spotd.core.messages import Message, Quote, Trade
from spotd.core.prices import PriceCache
from spotd.core.publishing import SeqCounter
from spotd.daemon.value import Turn, Value, WakeUp
from spotd.ops.metrics import Metrics
from spotd.symbols import WILDCARD

_LAG_EVERY_S = 0.001  # a thousand samples a second tell as much as one for each frame


class Prices:
    """The newest prices of one daemon, and what is still to be dropped from Redis.

    ``halted`` are all halted symbols. ``due`` calls the part that publishes. ``dropping``
    are the symbols whose prices Redis still has to drop: the publishing loop removes them from it.
    ``under_way`` are the slots that are being published, and ``settled`` is whom the end of a call
    of the publishing loop wakes; None: nobody. ``first_quotes`` is the wake-up of the loop that
    writes states. It is set when a symbol gets its first quote, and ``cache.quoted`` tells which.
    """

    def __init__(
        self,
        *,
        throttle_s: float,
        demand: Value[Demand],
        silence: Silence,
        metrics: Metrics,
    ) -> None:
        self.conflator = Conflator(throttle_s)
        self.cache = PriceCache(self.conflator, lambda symbol: demand.get().wants(symbol))
        self.seq = SeqCounter()
        self.halted: Value[frozenset[str]] = Value(self.cache.halts.symbols())
        self.due = Turn()
        self.dropping: set[str] = set()
        self.under_way: Sequence[Slot] = ()
        self.settled: WakeUp | None = None
        self.first_quotes = WakeUp()
        self._stored: frozenset[str] = frozenset()  # symbols in ``spotd:last`` when last read
        self.last_message_unix_s: float | None = None
        self.lag_s: float | None = None
        self._demand = demand
        self._silence = silence
        self._metrics = metrics
        # For each frame: attributes of our own are found faster than those of others.
        self._receive = self.cache.receive
        self._halts = self.cache.halts
        self._first_quotes_told = 0
        self._lag_seen_at = 0.0

    def receive(self, messages: Sequence[Message]) -> None:
        """Take in one frame of the stream, in order."""
        now = self._silence.data_at = time.monotonic()
        self._receive(messages, now)
        if now - self._lag_seen_at >= _LAG_EVERY_S:
            self._see_lag(messages[-1], now)
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
        self._silence.opened(time.monotonic())
        self.cache.interrupted()

    def take_over_halts(self, published: Mapping[str, datetime]) -> None:
        """Take in the halts that a predecessor published, with the time of each."""
        self._halts.take_over(published)
        self._tell_halted()

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

    def _see_lag(self, newest: Message, now: float) -> None:
        if isinstance(newest, Quote | Trade):
            self._lag_seen_at = now
            self.last_message_unix_s = received = time.time()
            self.lag_s = lag_s = received - newest.at.timestamp()
            self._metrics.feed_lag.observe(max(0.0, lag_s))
