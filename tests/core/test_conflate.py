"""Which symbols may be published now, in dialogue. test_throttle_rule proves the rule itself."""

from __future__ import annotations

from datetime import UTC, datetime
from math import inf

import pytest

from spotd.core.conflate import Batch, Conflator, Phase, Slot

AT = datetime(2026, 1, 20, tzinfo=UTC)


def slot(symbol: str) -> Slot:
    """Return one with a price."""
    made = Slot(symbol)
    made.quoted_at = AT
    return made


def edge_at(conflator: Conflator) -> float | None:
    """Return since when the oldest leading edge has waited."""
    return conflator.edge_at


def test_the_first_update_goes_out_at_once() -> None:
    """A quiet slot is ready when it is offered, whatever the clock says."""
    conflator, a = Conflator(0.2), slot("A")
    assert conflator.next_at() is None
    assert conflator.take(0.0, 10) == []
    conflator.offer(a, 0.0)
    assert list(conflator.ready) == [a]
    assert conflator.next_at() == -inf
    assert conflator.take(5.0, 10) == [a]
    assert a.phase is Phase.HELD
    assert not a.changed


def test_the_window_opens_when_redis_has_answered() -> None:
    """An update was emitted at 0 and answered at 3: with 0.25 s, the next may go at 3.25."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 0.0)
    taken = conflator.take(0.0, 10)
    conflator.offer(a, 1.0)
    assert conflator.take(2.0, 10) == []
    assert conflator.next_at() is None
    conflator.settle(taken, 3.0, delivered=True)
    assert conflator.next_at() == 3.25
    assert conflator.take(3.2, 10) == []
    assert conflator.take(3.25, 10) == [a]


def test_a_window_without_news_ends_in_silence() -> None:
    """The symbol is then as quiet as if it had never been published, and no timer is needed."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 0.0)
    conflator.settle(conflator.take(0.0, 10), 0.0, delivered=True)
    assert conflator.next_at() is None
    assert conflator.take(0.25, 10) == []
    assert a.phase is Phase.QUIET


def test_a_timer_is_set_for_the_first_window_with_news() -> None:
    """Windows without news before it, and after it, need none."""
    conflator, slots = Conflator(0.25), [slot(symbol) for symbol in "ABCD"]
    for at, each in zip((0.0, 0.125, 0.1875, 0.21875), slots, strict=True):
        conflator.offer(each, at)
        conflator.settle(conflator.take(at, 10), at, delivered=True)
    conflator.offer(slots[2], 0.22)
    assert conflator.next_at() == 0.4375
    conflator.offer(slots[1], 0.23)
    assert conflator.next_at() == 0.375
    assert conflator.take(0.375, 10) == [slots[1]]
    assert conflator.next_at() == 0.4375


def test_news_that_came_while_the_call_was_under_way_needs_a_timer() -> None:
    """The window that its answer opens ends with the newest price."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 0.0)
    taken = conflator.take(0.0, 10)
    conflator.offer(a, 0.125)
    assert conflator.next_at() is None
    conflator.settle(taken, 0.25, delivered=True)
    assert conflator.next_at() == 0.5


def test_the_oldest_leading_edge_is_told_apart_from_what_a_window_held_back() -> None:
    """The first update after a quiet window may not wait as long as the end of a window may."""
    conflator, a, b = Conflator(0.25), slot("A"), slot("B")
    conflator.offer(a, 1.0)
    assert edge_at(conflator) == 1.0
    conflator.settle(conflator.take(1.0, 10), 1.0, delivered=True)
    assert edge_at(conflator) is None
    conflator.offer(a, 1.125)
    conflator.end_windows(1.25)
    assert edge_at(conflator) is None
    conflator.offer(b, 1.375)
    conflator.offer(slot("C"), 1.5)
    assert edge_at(conflator) == 1.375
    # What is left by a batch that was full waits no longer.
    conflator.take(1.5, 2)
    assert edge_at(conflator) == 1.5


def test_what_was_perhaps_not_delivered_goes_out_again() -> None:
    """What was perhaps not delivered waits for its window, since Redis may have published it."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 0.0)
    conflator.settle(conflator.take(0.0, 10), 1.0, delivered=False)
    assert conflator.take(1.2, 10) == []
    assert conflator.take(1.25, 10) == [a]


def test_what_was_cleared_in_flight_does_not_come_back() -> None:
    """A slot without a price has nothing to repeat."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 0.0)
    taken = conflator.take(0.0, 10)
    a.clear()
    conflator.settle(taken, 1.0, delivered=False)
    assert conflator.take(2.0, 10) == []
    assert a.phase is Phase.QUIET


def test_what_was_cleared_while_ready_is_skipped() -> None:
    """A slot that was cleared while ready takes no room in the batch, and may be offered anew."""
    conflator, a, b, c, d = Conflator(0.25), *map(slot, "ABCD")
    for each in (a, b, c, d):
        conflator.offer(each, 0.0)
    a.clear()
    c.clear()
    assert conflator.take(0.0, 2) == [b, d]
    assert (a.phase, c.phase) == (Phase.QUIET, Phase.QUIET)
    conflator.offer(a, 0.0)
    assert conflator.take(0.0, 1) == [a]


def test_what_was_cleared_while_ready_waits_anew() -> None:
    """A symbol that left and came back does not go before one that waited all the time."""
    conflator, a, b = Conflator(0.25), slot("A"), slot("B")
    conflator.offer(a, 0.0)
    conflator.offer(b, 0.0)
    a.clear()
    conflator.offer(a, 3.0)
    assert a.due_at == 3.0
    assert conflator.take(3.0, 10) == [b, a]
    assert not conflator.ready


def test_what_was_cleared_while_ready_hides_no_window() -> None:
    """Where all that was ready was cleared, the end of the next window with news is awaited."""
    conflator, a, b = Conflator(0.25), slot("A"), slot("B")
    conflator.offer(a, 0.0)
    conflator.settle(conflator.take(0.0, 10), 0.0, delivered=True)
    conflator.offer(a, 0.125)
    conflator.offer(b, 0.1875)
    b.clear()
    conflator.end_windows(0.1875)
    assert not conflator.ready
    assert edge_at(conflator) is None
    assert conflator.next_at() == 0.25


def test_an_empty_batch_changes_nothing() -> None:
    """An empty batch that is settled opens no window."""
    conflator = Conflator(0.25)
    conflator.settle(Batch(), 1.0, delivered=False)
    assert conflator.next_at() is None


@pytest.mark.parametrize("window_s", [0.0, 0.2, 1.0])
def test_ready_symbols_go_out_in_the_order_they_became_ready(window_s: float) -> None:
    """A symbol that changes all the time waits behind one that was ready before."""
    conflator = Conflator(window_s)
    a, b, c = slot("A"), slot("B"), slot("C")
    for offered in (a, b, a, c, a):
        conflator.offer(offered, 0.0)
    taken = conflator.take(0.0, 1)
    assert taken == [a]
    conflator.settle(taken, 0.0, delivered=True)
    conflator.offer(a, 9.0)
    assert conflator.take(10.0, 2) == [b, c]
    assert conflator.take(10.0, 2) == [a]


def test_what_was_answered_together_is_due_together() -> None:
    """The number of slots in the next window tells a publisher whether to wait for more."""
    conflator, a, b, c = Conflator(0.25), slot("A"), slot("B"), slot("C")
    assert conflator.next_together() == 0
    for offered in (a, b, c):
        conflator.offer(offered, 0.0)
    conflator.settle(conflator.take(0.0, 2), 1.0, delivered=True)
    conflator.settle(conflator.take(1.0, 2), 1.125, delivered=True)
    conflator.offer(a, 1.125)
    conflator.offer(c, 1.125)
    assert conflator.next_together() == 2
    assert conflator.take(1.25, 10) == [a]
    assert conflator.next_together() == 1
    assert conflator.next_at() == 1.375


def test_an_update_is_due_from_its_offer_or_from_the_end_of_its_window() -> None:
    """Neither a later offer nor a late ``take`` changes since when an update is due."""
    conflator, a = Conflator(0.25), slot("A")
    conflator.offer(a, 7.0)
    conflator.offer(a, 8.0)
    assert a.due_at == 7.0
    conflator.settle(conflator.take(8.5, 10), 9.0, delivered=True)
    conflator.offer(a, 9.125)
    assert conflator.take(10.0, 10) == [a]
    assert a.due_at == 9.25


def test_without_a_throttle_everything_goes_out() -> None:
    """A window of 0 s turns it off: the next ``take`` emits every offer."""
    conflator, a = Conflator(0.0), slot("A")
    for _ in range(3):
        conflator.offer(a, 7.0)
        taken = conflator.take(7.0, 10)
        assert taken == [a]
        conflator.settle(taken, 7.0, delivered=True)
    assert conflator.next_at() is None


def test_the_throttle_can_be_given_up_at_the_end() -> None:
    """Before a stop, a price that waits for the end of its window goes out now."""
    conflator, a, b = Conflator(60.0), slot("A"), slot("B")
    conflator.offer(a, 0.0)
    conflator.offer(b, 0.0)
    conflator.settle(conflator.take(0.0, 10), 0.0, delivered=True)
    conflator.offer(b, 0.0)
    conflator.end_all_windows()
    assert conflator.take(0.0, 10) == [b]
    assert conflator.next_at() is None


def test_windows_end_at_their_time_and_not_before() -> None:
    """A caller may end those that are over by hand, too; the others stay open."""
    conflator, a, b = Conflator(0.25), slot("A"), slot("B")
    for at, offered in ((0.0, a), (0.125, b)):
        conflator.offer(offered, at)
        conflator.settle(conflator.take(at, 10), at, delivered=True)
    assert [(batch.end, batch) for batch in conflator.windows] == [(0.25, [a]), (0.375, [b])]
    conflator.end_windows(0.25)
    assert [(batch.end, batch) for batch in conflator.windows] == [(0.375, [b])]
    assert (a.phase, b.phase) == (Phase.QUIET, Phase.HELD)
