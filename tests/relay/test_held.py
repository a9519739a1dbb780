"""When prices that ``max_hz`` holds back are due."""

from __future__ import annotations

from spotd.relay.held import Held
from spotd.relay.slots import Client, Pace, Slot
from spotd.relay.wire import Wire


def pace_until(next_at: float) -> Pace:
    """Return the pace of one client, whose next price is due at this time."""
    pace = Pace(Client(Wire.MESSAGES, 0), Slot("SPY"), max_hz=1)
    pace.next_at = next_at
    return pace


def test_prices_are_due_in_the_order_of_their_times() -> None:
    """Each once, and none before its time."""
    held, early, late = Held(), pace_until(5), pace_until(7)
    for pace in (late, early):
        held.add(pace)
    assert held.next_at == 5
    assert list(held.due(4.9)) == []
    assert list(held.due(7)) == [early, late]
    assert list(held.due(100)) == []
    assert len(held) == 0


def test_a_price_that_was_dropped_is_not_due() -> None:
    """One that waits for another time since then is due at that time alone."""
    held, pace, other = Held(), pace_until(5), pace_until(6)
    held.add(other)
    held.add(pace)
    held.drop(pace)
    held.drop(pace)
    pace.next_at = 8
    held.add(pace)
    assert list(held.due(7)) == [other]
    assert list(held.due(8)) == [pace]


def test_what_was_dropped_takes_no_memory() -> None:
    """However often prices wait and are dropped, long before they are due."""
    held, waiting = Held(), [pace_until(100) for _ in range(10)]
    for pace in waiting:
        held.add(pace)
    for _ in range(1_000):
        dropped = pace_until(100)
        held.add(dropped)
        held.drop(dropped)
        assert len(held) <= 2 * len(waiting) + 1
    assert list(held.due(100)) == waiting
