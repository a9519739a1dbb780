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
from spotd.core.halts import Halts
from spotd.core.market import is_two_sided, sets_last_sale, why_dropped
from spotd.core.messages import Cancel, Correction, Message, Quote, Trade, TradingStatus

_INFINITY = float("inf")
# REST truncates the times that the stream rounds.
_SNAPSHOT_SLACK = timedelta(milliseconds=1)
# A stream that is behind a snapshot brings older quotes first. They are left out for no longer than
# this: a wrong time in a snapshot must not hide a symbol.
_AHEAD_S = 30.0
# REST may name a cancelled trade as the latest one. NYSE once cancelled 4,341 trades in a day.
_MOST_CANCELLED = 5_000


class PriceCache:
    """The newest price of each symbol, which symbols are halted, and counts of all that came in.

    ``slots``, ``halts`` and the counts are to be read; only this class changes them. ``now`` is
    monotonic seconds: a price that changed counts as waiting since then.
    """

    def __init__(self, conflator: Conflator, wants: Callable[[str], bool]) -> None:
        self.slots: dict[str, Slot] = {}
        self.halts = Halts()
        self.quotes_received = 0
        self.trades_received = 0
        self.trades_cancelled = 0
        self.trades_corrected = 0
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
        # Trades that are not as REST may still show them: symbol, id, exchange; oldest first.
        self._cancelled: dict[tuple[str, int | None, str], datetime | None] = {}

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
        quotes = trades = conflated = 0
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
                if slot.fresh_quote:
                    conflated += 1
                elif now < slot.ahead_until and _is_behind(slot, message):
                    self.dropped["older_than_snapshot"] += 1
                    continue
                else:
                    slot.fresh_quote = True
                    slot.ahead_until = 0.0
                    if slot.quoted_at is None:
                        self._quote_first(message.symbol)
                    # A slot that has changed is ready, or becomes ready when its window ends. As a
                    # consequence, its newest quote is emitted without another offer.
                    if not slot.changed:
                        self._conflator.offer(slot, now)
                slot.bid = bid
                slot.ask = ask
                slot.quoted_at = message.at
            elif type(message) is Trade:
                trades += 1
                self._trade(message, now)
            elif type(message) is TradingStatus:
                self.halts.status(message)
            elif type(message) is Correction:
                self._correct(message, now)
            elif type(message) is Cancel:
                self._cancel(message, now)
        self.quotes_received += quotes
        self.trades_received += trades
        self.quotes_conflated += conflated

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

        A stream that is behind the snapshot does not replace it by an older quote.
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
            slot.bid, slot.ask, slot.quoted_at = quote.bid, quote.ask, quote.at
            self.quotes_conflated += slot.fresh_quote
            slot.fresh_quote = False
            slot.ahead_until = now + _AHEAD_S
            changed = True
        if (
            trade is not None
            and sets_last_sale(trade)
            and not self._was_cancelled(trade)
            and slot.fill_in_sale(trade)
        ):
            self.halts.sold(symbol, trade.at)
            changed = True
        if changed:
            self._offer(slot, now)

    def see_trade(self, trade: Trade) -> None:
        """Take in REST's latest trade where last sales are not shown: it may end a halt."""
        if sets_last_sale(trade) and not self._was_cancelled(trade):
            self.halts.sold(trade.symbol, trade.at)

    def interrupted(self) -> None:
        """Take in that the stream was interrupted: messages may have been missed.

        A halt stands nevertheless, until a resumption or a trade ends it.
        """
        for slot in self.slots.values():
            slot.interrupted()

    def republish(self, now: float) -> None:
        """Count every known price as changed: Redis may have lost what it held."""
        for slot in self.slots.values():
            self._offer(slot, now)

    def forget(self) -> None:
        """Forget every price and halt: another daemon published newer ones meanwhile."""
        for slot in self.slots.values():
            slot.clear()
        self.halts.forget()
        self._quoted.clear()
        self._quoted_told = None

    def forget_last_sales(self, now: float) -> None:
        """Forget the last sales: since no trades come any more, they would soon be wrong."""
        for slot in self.slots.values():
            if slot.last_price is not None:
                slot.forget_sales()
                self._offer(slot, now)

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
        slot = self.slots.get(trade.symbol)
        if slot is None and self._wants(trade.symbol):
            slot = self._open_slot(trade.symbol)
        if slot is None:
            self.ignored["trade_not_desired"] += 1
        elif not sets_last_sale(trade):
            self.ignored["trade_not_last_sale"] += 1
        elif not slot.add_sale(trade):
            self.ignored["trade_late"] += 1
        else:
            if self.halts.since:
                self.halts.sold(trade.symbol, trade.at)
            self._offer(slot, now)

    def _cancel(self, cancel: Cancel, now: float) -> None:
        self.trades_cancelled += 1
        self._remember(cancel)
        slot = self.slots.get(cancel.symbol)
        if slot is None:
            self.ignored["cancel"] += 1
            return
        before = slot.last_price, slot.sold_at
        if not slot.cancel_sale(cancel.id, cancel.exchange):
            self.ignored["cancel"] += 1
        elif before != (slot.last_price, slot.sold_at):
            self._offer(slot, now)

    def _correct(self, correction: Correction, now: float) -> None:
        self.trades_corrected += 1
        self._remember(correction)
        slot = self.slots.get(correction.symbol)
        if slot is None:
            self.ignored["correction"] += 1
            return
        before = slot.last_price, slot.sold_at
        trade_id, exchange = correction.id, correction.exchange
        if sets_last_sale(correction):
            known = slot.correct_sale(trade_id, exchange, correction.corrected_id, correction.price)
        else:
            known = slot.cancel_sale(trade_id, exchange)
        if not known:
            self.ignored["correction"] += 1
        elif before != (slot.last_price, slot.sold_at):
            self._offer(slot, now)

    def _remember(self, message: Cancel | Correction) -> None:
        """Keep that REST's trade with this id may be wrong."""
        self._cancelled[message.symbol, message.id, message.exchange] = message.at
        if len(self._cancelled) > _MOST_CANCELLED:
            del self._cancelled[next(iter(self._cancelled))]

    def _was_cancelled(self, trade: Trade) -> bool:
        """Return whether REST's trade was cancelled or corrected meanwhile."""
        if trade.id is None:
            return False
        key = (trade.symbol, trade.id, trade.exchange)
        if key not in self._cancelled:
            return False
        # Ids may begin anew each day. A trade is not later than its own cancellation.
        at = self._cancelled[key]
        return at is None or trade.at - at <= _SNAPSHOT_SLACK

    def _offer(self, slot: Slot, now: float) -> None:
        # Before the first two-sided quote there is nothing to publish.
        if slot.quoted_at is not None:
            self._conflator.end_windows(now)
            self._conflator.offer(slot, now)


def _is_behind(slot: Slot, quote: Quote) -> bool:
    """Return whether a quote of the stream is older than the snapshot's that the slot holds."""
    return slot.quoted_at is not None and slot.quoted_at - quote.at > _SNAPSHOT_SLACK


def reflected_at(slot: Slot) -> datetime:
    """Return the exchange time of the newest quote or trade that the slot's price reflects.

    Raise AssertionError where the slot has no quote: such a slot is never emitted.
    """
    if slot.quoted_at is None:
        raise AssertionError("a slot without a quote is never emitted")
    if slot.sold_at is None or slot.sold_at < slot.quoted_at:
        return slot.quoted_at
    return slot.sold_at
