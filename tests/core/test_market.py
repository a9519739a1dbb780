"""What a quote, a trade or a status changes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.conflate import Conflator, Slot
from spotd.core.market import Market, is_two_sided, reflected_at, sets_last_sale, why_dropped
from spotd.core.messages import (
    Acknowledgement,
    Cancel,
    Correction,
    Error,
    Quote,
    Success,
    Trade,
    TradingStatus,
)

T0 = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
HUGE = 1.5e308


def at(second: float) -> datetime:
    """Exchange time, in seconds after the open."""
    return T0 + timedelta(seconds=second)


def quote(symbol: str = "SPY", bid: float = 1.0, ask: float = 2.0, second: float = 0) -> Quote:
    """A good one, but for what the test says."""
    return Quote(symbol, bid, ask, at(second))


def trade(
    price: float = 1.5,
    conditions: str = "@",
    tape: str = "B",
    second: float = 0,
    symbol: str = "SPY",
) -> Trade:
    """One that sets the last sale, but for what the test says."""
    return Trade(symbol, price, at(second), tuple(conditions), tape)


class Desk:
    """A market that keeps SPY and QQQ, with a look at what it would publish."""

    def __init__(self, *symbols: str) -> None:
        self.conflator = Conflator(0.0)
        self.market = Market(self.conflator)
        self.market.keep(frozenset(symbols or ("SPY", "QQQ")))
        self.spy = self.market.slots.get("SPY", Slot("SPY"))

    def published(self) -> list[tuple[str, float, float | None]]:
        """Symbol, bid and last sale of every update that goes out now."""
        taken = self.conflator.take(0.0, 1_000)
        self.conflator.settle(taken, 0.0, delivered=True)
        return [(s.symbol, s.quote.bid, s.last_price) for s in taken if s.quote is not None]


# Quotes


@pytest.mark.parametrize(
    ("bid", "ask", "reason"),
    [
        (1.0, 2.0, None),
        (2.0, 2.0, None),  # locked
        (3.0, 2.0, None),  # crossed
        (5e-324, 5e-324, None),
        (0.0, 2.0, "one_sided"),
        (1.0, 0.0, "one_sided"),
        (0.0, 0.0, "one_sided"),
        (-1.0, 2.0, "one_sided"),
        (1.0, -0.0, "one_sided"),
        (nan, 0.0, "one_sided"),
        (-inf, 2.0, "one_sided"),
        (nan, 2.0, "not_finite"),
        (1.0, nan, "not_finite"),
        (nan, nan, "not_finite"),
        (inf, 2.0, "not_finite"),
        (1.0, inf, "not_finite"),
        (HUGE, HUGE, "not_finite"),  # their mean would not be finite
    ],
)
def test_only_a_two_sided_finite_quote_is_published(
    bid: float, ask: float, reason: str | None
) -> None:
    """Locked and crossed ones as received; the rest is counted by its reason, never published."""
    desk = Desk()
    desk.market.receive([quote(bid=bid, ask=ask)])
    assert desk.market.quotes_received == 1
    assert is_two_sided(bid, ask) == (reason is None)
    if reason is None:
        assert desk.published() == [("SPY", bid, None)]
        assert not desk.market.dropped
    else:
        assert desk.published() == []
        assert desk.market.dropped == {reason: 1}
        assert why_dropped(bid, ask) == reason


@given(*[st.floats()] * 2)
def test_no_quote_gets_past_with_a_price_that_is_none(bid: float, ask: float) -> None:
    """Two-sided means that both sides and their mean are positive and finite."""
    two_sided = is_two_sided(bid, ask)
    assert two_sided == (0 < bid < inf and 0 < ask < inf and bid + ask < inf)
    if two_sided:
        assert 0 < bid + ask < inf


def test_a_dropped_quote_leaves_the_last_good_one() -> None:
    """A side that goes missing says nothing about the price."""
    desk = Desk()
    desk.market.receive([quote(bid=1.0), quote(bid=0.0)])
    assert desk.published() == [("SPY", 1.0, None)]


def test_the_newest_quote_wins_and_what_it_replaced_is_counted() -> None:
    """In the order in which they came: exchange time is not monotonic."""
    desk = Desk()
    desk.market.receive([quote(bid=1.0, second=2), quote(bid=1.1, second=1)])
    desk.market.receive([quote("QQQ", bid=5.0), quote(bid=1.2)])
    assert desk.published() == [("SPY", 1.2, None), ("QQQ", 5.0, None)]
    assert desk.market.quotes_received == 4
    assert desk.market.quotes_conflated == 2
    assert desk.published() == []


def test_only_a_quote_that_was_not_published_is_conflated() -> None:
    """Not one that joins a trade, a snapshot or a repetition that waits; a failed call counts."""
    desk = Desk()
    market = desk.market
    market.receive([quote()])
    desk.published()
    market.receive([trade(1.5), quote(bid=1.1)])
    assert market.quotes_conflated == 0
    market.receive([quote(bid=1.2)])
    assert market.quotes_conflated == 1
    desk.published()
    market.republish()
    market.receive([quote(bid=1.3)])
    assert market.quotes_conflated == 1
    desk.conflator.settle(desk.conflator.take(0.0, 9), 0.0, delivered=False)
    market.receive([quote(bid=1.4)])
    assert market.quotes_conflated == 2
    market.keep(frozenset({"QQQ"}))
    market.keep(frozenset({"SPY"}))
    market.receive([quote(bid=1.5)])
    assert market.quotes_conflated == 2


def test_what_nobody_desires_is_counted() -> None:
    """Data may still come after an unsubscribe."""
    desk = Desk()
    desk.market.receive([quote("IWM"), Trade("IWM", 1.0, at(0))])
    assert desk.published() == []
    assert desk.market.dropped == {"not_desired": 1}
    assert desk.market.ignored == {"trade_not_desired": 1}


def test_control_messages_are_none_of_its_business() -> None:
    """They change nothing, wherever they stand."""
    desk = Desk()
    desk.market.receive([Success("connected"), Error(400), Acknowledgement(), quote()])
    assert desk.published() == [("SPY", 1.0, None)]
    assert not desk.market.dropped
    assert not desk.market.ignored


# The last sale

NOT_LAST_SALE = {
    "A": "B C H I M N P Q R U V Z 4 7",
    "B": "B C H I M N P Q R U V Z 4 7",
    "C": "C G H I M N P Q R U V W Z 4 7",
    "O": "C G H I M N P Q R U V W Z 4 7",
}
EVERY_CONDITION = [chr(code) for code in range(0x20, 0x7F)]


@pytest.mark.parametrize("tape", ["A", "B", "C", "O", "N", ""])
def test_every_condition_on_every_tape(tape: str) -> None:
    """The contract's lists, and no other condition; where it has none, both lists."""
    not_last_sale = set(NOT_LAST_SALE.get(tape, NOT_LAST_SALE["A"] + NOT_LAST_SALE["C"])) - {" "}
    assert {c for c in EVERY_CONDITION if not sets_last_sale(tape, [c])} == not_last_sale


@pytest.mark.parametrize(
    ("tape", "conditions", "sets"),
    [
        ("B", "", True),
        ("C", "@", True),
        ("C", "@T", True),  # extended hours
        ("A", " F", True),
        ("C", "@I", False),  # odd lot
        ("C", "IT", False),
        ("A", "4@", False),
        ("A", "B", False),  # average price on tapes A and B
        ("C", "B", True),  # bunched on tape C
        ("A", "W", True),
        ("C", "W", False),  # average price on tape C
    ],
)
def test_one_condition_is_enough_to_not_set_it(tape: str, conditions: str, sets: bool) -> None:
    """Whatever stands beside it; and no condition at all sets the last sale."""
    desk = Desk()
    desk.market.receive([quote(), trade(1.5, conditions, tape)])
    assert desk.spy.last_price == (1.5 if sets else None)
    assert desk.market.trades_received == 1
    assert desk.market.ignored == ({} if sets else {"trade_not_last_sale": 1})


@pytest.mark.parametrize("price", [0.0, -1.0, nan, inf])
def test_a_trade_without_a_real_price_sets_nothing(price: float) -> None:
    """Last sale is a number of dollars, or unknown."""
    desk = Desk()
    desk.market.receive([quote(), trade(1.5), trade(price)])
    assert desk.spy.last_price == 1.5


def test_a_last_sale_is_an_update_of_its_symbol() -> None:
    """With the quote that is known, again, and the newest of both times."""
    desk = Desk()
    desk.market.receive([quote(second=1)])
    assert desk.published() == [("SPY", 1.0, None)]
    desk.market.receive([trade(1.5, second=2)])
    assert desk.published() == [("SPY", 1.0, 1.5)]
    assert reflected_at(desk.spy) == at(2)
    desk.market.receive([trade(1.6, "I", second=3)])
    assert desk.published() == []


def test_before_the_first_quote_there_is_nothing_to_publish() -> None:
    """The trade is kept for the moment when there is."""
    desk = Desk()
    desk.market.receive([trade(1.5)])
    assert desk.published() == []
    desk.market.receive([quote()])
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_corrections_and_cancellations_change_no_price() -> None:
    """They are counted: the next trade is the correction that matters."""
    desk = Desk()
    desk.market.receive([quote(), trade(1.5), Correction("SPY"), Cancel("SPY"), Cancel("SPY")])
    assert desk.published() == [("SPY", 1.0, 1.5)]
    assert desk.market.ignored == {"correction": 1, "cancel": 2}


@pytest.mark.parametrize(
    ("quoted", "sold", "newest"), [(2, None, 2), (2, 1, 2), (1, 2, 2), (2, 2, 2)]
)
def test_an_update_reflects_the_newest_exchange_time(
    quoted: float, sold: float | None, newest: float
) -> None:
    """Of its quote and its last sale."""
    desk = Desk()
    desk.market.receive([quote(second=quoted)])
    if sold is not None:
        desk.market.receive([trade(second=sold)])
    assert reflected_at(desk.spy) == at(newest)


def test_a_slot_without_a_quote_reflects_nothing() -> None:
    """It is never emitted, so nobody may ask."""
    with pytest.raises(AssertionError):
        reflected_at(Slot("SPY"))


# Snapshots


def test_a_snapshot_fills_what_the_stream_has_not_told() -> None:
    """A symbol has a price at once, also when the market is closed."""
    desk = Desk()
    desk.market.prime("SPY", quote(bid=1.0), trade(1.5))
    assert desk.published() == [("SPY", 1.0, 1.5)]


@pytest.mark.parametrize(
    ("primed", "sold", "published"),
    [
        (quote(bid=9.0, second=9), None, [("SPY", 9.0, 1.5)]),
        (quote(bid=9.0, second=10), None, []),
        (quote(bid=9.0, second=11), None, []),
        (None, trade(9.0, second=9), [("SPY", 1.0, 9.0)]),
        (None, trade(9.0, second=10), []),
        (None, trade(9.0, second=11), []),
        (quote(bid=9.0, second=9), trade(9.0, second=11), [("SPY", 9.0, 1.5)]),
        (quote(bid=0.0, second=9), trade(9.0, "I", second=9), []),
        (None, None, []),
    ],
)
def test_a_snapshot_never_replaces_what_is_newer(
    primed: Quote | None, sold: Trade | None, published: list[tuple[str, float, float | None]]
) -> None:
    """Nor what is as new; the rows' seconds count back from the stream's, which is at 10."""
    desk = Desk()
    desk.market.receive([quote(bid=1.0, second=10), trade(1.5, second=10)])
    desk.published()
    desk.market.prime(
        "SPY",
        primed and Quote("SPY", primed.bid, primed.ask, at(20) - (primed.at - T0)),
        sold and Trade("SPY", sold.price, at(20) - (sold.at - T0), sold.conditions, sold.tape),
    )
    assert desk.published() == published


def test_a_snapshot_of_what_is_no_longer_desired_is_dropped() -> None:
    """It may answer late."""
    desk = Desk()
    desk.market.prime("IWM", quote("IWM"), None)
    assert "IWM" not in desk.market.slots


def test_a_snapshot_with_a_trade_alone_is_kept_for_the_first_quote() -> None:
    """There is nothing to publish yet."""
    desk = Desk()
    desk.market.prime("SPY", quote(bid=0.0), trade(1.5))
    assert desk.published() == []
    desk.market.receive([quote()])
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_last_sales_are_forgotten_where_no_trades_come() -> None:
    """One that never changes again would lie: it is null again, and that is an update."""
    desk = Desk()
    desk.market.receive([quote(second=1), trade(1.5, second=2), quote("QQQ")])
    desk.market.keep(frozenset({"SPY", "QQQ", "IWM"}))
    desk.market.receive([trade(1.5, symbol="IWM")])
    assert len(desk.published()) == 2
    desk.market.forget_last_sales()
    assert desk.published() == [("SPY", 1.0, None)]
    assert reflected_at(desk.spy) == at(1)
    assert desk.market.slots["IWM"].last_price is None
    desk.market.forget_last_sales()
    assert desk.published() == []


# Which symbols there are


def test_a_symbol_that_leaves_is_forgotten() -> None:
    """Also what was to be published of it; when it returns it has no price."""
    desk = Desk()
    desk.market.receive([quote(), trade()])
    desk.market.keep(frozenset({"QQQ"}))
    assert desk.published() == []
    assert set(desk.market.slots) == {"QQQ"}
    desk.market.keep(frozenset({"SPY", "QQQ"}))
    desk.market.republish()
    assert desk.published() == []
    assert desk.market.slots["SPY"].last_price is None


def test_the_others_keep_their_price() -> None:
    """A change of the demand touches nobody else."""
    desk = Desk()
    desk.market.receive([quote()])
    desk.market.keep(frozenset({"SPY", "IWM"}))
    assert desk.published() == [("SPY", 1.0, None)]


def test_memory_does_not_grow_with_the_symbols_that_left() -> None:
    """Only those whose window is open are remembered, and no longer than that."""
    desk = Desk()
    for n in range(100):
        symbol = f"S{chr(65 + n // 26)}{chr(65 + n % 26)}"
        desk.market.keep(frozenset({symbol}))
        desk.market.receive([quote(symbol)])
        desk.published()
    assert len(desk.market.slots) == 1
    assert len(desk.market._leaving) <= 1


def test_with_the_whole_market_a_symbol_exists_when_it_is_first_sent() -> None:
    """By a quote or a trade; a name that is no symbol stays out."""
    desk = Desk("*")
    assert not desk.market.slots
    desk.market.receive([quote("SPY"), quote("UI2T"), Trade("QQQ", 1.0, at(0)), quote("QQQ")])
    assert desk.published() == [("SPY", 1.0, None), ("QQQ", 1.0, 1.0)]
    assert set(desk.market.slots) == {"SPY", "QQQ"}
    assert desk.market.dropped == {"not_desired": 1}


def test_the_whole_market_keeps_what_was_there_and_leaves_what_is_desired() -> None:
    """`*` added forgets nobody; `*` removed forgets all that nobody names."""
    desk = Desk("SPY")
    desk.market.receive([quote("SPY")])
    desk.published()
    desk.market.keep(frozenset({"*"}))
    desk.market.receive([quote("QQQ")])
    desk.market.keep(frozenset({"*", "IWM"}))
    assert set(desk.market.slots) == {"SPY", "QQQ", "IWM"}
    desk.market.keep(frozenset({"SPY"}))
    assert set(desk.market.slots) == {"SPY"}
    assert desk.published() == []


def test_what_the_market_keeps_no_longer_is_told() -> None:
    """Also what only the whole market brought; and nothing while that is desired."""
    market = Desk("SPY").market
    assert market.keep(frozenset({"*", "SPY"})) == set()
    market.receive([quote("QQQ"), quote("IWM")])
    assert market.keep(frozenset({"*"})) == set()
    assert market.keep(frozenset({"IWM", "DIA"})) == {"SPY", "QQQ"}
    assert market.keep(frozenset()) == {"IWM", "DIA"}


def test_everything_known_can_be_published_again() -> None:
    """Redis may have lost what it held; what has no price yet is not made up."""
    desk = Desk()
    desk.market.receive([quote(), trade()])
    assert len(desk.published()) == 1
    desk.market.republish()
    assert desk.published() == [("SPY", 1.0, 1.5)]


def test_every_price_can_be_forgotten() -> None:
    """Another daemon published newer ones meanwhile; also what was ready is not sent."""
    desk = Desk()
    desk.market.receive([quote(), trade(), TradingStatus("SPY", "2", "B")])
    desk.market.forget()
    desk.market.republish()
    assert desk.published() == []
    assert desk.market.halted() == frozenset()
    desk.market.receive([quote(bid=1.7)])
    assert desk.published() == [("SPY", 1.7, None)]


# Halts

CTA = "2356789ACDEF"
UTP = "HQTP"


@pytest.mark.parametrize(
    ("tape", "halts", "resumes"),
    [("A", "2", "3"), ("B", "2", "3"), ("C", "HP", "T"), ("O", "HP", "T"), ("", "HP", "T")],
)
def test_every_status_on_every_tape(tape: str, halts: str, resumes: str) -> None:
    """A halt holds until its resumption; quoting that resumes is no trading that resumes."""
    for code in CTA + UTP:
        for halted_before in (False, True):
            market = Desk().market
            if halted_before:
                market.receive([TradingStatus("SPY", halts[0], tape)])
            market.halts_changed = False
            market.receive([TradingStatus("SPY", code, tape)])
            halted = code in halts or (halted_before and code not in resumes)
            assert market.halted() == (frozenset({"SPY"}) if halted else frozenset())
            assert market.halts_changed == (code in halts + resumes)


def test_a_status_of_what_nobody_desires_is_ignored() -> None:
    """Statuses come for all symbols; it counts as soon as somebody desires the symbol."""
    market = Desk().market
    market.receive([TradingStatus("IWM", "H", "C")])
    assert market.halted() == frozenset()
    assert not market.halts_changed
    market.keep(frozenset({"IWM"}))
    assert market.halted() == {"IWM"}


def test_a_symbol_that_returns_is_still_halted() -> None:
    """Alpaca tells a halt once, not to everybody who asks again."""
    market = Desk().market
    market.receive([TradingStatus("SPY", "2", "B")])
    market.keep(frozenset({"QQQ"}))
    market.keep(frozenset({"QQQ", "SPY"}))
    assert market.halted() == {"SPY"}


def test_an_interruption_forgets_halts() -> None:
    """A resumption may have been missed; a halt that lasts is told again."""
    market = Desk().market
    market.receive([TradingStatus("SPY", "2", "A"), TradingStatus("QQQ", "H", "C")])
    assert market.halted() == {"SPY", "QQQ"}
    market.halts_changed = False
    market.clear_halts()
    assert market.halted() == frozenset()
    assert market.halts_changed


def test_no_snapshot_goes_back_behind_what_was_published_before() -> None:
    """REST may lag behind the stream that a predecessor saw; what is as new passes."""
    desk = Desk()
    desk.market.heed({"SPY": at(10), "QQQ": at(10)})
    desk.market.prime("SPY", quote(bid=9.0, second=9), trade(1.5, second=1))
    assert desk.published() == []
    desk.market.prime("QQQ", quote("QQQ", bid=9.0, second=10), None)
    assert desk.published() == [("QQQ", 9.0, None)]
    desk.market.receive([quote(bid=1.0, second=3)])
    assert desk.published() == [("SPY", 1.0, 1.5)], "the stream is believed"


def test_a_symbol_that_returns_has_no_past() -> None:
    """Its published price is gone with its demand: any snapshot is better than none."""
    desk = Desk()
    desk.market.heed({"SPY": at(10)})
    desk.market.keep(frozenset({"QQQ"}))
    desk.market.keep(frozenset({"QQQ", "SPY"}))
    desk.market.prime("SPY", quote(bid=9.0, second=9), None)
    assert desk.published() == [("SPY", 9.0, None)]


def test_symbols_may_lose_their_slots_a_few_at_a_time() -> None:
    """The whole market leaves in parts; until it is a symbol's turn its price stays."""
    market = Market(Conflator(0.2))
    market.keep(frozenset("ABCDE"))
    left: list[frozenset[str]] = []
    while part := market.keep(frozenset("AX"), at_most=3):
        left.append(part)
    assert [len(part) for part in left] == [3, 1]
    assert left[0] | left[1] == set("BCDE")
    assert market.slots.keys() == set("AX")
