"""Which trade is the last sale, also after cancellations, corrections, late prints and gaps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.last_sales import FEWEST_FORMER, LastSales
from spotd.core.messages import Trade

T0 = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
Step = Callable[[LastSales], object]


def trade(trade_id: int | None, second: float = 0, price: float = 0, exchange: str = "D") -> Trade:
    """Return a trade. Its price is its id, unless the test names another one."""
    return Trade(
        "SPY",
        price or float(trade_id or 1),
        T0 + timedelta(seconds=second),
        ("@",),
        "C",
        trade_id,
        exchange,
    )


def sold(trade_id: int, second: float = 0, exchange: str = "D") -> Step:
    """Have the stream bring a trade."""
    return lambda sales: sales.add_sale(trade(trade_id, second, exchange=exchange))


def snapshot(trade_id: int, second: float = 0) -> Step:
    """Have REST bring its latest trade."""
    return lambda sales: sales.fill_in_sale(trade(trade_id, second))


def cancelled(trade_id: int, exchange: str = "D") -> Step:
    """Cancel a trade."""
    return lambda sales: sales.cancel_sale(trade_id, exchange)


def corrected(trade_id: int, new_id: int | None, price: float) -> Step:
    """Correct a trade of exchange D."""
    return lambda sales: sales.correct_sale(trade_id, "D", new_id, price)


def interrupted(sales: LastSales) -> None:
    """Interrupt the stream."""
    sales.interrupted()


TABLE: dict[str, tuple[list[Step], float | None]] = {
    "nothing sold": ([], None),
    "the newest": ([sold(1), sold(2, 1)], 2.0),
    "of the same time the one that came last": ([sold(1), sold(2)], 2.0),
    "a late print": ([sold(2, 9), sold(1, 1)], 2.0),
    "the one before a cancelled one": ([sold(1), sold(2, 1), cancelled(2)], 1.0),
    "two cancelled in a row": ([sold(1), sold(2), sold(3), cancelled(3), cancelled(2)], 1.0),
    "cancelled in another order": ([sold(1), sold(2), sold(3), cancelled(2), cancelled(3)], 1.0),
    "an only one cancelled": ([sold(1), cancelled(1)], None),
    "all cancelled": ([sold(1), sold(2), cancelled(1), cancelled(2)], None),
    "one that is not the last": ([sold(1), sold(2), cancelled(1)], 2.0),
    "one of another exchange": ([sold(1), sold(2), cancelled(2, "V")], 2.0),
    "an unknown one": ([sold(1), sold(2), cancelled(3)], 2.0),
    "no exchange named": ([sold(1, exchange=""), cancelled(1, "")], 1.0),
    "a new one after a cancelled one": ([sold(1), cancelled(1), sold(2)], 2.0),
    "older than a cancelled one": ([sold(1, 5), cancelled(1), sold(2, 3)], 2.0),
    "a late print before a cancelled one": ([sold(1), sold(3, 9), sold(2, 5), cancelled(3)], 2.0),
    "late as the one before it": ([sold(1, 5), sold(3, 9), sold(2, 5), cancelled(3)], 2.0),
    "a late print before two": (
        [sold(1), sold(3, 6), sold(4, 9), sold(2, 5), cancelled(4), cancelled(3)],
        2.0,
    ),
    # What was sold between the late print and the first sale that came is not known.
    "a late print before all": ([sold(3, 9), sold(2, 5), cancelled(3)], None),
    "corrected": ([sold(1), corrected(1, 2, 7.5)], 7.5),
    "corrected and cancelled": ([sold(1), sold(2), corrected(2, 3, 7.5), cancelled(3)], 1.0),
    "corrected without a new id": ([sold(1), corrected(1, None, 7.5), cancelled(1)], None),
    "corrected, not the last": ([sold(1), sold(2), corrected(1, 3, 7.5), cancelled(2)], 7.5),
    "corrected with an absurd id": ([sold(1), corrected(1, -1, 7.5)], 7.5),
    "by its old id": ([sold(1), corrected(1, 2, 7.5), cancelled(1)], 7.5),
    # After an interruption, others may have been sold before the next one.
    "the last before a gap": ([sold(1), sold(2), interrupted], 2.0),
    "cancelled after a gap": ([sold(1), sold(2), interrupted, cancelled(2)], None),
    "corrected after a gap": ([sold(1), interrupted, corrected(1, 2, 7.5)], 7.5),
    "the first after a gap cancelled": ([sold(1), interrupted, sold(2), cancelled(2)], None),
    "the second after a gap": ([interrupted, sold(1), sold(2), cancelled(2)], 1.0),
    "a late print after a gap": ([sold(3, 9), interrupted, sold(2, 5), cancelled(3)], None),
    "before and after a gap": ([sold(1), interrupted, sold(2), sold(3), cancelled(2)], 3.0),
    # REST.
    "a snapshot": ([snapshot(1)], 1.0),
    "a cancelled snapshot": ([snapshot(1), cancelled(1)], None),
    "a snapshot before the stream's": ([snapshot(1), sold(2, 1), cancelled(2)], 1.0),
    "a newer snapshot": ([sold(1), snapshot(2, 1), cancelled(2)], None),
    "a snapshot as new": ([sold(1), snapshot(2)], 1.0),
    "an older snapshot": ([sold(2, 1), snapshot(1), cancelled(2)], 1.0),
    "before the run": ([sold(2, 1), sold(3, 2), snapshot(1), cancelled(2), cancelled(3)], 1.0),
    "inside the run": ([sold(1), sold(3, 2), snapshot(2, 1), cancelled(3)], 1.0),
    "the same in both": ([snapshot(1), sold(1), cancelled(1)], None),
    "the same, truncated": ([sold(1, 1e-6), snapshot(1), cancelled(1)], None),
    "an older snapshot after a gap": ([sold(2, 9), interrupted, snapshot(1), cancelled(2)], None),
    "a snapshot fills": ([sold(1), cancelled(1), snapshot(2)], 2.0),
}


@pytest.mark.parametrize(("steps", "price"), TABLE.values(), ids=TABLE)
def test_the_last_sale(steps: list[Step], price: float | None) -> None:
    """It is the newest sale that was not cancelled; null where that is not known."""
    sales = LastSales()
    for step in steps:
        step(sales)
    assert sales.last_price == price
    assert (sales.sold_at is None) == (price is None)


def test_only_the_newest_says_so() -> None:
    """A late print, and a snapshot that is not newer, change nothing that is shown."""
    sales = LastSales()
    assert sales.add_sale(trade(2, 9))
    assert not sales.add_sale(trade(1, 5))
    assert not sales.fill_in_sale(trade(1, 9))
    assert sales.fill_in_sale(trade(3, 10))
    assert (sales.last_price, sales.sold_at) == (3.0, T0 + timedelta(seconds=10))


def test_a_cancellation_says_whether_it_was_known() -> None:
    """Only those of a sale that is kept count."""
    sales = LastSales()
    sales.add_sale(trade(1))
    assert not sales.cancel_sale(2, "D")
    assert not sales.cancel_sale(1, "DD")
    assert not sales.correct_sale(1, "V", 3, 5.0)
    assert sales.correct_sale(1, "D", 3, 5.0)
    assert sales.cancel_sale(3, "D")


def test_a_correction_keeps_the_time() -> None:
    """The trade was made when it was made."""
    sales = LastSales()
    sales.add_sale(trade(1, 1.234567))
    sales.correct_sale(1, "D", 2, 5.0)
    assert sales.sold_at == T0 + timedelta(seconds=1.234567)


@pytest.mark.parametrize(
    ("trade_id", "exchange"),
    [(None, "D"), (-1, "D"), (1 << 64, "D"), (1, ""), (1, "DD"), (1, "\u20ac"), (1, "\0")],
)
def test_a_trade_that_nobody_can_name_is_a_sale(trade_id: int | None, exchange: str) -> None:
    """It cannot be cancelled, and stands behind one that is."""
    sales = LastSales()
    assert sales.add_sale(trade(trade_id, price=7.0, exchange=exchange))
    assert not sales.cancel_sale(0, "\0")
    sales.add_sale(trade(5))
    sales.cancel_sale(5, "D")
    assert sales.last_price == 7.0


@pytest.mark.parametrize(
    "edge", [datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
)
def test_a_sale_may_have_any_time(edge: datetime) -> None:
    """Exchange times are foreign data."""
    sales = LastSales()
    sales.fill_in_sale(Trade("SPY", 1.0, edge, (), "C", 1, "D"))
    sales.add_sale(Trade("SPY", 2.0, edge, (), "C", 2, "D"))
    assert sales.cancel_sale(2, "D")
    assert sales.last_price == 1.0
    assert sales.sold_at is not None
    assert abs(sales.sold_at - edge) < timedelta(seconds=1)


@pytest.mark.parametrize("late", [False, True])
def test_as_many_cancellations_in_a_row_are_followed(late: bool) -> None:
    """However many sales came before, enough of them are kept, and not all."""
    sales = LastSales()
    count = 40 * FEWEST_FORMER
    sales.add_sale(trade(1))
    if late:
        sales.add_sale(trade(count + 1, count + 1))
    for number in range(2, count + 1):
        sales.add_sale(trade(number, number))
    if late:
        sales.cancel_sale(count + 1, "D")
    for number in range(count, count - FEWEST_FORMER + late, -1):
        assert sales.last_price == number
        sales.cancel_sale(number, "D")
    assert sales.last_price == count - FEWEST_FORMER + late
    for number in range(count, 1, -1):
        sales.cancel_sale(number, "D")
    assert sales.last_price is None


def test_sales_can_be_forgotten() -> None:
    """Then it is as if nothing had been sold."""
    sales = LastSales()
    sales.add_sale(trade(1))
    sales.interrupted()
    sales.forget_sales()
    assert (sales.last_price, sales.sold_at) == (None, None)
    sales.add_sale(trade(2, -9))
    sales.add_sale(trade(3))
    sales.cancel_sale(3, "D")
    assert sales.last_price == 2.0


# Any order of events


class Kept(NamedTuple):
    """A sale of the model: the order of its fields is the order of sales."""

    second: int
    came: int
    name: tuple[int, str]
    price: float


class Model:
    """The rule, without limits: a sorted list."""

    def __init__(self) -> None:
        self.run: list[Kept] = []
        self.gap = False

    def sold(self, sale: Kept) -> None:
        """Take in a trade of the stream."""
        newest = not self.run or sale.second >= self.run[-1].second
        if newest and self.gap:
            self.run = []
        if newest or (not self.gap and any(each.second <= sale.second for each in self.run)):
            self.run = sorted([*self.run, sale])
        self.gap = self.gap and not newest

    def snapshot(self, sale: Kept) -> None:
        """Take in REST's latest trade."""
        if not self.run or sale.second > self.run[-1].second:
            self.run, self.gap = [sale], False
        elif not self.gap and sale.second < self.run[0].second and sale.name != self.run[0].name:
            self.run = [sale, *self.run]

    def interrupted(self) -> None:
        """Take in that sales may have been missed."""
        self.run = self.run[-1:]
        self.gap = bool(self.run)

    def replaced(self, name: tuple[int, str], by: tuple[tuple[int, str], float] | None) -> None:
        """Take in a correction, or a cancellation."""
        changed = []
        for each in self.run:
            if each.name != name:
                changed.append(each)
            elif by is not None:
                changed.append(each._replace(name=by[0], price=by[1]))
        self.run = changed
        self.gap = self.gap and bool(changed)


IDS, EXCHANGES, SECONDS = st.integers(1, 4), st.sampled_from("DV"), st.integers(0, 6)
SOLD = st.tuples(st.sampled_from(["sold", "sold", "snapshot"]), IDS, EXCHANGES, SECONDS)
OTHERS = st.tuples(st.sampled_from(["cancel", "correct", "gap"]), IDS, EXCHANGES, SECONDS)


@given(st.lists(st.one_of(SOLD, SOLD, OTHERS), max_size=FEWEST_FORMER))
def test_any_order_of_events(events: list[tuple[str, int, str, int]]) -> None:
    """The last sale is the newest of the run that was not cancelled, whatever happens."""
    sales, model = LastSales(), Model()
    for came, (kind, trade_id, exchange, second) in enumerate(events, start=1):
        name, price = (trade_id, exchange), float(came)
        told = Trade("SPY", price, T0 + timedelta(seconds=second), (), "C", *name)
        match kind:
            case "sold":
                sales.add_sale(told)
                model.sold(Kept(second, came, name, price))
            case "snapshot":
                sales.fill_in_sale(told)
                model.snapshot(Kept(second, -came, name, price))
            case "cancel":
                sales.cancel_sale(*name)
                model.replaced(name, None)
            case "correct":
                sales.correct_sale(*name, second + 1, price)
                model.replaced(name, ((second + 1, exchange), price))
            case "gap":
                sales.interrupted()
                model.interrupted()
        newest = model.run[-1] if model.run else None
        assert sales.last_price == (newest and newest.price)
        assert sales.sold_at == (newest and T0 + timedelta(seconds=newest.second))
