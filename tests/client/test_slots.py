"""What one consumer gets next, under a manual clock."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from spotd.client.slots import Slots


def taken(slots: Slots[str], now: float = 0.0) -> list[str]:
    """Take all that there is at one moment."""
    found = []
    while (value := slots.take(now)) is not None:
        found.append(value)
    return found


def test_the_newest_replaces_the_others_in_their_place() -> None:
    """A busy symbol keeps its place, so it does not wait longer for being busy."""
    slots: Slots[str] = Slots()
    for value in ("SPY 1", "QQQ 1", "SPY 2"):
        slots.put_price(value[:3], value, 0.0)
    assert taken(slots) == ["SPY 2", "QQQ 1"]
    assert slots.skipped == 1
    assert slots.next_at() is None


def test_a_state_comes_behind_the_prices_before_it() -> None:
    """This holds where it replaces an older state that came before these prices."""
    slots: Slots[str] = Slots()
    slots.put_state("SPY", "live")
    slots.put_price("SPY", "1", 0.0)
    slots.put_state("SPY", "stale")
    assert taken(slots) == ["1", "stale"]
    assert slots.skipped == 1


def test_a_price_comes_behind_the_state_before_it() -> None:
    """A price after ``stale`` is not suspect, so it must not be told before it."""
    slots: Slots[str] = Slots()
    slots.put_price("SPY", "1", 0.0)
    slots.put_state("SPY", "stale")
    slots.put_price("SPY", "2", 0.0)
    assert taken(slots) == ["stale", "2"]


def test_max_hz_holds_prices_back_and_keeps_the_newest() -> None:
    """In each window of a symbol one price is taken; the newest of the rest when it ends."""
    slots: Slots[str] = Slots(max_hz=2)
    slots.put_price("SPY", "1", 10.0)
    assert taken(slots, 10.0) == ["1"]
    slots.put_price("SPY", "2", 10.1)
    slots.put_price("SPY", "3", 10.2)
    slots.put_price("QQQ", "other", 10.2)
    assert taken(slots, 10.2) == ["other"]
    assert slots.next_at() == 10.5
    assert taken(slots, 10.49) == []
    assert taken(slots, 10.5) == ["3"]
    assert slots.next_at() is None
    assert slots.skipped == 1
    slots.put_price("SPY", "4", 12.0)
    assert taken(slots, 12.0) == ["4"]


def test_a_state_lets_a_price_that_is_held_back_pass() -> None:
    """Else the state would wait for a window, or come before a price that it speaks of."""
    slots: Slots[str] = Slots(max_hz=1)
    slots.put_price("SPY", "1", 0.0)
    assert taken(slots, 0.0) == ["1"]
    slots.put_price("SPY", "2", 0.1)
    slots.put_state("SPY", "stale")
    assert taken(slots, 0.1) == ["2", "stale"]


def test_any_key_has_a_slot() -> None:
    """Events have keys of their own, and are counted where they are replaced."""
    slots: Slots[str] = Slots()
    for key, value in ((int, "gap 1"), ("", "entry"), (int, "gap 2")):
        slots.put(key, value)
    assert taken(slots) == ["gap 2", "entry"]
    assert slots.skipped == 1


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_rate_is_above_zero(wrong: float) -> None:
    """A rate that could never work is refused."""
    with pytest.raises(ValueError, match="max_hz must be greater than 0"):
        Slots(max_hz=wrong)


_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["price", "state", "take", "wait"]), st.sampled_from(["SPY", "QQQ", "IWM"])
    ),
    max_size=60,
)


@given(_STEPS, st.sampled_from([None, 1.0, 4.0]))
@example([("price", "SPY"), ("take", ""), ("price", "SPY"), ("wait", ""), ("price", "SPY")], 4.0)
def test_nothing_goes_back_and_the_newest_arrives(
    steps: list[tuple[str, str]], max_hz: float | None
) -> None:
    """Each symbol's values are taken in the order in which they came, each once, the newest last.

    What was put is taken or counted as skipped, and between two steps at most two values of a
    symbol wait.
    """
    slots: Slots[tuple[str, int]] = Slots(max_hz=max_hz)
    now, number, newest = 0.0, 0, dict[str, int]()
    got: list[tuple[str, int]] = []
    for step, symbol in steps:
        if step == "wait":
            now += 0.3
        elif step == "take":
            if (value := slots.take(now)) is not None:
                got.append(value)
        else:
            number += 1
            newest[symbol] = number
            if step == "price":
                slots.put_price(symbol, (symbol, number), now)
            else:
                slots.put_state(symbol, (symbol, number))
        assert number - len(got) - slots.skipped <= 6
    while True:
        at = slots.next_at()
        now = now if at is None else max(now, at)
        if (value := slots.take(now)) is not None:
            got.append(value)
        elif at is None:
            break
    assert len(got) + slots.skipped == number
    for symbol, last in newest.items():
        numbers = [n for name, n in got if name == symbol]
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == last
