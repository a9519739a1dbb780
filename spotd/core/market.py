"""Decides what a quote, a trade or a status changes. Must not know where it is published.

Sources of the rules: the consolidated tapes' sale condition tables (CTA for tapes A and B, UTP
for C; which conditions update the last sale), and the wire contract for what is never published.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice

from spotd.core.conflate import Conflator, Phase, Slot
from spotd.core.messages import Cancel, Correction, Message, Quote, Trade, TradingStatus
from spotd.symbols import WILDCARD, is_symbol

_INFINITY = float("inf")
# Between times that came over REST and over the stream, truncated here and rounded there.
_SNAPSHOT_SLACK = timedelta(milliseconds=1)

# A trade with one of these conditions does not set the last sale.
_NOT_LAST_SALE_AB = frozenset("BCHIMNPQRUVZ47")
_NOT_LAST_SALE_CO = frozenset("CGHIMNPQRUVWZ47")
_NOT_LAST_SALE = {
    "A": _NOT_LAST_SALE_AB,
    "B": _NOT_LAST_SALE_AB,
    "C": _NOT_LAST_SALE_CO,
    "O": _NOT_LAST_SALE_CO,
}
# A tape that the tables do not know (N, overnight): what either table excludes.
_NOT_LAST_SALE_ELSEWHERE = _NOT_LAST_SALE_AB | _NOT_LAST_SALE_CO

# CTA: 2 halt, 3 resume. UTP: H halt, P volatility pause, T trading resumption.
_HALTS = {"A": frozenset("2"), "B": frozenset("2")}
_RESUMES = {"A": frozenset("3"), "B": frozenset("3")}
_HALTS_ELSEWHERE = frozenset("HP")
_RESUMES_ELSEWHERE = frozenset("T")


def sets_last_sale(tape: str, conditions: Iterable[str]) -> bool:
    """Whether a trade with these conditions on this tape becomes the last sale."""
    return _NOT_LAST_SALE.get(tape, _NOT_LAST_SALE_ELSEWHERE).isdisjoint(conditions)


def is_two_sided(bid: float, ask: float) -> bool:
    """Both sides positive and finite (NaN compares false), and their sum finite too."""
    return bid > 0.0 and ask > 0.0 and bid + ask < _INFINITY


def why_dropped(bid: float, ask: float) -> str:
    """The label under which a quote that is not published is counted."""
    return "one_sided" if bid <= 0.0 or ask <= 0.0 else "not_finite"


class Market:
    """The newest price of every symbol that is streamed, and counts of all that came in."""

    def __init__(self, conflator: Conflator) -> None:
        self.slots: dict[str, Slot] = {}
        self.quotes_received = 0
        self.trades_received = 0
        self.quotes_conflated = 0  # quotes that a newer one replaced before they were published
        self.dropped: Counter[str] = Counter()  # quotes, by reason
        self.ignored: Counter[str] = Counter()  # other messages, by what they are
        self.halts_changed = False
        self._conflator = conflator
        self._whole_market = False
        self._leaving: dict[str, Slot] = {}
        self._floors: dict[str, datetime] = {}
        self._halted: set[str] = set()

    def keep(self, symbols: frozenset[str], *, at_most: int | None = None) -> frozenset[str]:
        """Hold a slot for each of these symbols, and for no other unless ``*`` is among them.

        Gives the symbols that lost theirs: ``at_most`` so many in one call, and the others in the
        next ones.
        """
        self._whole_market = WILDCARD in symbols
        self._leaving = {s: slot for s, slot in self._leaving.items() if slot.phase != Phase.QUIET}
        slots = self.slots
        for symbol in symbols.difference(slots):
            if symbol != WILDCARD:
                self._open_slot(symbol)
        # Now each of them has one, so as many slots as symbols are no more than theirs.
        if self._whole_market or len(slots) == len(symbols):
            return frozenset()
        left = frozenset(islice((symbol for symbol in slots if symbol not in symbols), at_most))
        for symbol in left:
            slot = self._leaving[symbol] = slots.pop(symbol)
            slot.clear()
            self._floors.pop(symbol, None)
        return left

    def receive(self, messages: Sequence[Message]) -> None:
        """Take in the data messages of one frame, in order. Control messages are ignored."""
        slots = self.slots
        quotes = conflated = 0
        for message in messages:
            if type(message) is Quote:
                quotes += 1
                bid = message.bid
                ask = message.ask
                if not (bid > 0.0 and ask > 0.0 and bid + ask < _INFINITY):
                    self.dropped[why_dropped(bid, ask)] += 1
                    continue
                slot = slots.get(message.symbol)
                if slot is None:
                    slot = self._discover(message.symbol)
                    if slot is None:
                        self.dropped["not_desired"] += 1
                        continue
                slot.bid = bid
                slot.ask = ask
                slot.quoted_at = message.at
                if slot.fresh_quote:
                    conflated += 1
                else:
                    slot.fresh_quote = True
                    if not slot.changed:
                        self._conflator.offer(slot)
            elif type(message) is Trade:
                self._trade(message)
            elif type(message) is TradingStatus:
                self._status(message)
            elif type(message) is Correction:
                self.ignored["correction"] += 1
            elif type(message) is Cancel:
                self.ignored["cancel"] += 1
        self.quotes_received += quotes
        self.quotes_conflated += conflated

    def heed(self, published: Mapping[str, datetime]) -> None:
        """What a predecessor published, by exchange time: no snapshot may go back behind it."""
        self._floors = {symbol: at - _SNAPSHOT_SLACK for symbol, at in published.items()}

    def prime(self, symbol: str, quote: Quote | None, trade: Trade | None) -> None:
        """A snapshot: fills what the stream has not told yet, never replaces what is newer."""
        slot = self.slots.get(symbol)
        if slot is None:
            return
        changed = False
        if (
            quote is not None
            and is_two_sided(quote.bid, quote.ask)
            and (slot.quoted_at is None or quote.at > slot.quoted_at)
            and quote.at >= self._floors.get(symbol, quote.at)
        ):
            slot.quote = quote
            changed = True
        if (
            trade is not None
            and self._is_last_sale(trade)
            and (slot.sold_at is None or trade.at > slot.sold_at)
        ):
            slot.last_price, slot.sold_at = trade.price, trade.at
            changed = True
        if changed:
            self._offer(slot)

    def republish(self) -> None:
        """Every known price counts as changed: Redis may have lost what it held."""
        for slot in self.slots.values():
            self._offer(slot)

    def forget(self) -> None:
        """Drop every price: another daemon published newer ones meanwhile."""
        for slot in self.slots.values():
            slot.clear()
        self._halted.clear()

    def forget_last_sales(self) -> None:
        """No trades come any more: a last price that cannot change would soon be wrong."""
        for slot in self.slots.values():
            if slot.last_price is not None:
                slot.last_price = slot.sold_at = None
                self._offer(slot)

    def clear_halts(self) -> None:
        """The stream was interrupted: a resumption may have been missed."""
        self._halted.clear()
        self.halts_changed = True

    def halted(self) -> frozenset[str]:
        """Symbols whose trading is halted."""
        return frozenset(self._halted & self.slots.keys())

    def _discover(self, symbol: str) -> Slot | None:
        """With the whole market desired, a symbol gets its slot when Alpaca first sends it."""
        if not self._whole_market or not is_symbol(symbol):
            return None
        return self._open_slot(symbol)

    def _open_slot(self, symbol: str) -> Slot:
        # A symbol that comes back within its window gets its old slot, and so its old throttle.
        leaving = self._leaving.pop(symbol, None)
        slot = self.slots[symbol] = Slot(symbol) if leaving is None else leaving
        return slot

    def _trade(self, trade: Trade) -> None:
        self.trades_received += 1
        slot = self.slots.get(trade.symbol) or self._discover(trade.symbol)
        if slot is None:
            self.ignored["trade_not_desired"] += 1
        elif not self._is_last_sale(trade):
            self.ignored["trade_not_last_sale"] += 1
        else:
            slot.last_price, slot.sold_at = trade.price, trade.at
            self._offer(slot)

    def _is_last_sale(self, trade: Trade) -> bool:
        return 0.0 < trade.price < _INFINITY and sets_last_sale(trade.tape, trade.conditions)

    def _status(self, status: TradingStatus) -> None:
        # Kept for all symbols, since Alpaca tells a halt once: one desired later is halted too.
        if status.code in _HALTS.get(status.tape, _HALTS_ELSEWHERE):
            self._halted.add(status.symbol)
        elif status.code in _RESUMES.get(status.tape, _RESUMES_ELSEWHERE):
            self._halted.discard(status.symbol)
        else:
            return
        if status.symbol in self.slots:
            self.halts_changed = True

    def _offer(self, slot: Slot) -> None:
        # Before the first two-sided quote there is nothing to publish.
        if slot.quoted_at is not None:
            self._conflator.offer(slot)


def reflected_at(slot: Slot) -> datetime:
    """Exchange time of the newest quote or trade that the slot's price reflects."""
    if slot.quoted_at is None:
        raise AssertionError("a slot without a quote is never emitted")
    if slot.sold_at is None or slot.sold_at < slot.quoted_at:
        return slot.quoted_at
    return slot.sold_at
