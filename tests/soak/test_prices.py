"""What the channels bring is compared with what Alpaca sent."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.soak.prices import Prices, bid_of, number_of


def _sent(*at: float) -> Prices:
    prices = Prices(throttle_s=0.2)
    for number, sent_at in enumerate(at):
        assert prices.next_number("SPY") == number
        prices.sent("SPY", number, sent_at)
    return prices


def _heard(prices: Prices, number: int, seq_s: float, at: float | None = None) -> list[str]:
    bid = bid_of(number)
    heard_at = seq_s if at is None else at
    found = prices.heard("SPY", bid, round(bid + 0.02, 2), int(seq_s * 1e6), heard_at, 0.0)
    return [rule for rule, *_ in found]


@given(st.integers(0, 10**7))
def test_a_bid_tells_its_number(number: int) -> None:
    """Each number has one bid, and no other bid has a number."""
    assert number_of(bid_of(number)) == number
    assert number_of(bid_of(number) + 0.004) == -1


def test_a_symbol_is_behind_since_its_first_quote_that_nothing_reflects() -> None:
    """An update takes all quotes up to its own with it; so does a stored price."""
    prices = _sent(1.0, 2.0, 3.0, 4.0)
    assert prices.behind() == {"SPY": 1.0}
    assert not _heard(prices, 1, 10.0)
    assert prices.behind() == {"SPY": 3.0}
    prices.stored("SPY", bid_of(3))
    assert not prices.behind()
    assert prices.newest("SPY") == (3, 1)


def test_updates_in_order_are_right() -> None:
    """``seq`` rises, windows are kept, prices get newer."""
    prices = _sent(1.0, 2.0, 3.0)
    assert [_heard(prices, n, 10.0 + n * 0.2) for n in range(3)] == [[], [], []]
    assert prices.updates == 3


def test_a_seq_that_does_not_rise() -> None:
    """The same ``seq`` twice is as wrong as a lower one."""
    prices = _sent(1.0, 2.0)
    _heard(prices, 0, 10.0)
    assert "seq did not rise" in _heard(prices, 1, 10.0)
    assert "seq did not rise" in _heard(prices, 1, 9.0)


def test_an_older_price_after_a_newer_one() -> None:
    """A newer ``seq`` with an older price is wrong."""
    prices = _sent(1.0, 2.0)
    _heard(prices, 1, 10.0)
    assert _heard(prices, 0, 11.0) == ["an older price after a newer one"]


def test_a_price_that_nobody_sent() -> None:
    """A bid that no quote had, or that of a quote to come, is wrong."""
    prices = _sent(1.0)
    assert _heard(prices, 1, 10.0) == ["a price that Alpaca did not send"]
    found = prices.heard("SPY", 0.0, 5.0, 1, 1.0, 0.0)
    assert [rule for rule, *_ in found] == ["a price that Alpaca did not send"]


def test_two_updates_within_a_window() -> None:
    """By ``seq``, the publisher's own clock, two updates are a window apart."""
    prices = _sent(1.0, 2.0)
    _heard(prices, 0, 10.0)
    assert _heard(prices, 1, 10.19) == ["throttle, by seq"]


def test_more_arrivals_than_windows() -> None:
    """By arrival, a second holds five windows, and what was late may come beside."""
    prices = _sent(*map(float, range(10)))
    found = [_heard(prices, n, 10.0 + n, at=50.0 + n / 100) for n in range(8)]
    assert found == [[]] * 7 + [["throttle, by arrival"]]
