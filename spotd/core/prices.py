"""Decides what a message changes in the newest prices. Must not know where they are published.

A slot is made by the first message or snapshot of a desired symbol. The owner of the demand says
which symbols are desired, by ``wants``; the cache keeps no copy of its answers. A message asks only
where its symbol has no slot, so every other message costs one look-up. As a consequence, a symbol
that is not desired any more keeps its slot until the owner of the demand calls ``drop``.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from spotd.core.conflate import Conflator, Phase, Slot
from spotd.core.market import halts, is_two_sided, resumes, sets_last_sale, why_dropped
from spotd.core.messages import Cancel, Correction, Message, Quote, Trade, TradingStatus

_INFINITY = float("inf")
# REST truncates the times that the stream rounds.
_SNAPSHOT_SLACK = timedelta(milliseconds=1)


class PriceCache:
    """The newest price of each symbol, which symbols are halted, and counts of all that came in.

    ``slots``, ``halted`` and the counts are to be read; only this class changes them. ``now`` is
    monotonic seconds: a price that changed counts as waiting since then.
    """

    def __init__(self, conflator: Conflator, wants: Callable[[str], bool]) -> None:
        self.slots: dict[str, Slot] = {}
        # It contains also symbols that are not desired: Alpaca tells a halt once, and the symbol
        # may be desired later. It remains the same object until the symbols in it change.
        self.halted: frozenset[str] = frozenset()
        self.quotes_received = 0
        self.trades_received = 0
        self.quotes_conflated = 0  # quotes that a newer one replaced before they were published
        self.dropped: Counter[str] = Counter()  # quotes, by reason
        self.ignored: Counter[str] = Counter()  # other messages, by what they are
        self._conflator = conflator
        self._wants = wants
        self.first_quotes = 0  # quotes of symbols that had none
        self._quoted: set[str] = set()
        self._quoted_told: frozenset[str] | None = frozenset()  # None: it has changed
        self._dropped_slots: dict[str, Slot] = {}  # while their throttle window may be open
        self._floors: dict[str, datetime] = {}

    @property
    def quoted(self) -> frozenset[str]:
        """The symbols that have a two-sided quote. The same object until they change."""
        if self._quoted_told is None:
            self._quoted_told = frozenset(self._quoted)
        return self._quoted_told

    def receive(self, messages: Sequence[Message], now: float) -> None:
        """Take in the data messages of one frame, in order. Control messages are ignored."""
        self._conflator.end_windows(now)
        slots = self.slots
        quotes = conflated = 0
        statuses: tuple[TradingStatus, ...] = ()
        for message in messages:
            if type(message) is Quote:
                quotes += 1
                bid = message.bid
                ask = message.ask
                # This is is_two_sided, written out: a call would add about 15 ns to each quote.
                if not (bid > 0.0 and ask > 0.0 and bid + ask < _INFINITY):
                    self.dropped[why_dropped(bid, ask)] += 1
                    continue
                slot = slots.get(message.symbol)
                if slot is None:
                    if not self._wants(message.symbol):
                        self.dropped["not_desired"] += 1
                        continue
                    slot = self._open_slot(message.symbol)
                slot.bid = bid
                slot.ask = ask
                if slot.fresh_quote:
                    conflated += 1
                else:
                    slot.fresh_quote = True
                    if slot.quoted_at is None:
                        self._quote_first(message.symbol)
                    # A slot that has changed is ready, or becomes ready when its window ends. As a
                    # consequence, its newest quote is emitted without another offer.
                    if not slot.changed:
                        self._conflator.offer(slot, now)
                slot.quoted_at = message.at
            elif type(message) is Trade:
                self._trade(message, now)
            elif type(message) is TradingStatus:
                statuses = (*statuses, message)
            elif type(message) is Correction:
                self.ignored["correction"] += 1
            elif type(message) is Cancel:
                self.ignored["cancel"] += 1
        self.quotes_received += quotes
        self.quotes_conflated += conflated
        if statuses:
            self._change_halts(statuses)

    def drop(self, symbols: Iterable[str]) -> None:
        """Forget these symbols and remove their slots. A symbol without a slot is allowed.

        ``wants`` must deny them already. Their open throttle windows survive: a symbol that
        returns within its window is still throttled.
        """
        self._dropped_slots = {
            symbol: slot
            for symbol, slot in self._dropped_slots.items()
            if slot.phase is not Phase.QUIET
        }
        slots, floors, quiet = self.slots, self._floors, Phase.QUIET
        symbols = list(symbols)
        self._quoted.difference_update(symbols)
        self._quoted_told = None
        for symbol in symbols:
            if floors:
                floors.pop(symbol, None)
            slot = slots.pop(symbol, None)
            # No list holds a quiet slot. As a consequence, nobody will see its prices again.
            if slot is not None and slot.phase is not quiet:
                slot.clear()
                self._dropped_slots[symbol] = slot

    def set_floors(self, published: Mapping[str, datetime]) -> None:
        """Take no snapshot's quote that is older than what a predecessor published.

        ``published`` is the exchange time of each symbol's published price. It replaces what was
        set before.
        """
        self._floors = dict(published)

    def take_snapshot(
        self, symbol: str, quote: Quote | None, trade: Trade | None, now: float
    ) -> None:
        """Fill in what the stream has not brought yet. A value that is as new or newer is kept.

        A snapshot that arrives after its symbol left the demand is ignored.
        """
        if not self._wants(symbol):
            return
        slot = self.slots.get(symbol) or self._open_slot(symbol)
        changed = False
        if (
            quote is not None
            and is_two_sided(quote.bid, quote.ask)
            and (slot.quoted_at is None or quote.at > slot.quoted_at)
            # A difference of two times exists whatever they are; a time before the first does not.
            and self._floors.get(symbol, quote.at) - quote.at <= _SNAPSHOT_SLACK
        ):
            if slot.quoted_at is None:
                self._quote_first(symbol)
            slot.quote = quote
            changed = True
        if (
            trade is not None
            and sets_last_sale(trade)
            and (slot.sold_at is None or trade.at > slot.sold_at)
        ):
            slot.last_price, slot.sold_at = trade.price, trade.at
            changed = True
        if changed:
            self._offer(slot, now)

    def republish(self, now: float) -> None:
        """Count every known price as changed: Redis may have lost what it held."""
        for slot in self.slots.values():
            self._offer(slot, now)

    def forget(self) -> None:
        """Forget every price and halt: another daemon published newer ones meanwhile."""
        for slot in self.slots.values():
            slot.clear()
        self._quoted.clear()
        self._quoted_told = None
        self.clear_halts()

    def forget_last_sales(self, now: float) -> None:
        """Forget the last sales: since no trades come any more, they would soon be wrong."""
        for slot in self.slots.values():
            if slot.last_price is not None:
                slot.last_price = slot.sold_at = None
                self._offer(slot, now)

    def clear_halts(self) -> None:
        """Forget the halts: while the stream was interrupted, a resumption may have been missed."""
        if self.halted:
            self.halted = frozenset()

    def _quote_first(self, symbol: str) -> None:
        self.first_quotes += 1
        self._quoted.add(symbol)
        self._quoted_told = None

    def _open_slot(self, symbol: str) -> Slot:
        # A symbol that returns within its window gets its old slot, and so its old throttle.
        slot = self._dropped_slots.pop(symbol, None) or Slot(symbol)
        self.slots[symbol] = slot
        return slot

    def _trade(self, trade: Trade, now: float) -> None:
        self.trades_received += 1
        slot = self.slots.get(trade.symbol)
        if slot is None and self._wants(trade.symbol):
            slot = self._open_slot(trade.symbol)
        if slot is None:
            self.ignored["trade_not_desired"] += 1
        elif not sets_last_sale(trade):
            self.ignored["trade_not_last_sale"] += 1
        else:
            slot.last_price, slot.sold_at = trade.price, trade.at
            self._offer(slot, now)

    def _change_halts(self, statuses: Iterable[TradingStatus]) -> None:
        # The set is copied once for all statuses of a frame: a market-wide halt is 11,500 of them.
        halted = set(self.halted)
        for status in statuses:
            if halts(status.tape, status.code):
                halted.add(status.symbol)
            elif resumes(status.tape, status.code):
                halted.discard(status.symbol)
        if halted != self.halted:
            self.halted = frozenset(halted)

    def _offer(self, slot: Slot, now: float) -> None:
        # Before the first two-sided quote there is nothing to publish.
        if slot.quoted_at is not None:
            self._conflator.end_windows(now)
            self._conflator.offer(slot, now)


def reflected_at(slot: Slot) -> datetime:
    """Return the exchange time of the newest quote or trade that the slot's price reflects.

    Raise AssertionError where the slot has no quote: such a slot is never emitted.
    """
    if slot.quoted_at is None:
        raise AssertionError("a slot without a quote is never emitted")
    if slot.sold_at is None or slot.sold_at < slot.quoted_at:
        return slot.quoted_at
    return slot.sold_at
