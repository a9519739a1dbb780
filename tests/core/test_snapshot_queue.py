"""Which symbols a first price is fetched for next, as a dialogue."""

from __future__ import annotations

from spotd.core.snapshot_queue import SnapshotQueue


def test_symbols_are_taken_by_name_and_each_once() -> None:
    """However often a symbol was wanted, it is taken once."""
    queue = SnapshotQueue()
    queue.want(["C", "A"])
    queue.want(["A", "B"])
    assert queue.take(2) == ["A", "B"]
    assert queue
    assert queue.take(2) == ["C"]
    assert not queue
    assert queue.take(2) == []


def test_what_was_wanted_last_is_taken_first() -> None:
    """One new symbol does not wait behind a market, and neither does one that waits already."""
    queue = SnapshotQueue()
    queue.want([f"M{n}" for n in range(9)])
    queue.want(["Z", "M7"])
    assert queue.take(3) == ["M7", "Z", "M0"]
    queue.want(["NEW"])
    assert queue.take(2) == ["NEW", "M1"]
