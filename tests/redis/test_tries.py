"""When addresses are tried, and when a wrong server is left, by a manual clock."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.redis.tries import DROP_AGAIN_AFTER_S, Drops, Tries


def begins(
    count: int, *, fails: Mapping[int, float] | None = None, try_s: float = 3.0
) -> list[tuple[float, int]]:
    """Return when which try begins. ``fails`` says when a try of an address fails, if it does."""
    clock, failing = 0.0, fails or {}
    tries = Tries(count, clock, try_s=try_s)
    begun: list[tuple[float, int]] = []
    under_way: set[int] = set()
    while clock < 10.0:
        while (number := tries.begin(clock, idle=not under_way)) is not None:
            begun.append((clock, number))
            under_way.add(number)
            for failed in [n for n in under_way if clock >= failing.get(n, clock + 1)]:
                tries.failed(failed)
                under_way.remove(failed)
        clock = round(clock + 0.05, 2)
    return begun


@pytest.mark.parametrize(
    ("count", "fails", "expected"),
    [
        # One address: a packet that was lost is sent again by a new try.
        (1, {}, [(0.0, 0), (0.5, 0), (1.0, 0), (1.5, 0), (2.0, 0), (2.5, 0)]),
        # The next address does not wait for the one before, and does not end it.
        (3, {}, [(0.0, 0), (0.25, 1), (0.5, 2), (1.0, 0), (1.5, 1)]),
        # An address that refuses is followed at once, and is not tried again.
        (3, {0: 0.0}, [(0.0, 0), (0.0, 1), (0.25, 2), (0.75, 1), (1.25, 2)]),
        (2, {0: 0.0, 1: 0.0}, [(0.0, 0), (0.0, 1)]),
        (2, {1: 0.25}, [(0.0, 0), (0.25, 1), (0.75, 0), (1.25, 0)]),
    ],
)
def test_when_each_address_is_tried(
    count: int, fails: dict[int, float], expected: list[tuple[float, int]]
) -> None:
    """The next one begins 0.25 s after the one before; those that hang begin again every 0.5 s."""
    assert begins(count, fails=fails)[: len(expected)] == expected
    if len(fails) == count:
        assert begins(count, fails=fails) == expected


@given(count=st.integers(1, 6), try_s=st.floats(0.2, 6.0))
def test_all_tries_end_with_the_last_one_of_the_first_round(count: int, try_s: float) -> None:
    """Each address has its whole time once, and nothing goes on after that."""
    tries = Tries(count, 100.0, try_s=try_s)
    assert tries.ends_at == pytest.approx(100.0 + 0.25 * (count - 1) + try_s)
    assert tries.left_s(100.0) == pytest.approx(try_s)
    assert tries.left_s(tries.ends_at) == 0.0
    assert tries.begin(tries.ends_at, idle=True) is None
    assert tries.wait_s(tries.ends_at) == 0.0
    assert all(at < tries.ends_at - 100.0 for at, _ in begins(count, try_s=try_s))


def test_a_wrong_server_is_left_at_once_and_then_after_pauses() -> None:
    """An address that goes on to lead to a server that takes no writes costs no storm."""
    drops = Drops()
    assert drops.is_due(5.0)
    assert not drops.is_due(5.0)
    assert not drops.is_due(5.0 + DROP_AGAIN_AFTER_S - 0.01)
    assert drops.is_due(5.0 + DROP_AGAIN_AFTER_S)
    assert not drops.is_due(5.0 + DROP_AGAIN_AFTER_S)
