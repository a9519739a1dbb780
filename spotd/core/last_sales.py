"""Decides which trade is the last sale of a symbol, also after a cancellation or a correction.

Source: the wire contract, section 2. The newest sale is the newest by exchange time; of two with
the same time, the one that came last. A cancelled sale gives way to the one before it, and to
nothing where that is not known. A trade is identified by its id and its exchange.

The sales that are kept are a *run*: no sale is missing between two of them. A run begins anew with
the first sale after an interruption, since sales may have been missed. Must not know which trades
set the last sale (``core.market`` does).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from struct import Struct, error
from typing import NamedTuple

from spotd.core.messages import Trade

# The last sale may be cancelled, and so may these before it, until it is not known any more.
FEWEST_FORMER = 15

_FORM = Struct("<QddB")  # id, price in USD, exchange time in unix seconds, exchange
_pack = _FORM.pack
_BYTES = _FORM.size
_HALF_BYTES = (FEWEST_FORMER + 1) * _BYTES
_MOST_BYTES = 2 * _HALF_BYTES  # beyond it, the older half is forgotten
_NAMELESS = 0  # in place of an exchange: no cancellation can name this trade
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_UNIX_S = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


class _Sale(NamedTuple):
    id: int
    price: float
    unix_s: float  # exact to the microsecond until the year 2242
    exchange: int


class LastSales:
    """The last sale of one symbol, and ``FEWEST_FORMER`` or more sales before it, if known.

    ``last_price`` is in USD, ``sold_at`` its exchange time; both None while it is not known. They
    are to be read only.
    """

    # The run is packed. Kept as objects, its sales would double the cost of a trade, since each
    # trade would free objects that left the processor's cache long ago.
    __slots__ = ("_missed", "_run", "last_price", "sold_at")

    def __init__(self) -> None:
        self.last_price: float | None = None
        self.sold_at: datetime | None = None
        self._run = bytearray()  # oldest first; the last one is the last sale
        self._missed = False  # sales may have been missed since the last sale

    def add_sale(self, trade: Trade) -> bool:
        """Take in a trade of the stream that sets the last sale. Return whether it is the newest.

        A late print is not.
        """
        at = trade.at
        if self.sold_at is not None and at < self.sold_at:
            self._add_late(trade)
            return False
        run = self._run
        if self._missed:
            run.clear()
            self._missed = False
        # This is _packed, written out: a call would add a tenth to what a trade costs here.
        try:
            run += _pack(trade.id, trade.price, at.timestamp(), ord(trade.exchange))
        except (error, TypeError):
            run += _packed(trade)
        if len(run) > _MOST_BYTES:
            del run[:_HALF_BYTES]
        self.last_price = trade.price
        self.sold_at = at
        return True

    def fill_in_sale(self, trade: Trade) -> bool:
        """Take in REST's latest trade, which sets the last sale. Return whether it is the newest.

        One with the time of the last sale is that sale.
        """
        if self.sold_at is None or trade.at > self.sold_at:
            # Between the two, others may have been missed.
            self._run[:] = _packed(trade)
            self._missed = False
            self.last_price, self.sold_at = trade.price, trade.at
            return True
        if not self._missed and len(self._run) < _HALF_BYTES:
            # REST is asked when Alpaca sends trades already. As a consequence, its trade is the
            # one before the run, if it is older. REST truncates the time that the stream rounds.
            packed = _packed(trade)
            new, first = _Sale(*_FORM.unpack(packed)), self._sales()[0]
            if new.unix_s < first.unix_s and not _same(first, new.id, new.exchange):
                self._run[:0] = packed
        return False

    def cancel_sale(self, trade_id: int | None, exchange: str) -> bool:
        """Take in that a trade was cancelled. Return whether it was among the sales."""
        return self._replace(trade_id, exchange, None)

    def correct_sale(
        self, trade_id: int | None, exchange: str, corrected_id: int | None, price: float
    ) -> bool:
        """Take in that a trade was corrected. Return whether it was among the sales.

        The corrected trade must set the last sale. It has the time of the trade, and without an
        id also the id.
        """
        return self._replace(trade_id, exchange, (corrected_id, price))

    def interrupted(self) -> None:
        """Take in that sales may have been missed: the next one begins a run.

        The last sale is kept, since it may still be cancelled.
        """
        del self._run[:-_BYTES]
        self._missed = bool(self._run)

    def forget_sales(self) -> None:
        """Forget all sales."""
        self.last_price = self.sold_at = None
        self._run.clear()
        self._missed = False

    def _sales(self) -> list[_Sale]:
        return [_Sale(*fields) for fields in _FORM.iter_unpack(self._run)]

    def _add_late(self, trade: Trade) -> None:
        """Put a sale that is older than the last one in its place, by exchange time."""
        if self._missed:
            return
        run, unix_s = self._run, trade.at.timestamp()
        place = len(run) - _BYTES
        while place and _FORM.unpack_from(run, place - _BYTES)[2] > unix_s:
            place -= _BYTES
        # Where it is older than the whole run, others may be missing between it and the run.
        if place:
            run[place:place] = _packed(trade)
            if len(run) > _MOST_BYTES:
                del run[:_HALF_BYTES]

    def _replace(
        self, trade_id: int | None, exchange: str, corrected: tuple[int | None, float] | None
    ) -> bool:
        if trade_id is None or len(exchange) != 1:
            return False
        sales, code = self._sales(), ord(exchange)
        # A sale may be there twice, from REST and from the stream.
        kept = [sale for sale in sales if not _same(sale, trade_id, code)]
        if len(kept) == len(sales):
            return False
        if corrected is not None:
            new_id, price = corrected
            kept = [
                sale._replace(id=trade_id if new_id is None else new_id, price=price)
                if _same(sale, trade_id, code)
                else sale
                for sale in sales
            ]
        self._run[:] = b"".join(_packed_again(sale) for sale in kept)
        if not kept:
            self.forget_sales()
        else:
            self.last_price, self.sold_at = kept[-1].price, _time(kept[-1].unix_s)
        return True


def _packed(trade: Trade) -> bytes:
    try:
        return _pack(trade.id, trade.price, trade.at.timestamp(), ord(trade.exchange))
    except (error, TypeError):  # no id or exchange, or none that Alpaca has
        return _pack(0, trade.price, trade.at.timestamp(), _NAMELESS)


def _packed_again(sale: _Sale) -> bytes:
    try:
        return _pack(*sale)
    except error:  # the id of a correction
        return _pack(0, sale.price, sale.unix_s, _NAMELESS)


def _same(sale: _Sale, trade_id: int, exchange: int) -> bool:
    return sale.id == trade_id and sale.exchange == exchange != _NAMELESS


def _time(unix_s: float) -> datetime:
    return _EPOCH + timedelta(seconds=min(unix_s, _LATEST_UNIX_S))
