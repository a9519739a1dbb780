"""What a message changes in the newest prices."""

from __future__ import annotations

import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from spotd.core.conflate import Conflator, Slot
from spotd.core.messages import (
    Acknowledgement,
    Cancel,
    Correction,
    Error,
    Message,
    Quote,
    Success,
    Trade,
    TradingStatus,
)
from spotd.core.prices import PriceCache, reflected_at

T0 = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)


def at(second: float) -> datetime:
    """Return an exchange time, in seconds after the open."""
    return T0 + timedelta(seconds=second)


def quote(symbol: str = "SPY", bid: float = 1.0, ask: float = 2.0, second: float = 0) -> Quote:
    """Return a two-sided quote, except for what the test says."""
    return Quote(symbol, bid, ask, at(second))


def trade(
    price: float = 1.5,
    conditions: str = "@",
    tape: str = "B",
    second: float = 0,
    symbol: str = "SPY",
    trade_id: int | None = 1,
) -> Trade:
    """Return a trade that sets the last sale, except for what the test says."""
    return Trade(symbol, price, at(second), tuple(conditions), tape, trade_id, "D")


class Desk:
    """A cache, the demand beside it (SPY and QQQ at first), and what it would publish."""

    def __init__(self, *symbols: str, window_s: float = 0.0) -> None:
        self.now = 0.0
        self.desired = frozenset(symbols or ("SPY", "QQQ"))
        self.asked: list[str] = []
        self.conflator = Conflator(window_s)
        self.prices = PriceCache(self.conflator, self._wants)

    def _wants(self, symbol: str) -> bool:
        self.asked.append(symbol)
        return symbol in self.desired

    def desire(self, *symbols: str) -> None:
        """Change the demand, as its owner does."""
        gone, self.desired = self.desired.difference(symbols), frozenset(symbols)
        self.prices.drop(gone)

    @property
    def halted(self) -> frozenset[str]:
        """The halted symbols, as of now."""
        return self.prices.halts.symbols()

    def receive(self, *messages: Message) -> None:
        """Receive them in one frame."""
        self.prices.receive(messages, self.now)

    def snapshot(self, symbol: str, quote: Quote | None, trade: Trade | None = None) -> None:
        """Take it now."""
        self.prices.take_snapshot(symbol, quote, trade, self.now)

    def published(self) -> list[tuple[str, float, float | None]]:
        """Publish what is due; return the symbol, bid and last sale of every update."""
        taken = self.conflator.take(self.now, 1_000)
        self.conflator.settle(taken, self.now, delivered=True)
        return [(slot.symbol, slot.bid, slot.last_price) for slot in taken]


# Quotes


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [
        (3.0, 2.0, None),  # crossed
        (0.0, 2.0, "one_sided"),
        (1.0, 0.0, "one_sided"),
        (float("nan"), 2.0, "not_finite"),
        (1.5e308, 1.5e308, "not_finite"),
    ],
)
def test_only_a_two_sided_finite_quote_is_published(
    bid: float, ask: float, reason: str | None
) -> None:
    """Every other quote is counted by its reason and makes no slot."""
    desk = Desk()
    desk.receive(quote(bid=bid, ask=ask))
    assert desk.prices.quotes_received == 1
    assert desk.published() == ([("SPY", bid, None)] if reason is None else [])
    assert desk.prices.dropped == ({} if reason is None else {reason: 1})
    assert len(desk.prices.slots) == (1 if reason is None else 0)


def test_a_dropped_quote_leaves_the_last_good_one() -> None:
    """A side that is missing says nothing about the price."""
    desk = Desk()
    desk.receive(quote(bid=1.0), quote(bid=0.0))
    assert desk.published() == [("SPY", 1.0, None)]


def test_the_newest_quote_wins_and_what_it_replaced_is_counted() -> None:
    """The newest is the one that came last: exchange time is not monotonic."""
    desk = Desk()
    desk.receive(quote(bid=1.0, second=2), quote(bid=1.1, second=1))
    desk.receive(quote("QQQ", bid=5.0), quote(bid=1.2))
    assert desk.published() == [("SPY", 1.2, None), ("QQQ", 5.0, None)]
    assert desk.prices.quotes_received == 4
    assert desk.prices.quotes_conflated == 2
    assert desk.published() == []


def test_only_a_quote_that_was_not_published_is_conflated() -> None:
    """A quote that joins a trade, a snapshot or a repetition replaces no quote that waits."""
    desk = Desk()
    prices = desk.prices
    desk.receive(quote())
    desk.published()
    desk.receive(trade(1.5), quote(bid=1.1))
    assert prices.quotes_conflated == 0
    desk.receive(quote(bid=1.2))
    assert prices.quotes_conflated == 1
    desk.published()
    desk.snapshot("SPY", quote(bid=1.25, second=1))
    desk.receive(quote(bid=1.3, second=1))
    assert prices.quotes_conflated == 1
    desk.published()
    prices.republish(desk.now)
    desk.receive(quote(bid=1.3))
    assert prices.quotes_conflated == 1
    desk.conflator.settle(desk.conflator.take(0.0, 9), 0.0, delivered=False)
    desk.receive(quote(bid=1.4))
    assert prices.quotes_conflated == 2, "after a failed call the quote before it waits"
    desk.desire("QQQ")
    desk.desire("SPY")
    desk.receive(quote(bid=1.5))
    assert prices.quotes_conflated == 2


def test_a_price_waits_from_the_time_at_which_it_came() -> None:
    """A frame, a snapshot and a repetition each bring their own ``now``."""
    desk = Desk("SPY", "QQQ", "IWM")
    desk.prices.receive([quote(), trade()], 7.0)
    desk.prices.take_snapshot("QQQ", quote("QQQ"), None, 8.0)
    desk.prices.receive([trade(symbol="IWM"), quote("IWM")], 9.0)
    slots = desk.prices.slots
    assert [slots[symbol].due_at for symbol in ("SPY", "QQQ", "IWM")] == [7.0, 8.0, 9.0]
    desk.published()
    desk.prices.receive([trade()], 10.0)
    desk.prices.forget_last_sales(11.0)
    desk.prices.republish(12.0)
    assert [slots[symbol].due_at for symbol in ("SPY", "IWM", "QQQ")] == [10.0, 11.0, 12.0]


def test_what_nobody_desires_is_counted() -> None:
    """Data may still come after an unsubscribe."""
    desk = Desk()
    desk.receive(quote("IWM"), trade(symbol="IWM"), trade(symbol="IWM", conditions="I"))
    assert desk.published() == []
    assert not desk.prices.slots
    assert desk.prices.dropped == {"not_desired": 1}
    assert desk.prices.ignored == {"trade_not_desired": 2}


def test_control_messages_change_nothing() -> None:
    """They are ignored, wherever they stand in a frame."""
    desk = Desk()
    desk.receive(Success("connected"), Error(400), Acknowledgement(), quote())
    assert desk.published() == [("SPY", 1.0, None)]
    assert not desk.prices.dropped
    assert not desk.prices.ignored


# The last sale


def test_a_trade_that_sets_no_last_sale_is_counted() -> None:
    """The last sale before it stays, and nothing is published."""
    desk = Desk()
    desk.receive(quote(), trade(1.5))
    assert desk.published() == [("SPY", 1.0, 1.5)]
    desk.receive(trade(1.6, "@I"), trade(0.0))
    assert desk.published() == []
    assert desk.prices.slots["SPY"].last_price == 1.5
    assert desk.prices.trades_received == 3
    assert desk.prices.ignored == {"trade_not_last_sale": 2}


def test_a_last_sale_is_an_update_of_its_symbol() -> None:
    """It goes out with the quote that is known, and with the newer time of the two."""
    desk = Desk()
    desk.receive(quote(second=1))
    assert desk.published() == [("SPY", 1.0, None)]
    desk.receive(trade(1.5, second=2))
    assert desk.published() == [("SPY", 1.0, 1.5)]
    assert reflected_at(desk.prices.slots["SPY"]) == at(2)


def test_before_the_first_quote_there_is_nothing_to_publish() -> None:
    """The last sale is kept for the first quote."""
    desk = Desk()
    desk.receive(trade(1.5))
    assert desk.published() == []
    desk.receive(quote())
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_a_late_print_replaces_no_newer_sale() -> None:
    """The newest is the newest by exchange time, so the time of an update never goes back."""
    desk = Desk()
    desk.receive(quote(), trade(1.5, second=600))
    desk.published()
    desk.receive(trade(9.0, second=0))
    assert desk.published() == []
    assert reflected_at(desk.prices.slots["SPY"]) == at(600)
    assert desk.prices.ignored == {"trade_late": 1}


GOOD, BAD = trade(1.5, second=1, trade_id=1), trade(0.01, second=2, trade_id=2)
CANCELS_BAD, CANCELS_GOOD = Cancel("SPY", 2, "D", at(9)), Cancel("SPY", 1, "D", at(9))


def correction(price: float, conditions: str = "@", trade_id: int | None = 2) -> Correction:
    """Return a correction of the bad trade, except for what the test says."""
    return Correction("SPY", trade_id, price, "D", tuple(conditions), "B", 3, at(9))


@pytest.mark.parametrize(
    ("message", "published", "ignored"),
    [
        (CANCELS_BAD, [("SPY", 1.0, 1.5)], {}),
        (CANCELS_GOOD, [], {}),
        (Cancel("SPY", 2, "V"), [], {"cancel": 1}),
        (Cancel("QQQ", 2, "D"), [], {"cancel": 1}),
        (Cancel("SPY", None, "D"), [], {"cancel": 1}),
        (correction(1.6, trade_id=None), [], {"correction": 1}),
        (correction(1.6), [("SPY", 1.0, 1.6)], {}),
        (correction(0.01), [], {}),
        (correction(1.6, "@I"), [("SPY", 1.0, 1.5)], {}),
        (correction(float("nan")), [("SPY", 1.0, 1.5)], {}),
        (correction(1.6, trade_id=9), [], {"correction": 1}),
        (correction(1.6, "I", trade_id=9), [], {"correction": 1}),
        (Correction("QQQ", 2, 1.6), [], {"correction": 1}),
    ],
)
def test_a_cancelled_or_corrected_trade_gives_way(
    message: Cancel | Correction,
    published: list[tuple[str, float, float | None]],
    ignored: dict[str, int],
) -> None:
    """To the sale before it, or to its correction; one of an unknown trade changes nothing."""
    desk = Desk()
    desk.receive(quote(), GOOD, BAD)
    assert desk.published() == [("SPY", 1.0, 0.01)]
    desk.receive(message)
    assert desk.published() == published
    assert desk.prices.ignored == ignored
    counts = desk.prices.trades_cancelled, desk.prices.trades_corrected
    assert counts == ((1, 0) if isinstance(message, Cancel) else (0, 1))


def test_the_last_price_is_null_where_the_sale_before_is_not_known() -> None:
    """The update then reflects the quote alone; the next trade is the last sale again."""
    desk = Desk()
    desk.receive(quote(), BAD)
    desk.published()
    desk.receive(CANCELS_BAD)
    assert desk.published() == [("SPY", 1.0, None)]
    assert reflected_at(desk.prices.slots["SPY"]) == at(0)
    desk.receive(GOOD)
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_a_trade_of_a_snapshot_can_be_cancelled() -> None:
    """REST goes on showing it; then it is not taken in again, but another one is."""
    desk = Desk()
    desk.snapshot("SPY", quote(), BAD)
    assert desk.published() == [("SPY", 1.0, 0.01)]
    desk.receive(CANCELS_BAD)
    assert desk.published() == [("SPY", 1.0, None)]
    desk.snapshot("SPY", quote(), BAD)
    assert desk.published() == []
    desk.snapshot("SPY", quote(), GOOD)
    assert desk.published() == [("SPY", 1.0, 1.5)]


@pytest.mark.parametrize(
    ("message", "shown", "last_price"),
    [
        (CANCELS_BAD, BAD, None),
        (correction(1.6), BAD, None),
        (Cancel("SPY", 2, "D"), BAD, None),
        (CANCELS_BAD, trade(1.7, second=10, trade_id=2), 1.7),  # ids begin anew each day
        (Cancel("QQQ", 2, "D"), BAD, 0.01),
        (CANCELS_BAD, trade(0.01, second=2, trade_id=None), 0.01),
    ],
)
def test_a_snapshot_may_come_behind_the_cancellation(
    message: Cancel | Correction, shown: Trade, last_price: float | None
) -> None:
    """A trade is not later than its own cancellation."""
    desk = Desk()
    desk.receive(quote(), message)
    desk.snapshot("SPY", None, shown)
    assert desk.prices.slots["SPY"].last_price == last_price


def test_memory_does_not_grow_with_cancellations() -> None:
    """The newest are remembered: more than the most that an exchange ever cancelled in a day."""
    desk = Desk()
    desk.receive(quote(), *[Cancel("SPY", number, "D") for number in range(20_000)])
    desk.snapshot("SPY", None, trade(1.5, trade_id=19_999 - 4_341))
    assert desk.prices.slots["SPY"].last_price is None
    desk.snapshot("SPY", None, trade(1.5, trade_id=0))
    assert desk.prices.slots["SPY"].last_price == 1.5


def test_after_an_interruption_the_sale_before_is_not_known() -> None:
    """Sales may have been missed; the last sale that is known stays, and may be cancelled."""
    desk = Desk()
    desk.receive(quote(), GOOD)
    desk.prices.interrupted()
    assert desk.prices.slots["SPY"].last_price == 1.5
    desk.receive(BAD, CANCELS_BAD)
    assert desk.published() == [("SPY", 1.0, None)]


@pytest.mark.parametrize(
    ("quoted", "sold", "newest"), [(2, None, 2), (2, 1, 2), (1, 2, 2), (2, 2, 2)]
)
def test_an_update_reflects_the_newest_exchange_time(
    quoted: float, sold: float | None, newest: float
) -> None:
    """It is the newer one of the quote's and the last sale's."""
    desk = Desk()
    desk.receive(quote(second=quoted))
    if sold is not None:
        desk.receive(trade(second=sold))
    assert reflected_at(desk.prices.slots["SPY"]) == at(newest)


def test_a_slot_without_a_quote_reflects_nothing() -> None:
    """It is never emitted, so to ask is a defect."""
    with pytest.raises(AssertionError):
        reflected_at(Slot("SPY"))


def test_last_sales_are_forgotten_where_no_trades_come() -> None:
    """A last price that never changes again would be wrong: null goes out in its place."""
    desk = Desk("SPY", "QQQ", "IWM")
    desk.receive(quote(second=1), trade(1.5, second=2), quote("QQQ"))
    desk.receive(trade(1.5, symbol="IWM"))
    assert len(desk.published()) == 2
    desk.prices.forget_last_sales(desk.now)
    assert desk.published() == [("SPY", 1.0, None)]
    assert reflected_at(desk.prices.slots["SPY"]) == at(1)
    assert desk.prices.slots["IWM"].last_price is None
    desk.prices.forget_last_sales(desk.now)
    assert desk.published() == []


# Snapshots


def test_a_snapshot_fills_in_what_the_stream_has_not_told() -> None:
    """A symbol has a price at once, also when the market is closed."""
    desk = Desk()
    desk.snapshot("SPY", quote(bid=1.0), trade(1.5))
    assert desk.published() == [("SPY", 1.0, 1.5)]


@pytest.mark.parametrize(
    ("quoted", "sold", "published"),
    [
        (quote(bid=9.0, second=11), None, [("SPY", 9.0, 1.5)]),
        (quote(bid=9.0, second=10), None, []),
        (quote(bid=9.0, second=9), None, []),
        (None, trade(9.0, second=11), [("SPY", 1.0, 9.0)]),
        (None, trade(9.0, second=10), []),
        (None, trade(9.0, second=9), []),
        (quote(bid=9.0, second=11), trade(9.0, second=9), [("SPY", 9.0, 1.5)]),
        (quote(bid=0.0, second=11), trade(9.0, "I", second=11), []),
        (None, None, []),
    ],
)
def test_a_snapshot_replaces_only_what_is_older(
    quoted: Quote | None, sold: Trade | None, published: list[tuple[str, float, float | None]]
) -> None:
    """The stream's quote and trade are of second 10; what is as new as they are is ignored."""
    desk = Desk()
    desk.receive(quote(bid=1.0, second=10), trade(1.5, second=10))
    desk.published()
    desk.snapshot("SPY", quoted, sold)
    assert desk.published() == published


def test_a_stream_that_is_behind_a_snapshot_brings_no_older_price() -> None:
    """Its older quotes are counted and left out; from the snapshot's own on it is believed."""
    desk = Desk()
    desk.snapshot("SPY", quote(bid=9.0, second=10))
    desk.receive(quote(bid=7.0, second=7), quote(bid=8.0, second=9.998))
    assert desk.published() == [("SPY", 9.0, None)]
    assert desk.prices.dropped == {"older_than_snapshot": 2}
    desk.receive(quote(bid=9.5, second=10.0001))
    desk.receive(quote(bid=9.4, second=9))
    assert desk.published() == [("SPY", 9.4, None)], "the newest is the one that came last"


def test_a_quote_of_the_stream_that_a_snapshot_replaced_does_not_come_back() -> None:
    """What the snapshot replaced is conflated, and older quotes that follow it are left out."""
    desk = Desk()
    desk.receive(quote(bid=1.0, second=1))
    desk.snapshot("SPY", quote(bid=9.0, second=10))
    desk.receive(quote(bid=2.0, second=2))
    assert desk.prices.quotes_conflated == 1
    desk.conflator.settle(desk.conflator.take(0.0, 9), 0.0, delivered=False)
    desk.receive(quote(bid=3.0, second=3))
    desk.now += 1.0
    assert desk.published() == [("SPY", 9.0, None)], "also after a call that failed"


def test_a_wrong_time_of_a_snapshot_hides_no_symbol() -> None:
    """The stream is believed again after half a minute, and at once where the symbol left."""
    desk = Desk()
    desk.snapshot("SPY", quote(bid=9.0, second=3_600))
    desk.now += 29.9
    desk.receive(quote(bid=1.0))
    desk.now += 0.2
    assert desk.published() == [("SPY", 9.0, None)]
    desk.receive(quote(bid=2.0))
    desk.now += 1.0
    assert desk.published() == [("SPY", 2.0, None)]
    desk.snapshot("SPY", quote(bid=9.0, second=3_600))
    desk.desire("QQQ")
    desk.desire("SPY")
    desk.receive(quote(bid=3.0))
    desk.now += 1.0
    assert desk.published() == [("SPY", 3.0, None)]


def test_a_snapshot_of_what_is_no_longer_desired_is_ignored() -> None:
    """It may arrive late; neither a symbol without a slot nor one with a slot takes it."""
    desk = Desk()
    desk.snapshot("IWM", quote("IWM"))
    assert "IWM" not in desk.prices.slots
    desk.receive(quote(second=1))
    desk.published()
    desk.desired = frozenset({"QQQ"})
    desk.snapshot("SPY", quote(second=2))
    assert desk.published() == []


def test_a_snapshot_with_a_trade_alone_is_kept_for_the_first_quote() -> None:
    """Before that there is nothing to publish."""
    desk = Desk()
    desk.snapshot("SPY", quote(bid=0.0), trade(1.5))
    assert desk.published() == []
    desk.receive(quote())
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_no_snapshot_goes_back_behind_what_was_published_before() -> None:
    """REST may lag behind the stream that a predecessor saw; a quote that is as new is taken."""
    desk = Desk()
    desk.prices.set_floors({"SPY": at(10), "QQQ": at(10)})
    desk.snapshot("SPY", quote(bid=9.0, second=9), trade(1.5, second=1))
    assert desk.published() == []
    desk.snapshot("QQQ", quote("QQQ", bid=9.0, second=10))
    assert desk.published() == [("QQQ", 9.0, None)]
    desk.receive(quote(bid=1.0, second=3))
    assert desk.published() == [("SPY", 1.0, 1.5)], "the stream is believed"


def test_a_snapshot_may_differ_from_the_stream_by_how_its_time_was_rounded() -> None:
    """REST truncates a time that the stream rounds: up to 1 ms earlier is as new."""
    desk = Desk("SPY", "QQQ")
    desk.prices.set_floors({"SPY": at(10), "QQQ": at(10)})
    desk.snapshot("SPY", quote(bid=9.0, second=9.999))
    desk.snapshot("QQQ", quote("QQQ", bid=9.0, second=9.998))
    assert desk.published() == [("SPY", 9.0, None)]


@pytest.mark.parametrize(
    ("edge", "published"),
    [(datetime.min.replace(tzinfo=UTC), "SPY"), (datetime.max.replace(tzinfo=UTC), "QQQ")],
    ids=["earliest", "latest"],
)
def test_a_floor_may_be_any_time(edge: datetime, published: str) -> None:
    """What is stored is foreign data: the earliest and the latest time do no harm."""
    desk = Desk()
    desk.prices.set_floors({"SPY": edge, "QQQ": at(0)})
    desk.snapshot("SPY", quote())
    desk.snapshot("QQQ", Quote("QQQ", 1.0, 2.0, edge))
    assert [symbol for symbol, _, _ in desk.published()] == [published]


@pytest.mark.parametrize("heard_of", [False, True])
def test_a_symbol_that_returns_has_no_floor(heard_of: bool) -> None:
    """Its published price left with its demand, so any snapshot is better than no price."""
    desk = Desk()
    desk.prices.set_floors({"SPY": at(10)})
    if heard_of:
        desk.receive(quote(second=11))
        desk.published()
    desk.desire("QQQ")
    desk.desire("QQQ", "SPY")
    desk.snapshot("SPY", quote(bid=9.0, second=9))
    assert desk.published() == [("SPY", 9.0, None)]


def test_new_floors_replace_the_old_ones() -> None:
    """Each term reads anew what was published."""
    desk = Desk()
    desk.prices.set_floors({"SPY": at(10)})
    desk.prices.set_floors({"QQQ": at(10)})
    desk.snapshot("SPY", quote(second=9))
    desk.snapshot("QQQ", quote("QQQ", second=9))
    assert desk.published() == [("SPY", 1.0, None)]


# Slots


@pytest.mark.parametrize(
    "first",
    [
        lambda desk: desk.receive(quote()),
        lambda desk: desk.receive(trade()),
        lambda desk: desk.snapshot("SPY", quote()),
    ],
    ids=["quote", "trade", "snapshot"],
)
def test_a_slot_is_made_by_the_first_message_of_a_desired_symbol(
    first: Callable[[Desk], None],
) -> None:
    """A desired symbol gets its slot by its first message, after which nobody is asked again."""
    desk = Desk()
    assert not desk.prices.slots
    first(desk)
    slots = dict(desk.prices.slots)
    assert slots.keys() == {"SPY"}
    assert desk.asked == ["SPY"]
    desk.receive(quote(bid=1.1, second=1), trade(second=1))
    assert desk.prices.slots == slots, "the same slot"
    assert desk.asked == ["SPY"]


def test_a_status_makes_no_slot() -> None:
    """Statuses come for all symbols of the market, and they bring no price."""
    desk = Desk()
    desk.receive(TradingStatus("SPY", "2", "B"))
    assert not desk.prices.slots
    assert desk.asked == []


def test_a_symbol_that_leaves_is_forgotten() -> None:
    """What was to be published of it is forgotten, too; when it returns it has no price."""
    desk = Desk()
    desk.receive(quote(), trade(), quote("QQQ"))
    desk.desire("QQQ")
    assert set(desk.prices.slots) == {"QQQ"}
    assert desk.published() == [("QQQ", 1.0, None)]
    desk.desire("SPY", "QQQ")
    desk.prices.republish(desk.now)
    assert desk.published() == [("QQQ", 1.0, None)]
    desk.receive(quote(bid=1.1))
    assert desk.published() == [("SPY", 1.1, None)]


def test_a_symbol_in_flight_that_leaves_does_not_come_back() -> None:
    """A symbol that left while its update was in flight is not repeated, though the call fails."""
    desk = Desk()
    desk.receive(quote())
    taken = desk.conflator.take(0.0, 9)
    desk.desire("QQQ")
    desk.conflator.settle(taken, 0.0, delivered=False)
    assert desk.published() == []


def test_the_others_keep_their_price() -> None:
    """A change of the demand touches only the symbols that are dropped."""
    desk = Desk()
    desk.receive(quote())
    desk.desire("SPY", "IWM")
    assert desk.published() == [("SPY", 1.0, None)]


def test_a_symbol_without_a_slot_may_be_dropped() -> None:
    """A desired symbol of which nothing was heard has no slot, and may be dropped."""
    desk = Desk()
    desk.receive(quote())
    desk.prices.drop(["QQQ", "IWM"])
    assert set(desk.prices.slots) == {"SPY"}
    desk.receive(quote("QQQ"))
    assert desk.published() == [("SPY", 1.0, None), ("QQQ", 1.0, None)]


def test_until_it_is_dropped_a_symbol_keeps_its_slot() -> None:
    """A whole market leaves in parts, and a symbol with a slot is not asked about."""
    desk = Desk(*"ABCDE")
    desk.receive(*[quote(symbol) for symbol in "ABCDE"])
    desk.published()
    desk.desired = frozenset("A")
    desk.prices.drop("BCD")
    desk.receive(quote("B", bid=1.1), quote("E", bid=1.1))
    assert desk.published() == [("E", 1.1, None)]
    desk.prices.drop("E")
    assert desk.prices.slots.keys() == set("A")


def test_a_symbol_that_returns_within_its_window_is_still_throttled() -> None:
    """The window of its last update ends at 10, whatever the demand does meanwhile."""
    desk = Desk(window_s=10.0)
    desk.receive(quote(bid=1.0))
    assert desk.published() == [("SPY", 1.0, None)]
    for _ in range(2):
        desk.desire("QQQ")
        desk.desire("QQQ", "SPY")
    desk.now = 5.0
    desk.receive(quote(bid=1.1), quote("QQQ"))
    assert desk.published() == [("QQQ", 1.0, None)]
    desk.now = 10.0
    assert desk.published() == [("SPY", 1.1, None)]


def test_a_symbol_that_returns_after_its_window_is_published_at_once() -> None:
    """It is as new as one that was never desired before."""
    desk = Desk(window_s=10.0)
    desk.receive(quote(bid=1.0))
    desk.published()
    desk.desire("QQQ")
    desk.now = 10.0
    desk.published()
    desk.desire("QQQ", "SPY")
    desk.receive(quote(bid=1.1))
    assert desk.published() == [("SPY", 1.1, None)]


def test_memory_does_not_grow_with_the_symbols_that_left() -> None:
    """Symbols that left are remembered only as long as their window is open."""
    desk = Desk(window_s=1.0)
    before = _slots_alive()
    for n in range(100):
        symbol = f"S{chr(65 + n // 26)}{chr(65 + n % 26)}"
        desk.desire(symbol)
        desk.receive(quote(symbol))
        desk.published()
        desk.now += 1.0
    assert len(desk.prices.slots) == 1
    assert _slots_alive() - before <= 3, "the last one, and those before it whose window was open"


def _slots_alive() -> int:
    gc.collect()
    return sum(type(thing) is Slot for thing in gc.get_objects())


def test_everything_known_can_be_published_again() -> None:
    """Redis may have lost what it held; a symbol without a price is not made up."""
    desk = Desk()
    desk.receive(quote(), trade(), trade(symbol="QQQ"))
    assert len(desk.published()) == 1
    desk.prices.republish(desk.now)
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_every_price_can_be_forgotten() -> None:
    """Another daemon published newer ones meanwhile; what was ready does not go out, either."""
    desk = Desk()
    desk.receive(quote(), trade(), TradingStatus("SPY", "2", "B"))
    desk.prices.forget()
    desk.prices.republish(desk.now)
    assert desk.published() == []
    assert desk.halted == frozenset()
    desk.receive(quote(bid=1.7))
    assert desk.published() == [("SPY", 1.7, None)]


def test_what_is_forgotten_is_still_throttled() -> None:
    """A symbol whose price is forgotten keeps its open window."""
    desk = Desk(window_s=10.0)
    desk.receive(quote())
    desk.published()
    desk.prices.forget()
    desk.receive(quote(bid=1.7))
    assert desk.published() == []
    desk.now = 10.0
    assert desk.published() == [("SPY", 1.7, None)]


# Halts

HALT, RESUME = (TradingStatus("SPY", code, "C", at(5)) for code in "HT")


@pytest.mark.parametrize(
    ("frame", "was_halted", "halted"),
    [
        ([HALT], False, True),
        ([RESUME], True, False),
        ([HALT, RESUME], False, False),
        ([RESUME, HALT], True, True),
        ([quote()], True, True),
    ],
)
def test_a_halt_holds_until_its_resumption(
    frame: list[Message], was_halted: bool, halted: bool
) -> None:
    """The statuses of a frame count in order; ``halted`` is another object only if it changed."""
    desk = Desk()
    if was_halted:
        desk.receive(HALT)
    before = desk.halted
    assert before == ({"SPY"} if was_halted else set())
    desk.receive(*frame)
    assert desk.halted == ({"SPY"} if halted else set())
    assert (desk.halted is before) == (halted == was_halted)


def test_a_halt_is_a_new_value_and_leaves_the_old_one_as_it_was() -> None:
    """Who keeps the value that was read before may compare the two."""
    desk = Desk()
    desk.receive(HALT)
    before = desk.halted
    desk.receive(TradingStatus("QQQ", "H", "C"))
    assert before == {"SPY"}
    assert desk.halted - before == {"QQQ"}


def test_a_halt_of_what_nobody_desires_is_known() -> None:
    """Alpaca tells a halt once, so it counts as soon as somebody desires the symbol."""
    desk = Desk()
    desk.receive(TradingStatus("IWM", "H", "C"))
    assert desk.halted == {"IWM"}


def test_a_symbol_that_returns_is_still_halted() -> None:
    """The demand does not change what is halted."""
    desk = Desk()
    desk.receive(HALT)
    halted = desk.halted
    desk.desire("QQQ")
    desk.desire("QQQ", "SPY")
    assert desk.halted is halted


def test_a_halt_stands_over_an_interruption() -> None:
    """A resumption may have been missed, but Alpaca does not tell again of a halt that lasts."""
    desk = Desk()
    desk.receive(HALT)
    halted = desk.halted
    desk.prices.interrupted()
    assert desk.halted is halted


@pytest.mark.parametrize(
    ("frame", "halted"),
    [
        ([trade(second=6)], False),
        ([trade(second=5)], True),
        ([trade(second=6, conditions="I")], True),
        ([trade(second=6, symbol="QQQ")], True),
        ([trade(second=6), HALT], True),
        ([trade(second=7), HALT, trade(second=6)], True),  # a late print
        ([quote(second=6)], True),
    ],
)
def test_a_trade_that_sets_the_last_sale_after_a_halt_ends_it(
    frame: list[Message], halted: bool
) -> None:
    """The halt is of second 5; a trade that sets no last sale, or an older one, ends nothing."""
    desk = Desk()
    desk.receive(HALT)
    desk.receive(*frame)
    assert desk.halted == ({"SPY"} if halted else set())


@pytest.mark.parametrize("last_sales_shown", [True, False])
@pytest.mark.parametrize(
    ("shown", "halted"),
    [(trade(second=6), False), (trade(second=4), True), (trade(second=6, conditions="I"), True)],
)
def test_a_snapshot_may_end_a_halt(shown: Trade, halted: bool, last_sales_shown: bool) -> None:
    """The resumption was missed; REST's trade tells of it, also where no last sale is shown."""
    desk = Desk()
    desk.receive(HALT)
    desk.prices.interrupted()
    if last_sales_shown:
        desk.snapshot("SPY", None, shown)
    else:
        desk.prices.see_trade(shown)
    assert desk.halted == ({"SPY"} if halted else set())


def test_a_cancelled_trade_of_a_snapshot_ends_no_halt() -> None:
    """It was no trade."""
    desk = Desk()
    desk.receive(HALT, Cancel("SPY", 1, "D", at(9)))
    desk.snapshot("SPY", None, trade(second=6))
    desk.prices.see_trade(trade(second=6))
    assert desk.halted == {"SPY"}


def test_symbols_that_have_a_quote_are_known() -> None:
    """From their first two-sided quote, of stream or REST, until they leave or are forgotten.

    It is the same object until it changes, and first quotes are counted.
    """
    desk = Desk(window_s=1.0)
    prices = desk.prices
    desk.receive(quote("SPY", bid=0.0), trade())
    assert prices.quoted == frozenset()
    desk.receive(quote("SPY"), quote("SPY"), quote("OTHER"))
    known = prices.quoted
    assert known == {"SPY"}
    desk.published()
    desk.receive(quote("SPY", second=1))
    assert prices.quoted is known
    assert prices.first_quotes == 1
    desk.snapshot("QQQ", quote("QQQ"))
    desk.snapshot("QQQ", quote("QQQ", second=1))
    assert prices.quoted == {"SPY", "QQQ"}
    assert prices.first_quotes == 2
    desk.desire("QQQ")
    assert prices.quoted == {"QQQ"}
    desk.desire("SPY", "QQQ")
    desk.receive(quote("SPY", second=2))  # within its window: the slot is the old one
    assert prices.quoted == {"SPY", "QQQ"}
    prices.forget()
    assert prices.quoted == frozenset()
