"""How many symbols may be asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.symbol_limit import SymbolLimit

BATCH = 500


def searching(*, active: int, asked: int, max_symbols: int | None = None) -> SymbolLimit:
    """Return a limit after one 405."""
    limit = SymbolLimit(max_symbols)
    limit.exceeded(active, asked)
    return limit


def test_without_a_limit_requests_are_full() -> None:
    """Nothing is known, so everything may fit."""
    limit = SymbolLimit()
    assert limit.limit is None
    assert limit.learned is None
    assert limit.room(10_000) is None
    assert limit.request_size(10_000, BATCH) == BATCH


@pytest.mark.parametrize(
    ("active", "room", "size"), [(0, 600, 500), (200, 400, 400), (600, 0, 0), (601, 0, 0)]
)
def test_the_setting_is_a_limit(active: int, room: int, size: int) -> None:
    """It is no limit of the plan, so it is not learned."""
    limit = SymbolLimit(600)
    assert limit.limit == 600
    assert limit.learned is None
    assert limit.room(active) == room
    assert limit.request_size(active, BATCH) == size


@pytest.mark.parametrize(("max_symbols", "limit"), [(None, 39), (100, 39), (39, 39), (20, 20)])
def test_the_smaller_limit_counts(max_symbols: int | None, limit: int) -> None:
    """One symbol less than the ceiling is the most that may fit."""
    assert searching(active=10, asked=30, max_symbols=max_symbols).limit == limit


@pytest.mark.parametrize(
    ("active", "asked", "size", "learned"),
    [
        (0, 500, 250, None),
        (10, 30, 15, None),
        (10, 3, 1, None),
        (10, 2, 1, None),
        (10, 1, 0, 10),
        (0, 1, 0, 0),
    ],
)
def test_the_search_halves(active: int, asked: int, size: int, learned: int | None) -> None:
    """It ends when one symbol more than the active ones is known to be too many."""
    limit = searching(active=active, asked=asked)
    assert limit.request_size(active, BATCH) == size
    assert limit.learned == learned


def test_an_acknowledgement_may_end_the_search() -> None:
    """All symbols below the ceiling are active then."""
    limit = searching(active=10, asked=3)
    learned = []
    for active in (11, 12, 5):
        limit.acknowledged(active)
        learned.append(limit.learned)
    assert learned == [None, 12, 12]
    assert limit.request_size(5, BATCH) == 7


def test_a_smaller_plan_begins_a_new_search() -> None:
    """The old limit is not known to fit any more."""
    limit = searching(active=8, asked=1)
    limit.exceeded(0, 8)
    assert limit.learned is None
    assert limit.request_size(0, BATCH) == 4


def test_the_limit_is_probed_once_per_connection() -> None:
    """One symbol more is asked for when all room is taken, until Alpaca refuses it."""
    limit = searching(active=8, asked=1)
    assert limit.request_size(8, BATCH) == 0
    limit.connected()
    assert limit.request_size(6, BATCH) == 2
    assert limit.request_size(8, BATCH) == 1
    limit.exceeded(8, 1)
    assert limit.request_size(8, BATCH) == 0
    assert limit.learned == 8


@pytest.mark.parametrize(("max_symbols", "size"), [(None, 1), (9, 1), (8, 0), (7, 0)])
def test_the_probe_keeps_to_the_setting(max_symbols: int | None, size: int) -> None:
    """More than SPOTD_MAX_SYMBOLS is never asked for."""
    limit = searching(active=8, asked=1, max_symbols=max_symbols)
    limit.connected()
    assert limit.request_size(8, BATCH) == size


def test_without_a_learned_limit_there_is_no_probe() -> None:
    """The setting says what is wanted, so a new connection does not change it."""
    limit = SymbolLimit(8)
    limit.connected()
    assert limit.request_size(8, BATCH) == 0


def test_a_larger_plan_is_noticed() -> None:
    """When the ceiling is acknowledged, nothing is known to be too many."""
    limit = searching(active=8, asked=1)
    limit.acknowledged(9)
    assert limit.limit is None
    assert limit.learned is None
    assert limit.request_size(9, BATCH) == BATCH


def test_the_reason_names_the_limit() -> None:
    """It is the limit that counts: the setting by its name, or the plan."""
    setting = "symbol_limit", "SPOTD_MAX_SYMBOLS=30 is the limit"
    plan = "symbol_limit", "the limit of the Alpaca plan is 8"
    assert SymbolLimit(30).refusal == setting
    assert searching(active=40, asked=1, max_symbols=30).refusal == setting
    assert searching(active=8, asked=1).refusal == plan
    assert searching(active=8, asked=1, max_symbols=30).refusal == plan


def test_a_405_becomes_a_sentence_for_the_log() -> None:
    """The sentence says how many symbols were too many."""
    assert SymbolLimit().exceeded(8, 3) == "symbol limit exceeded with 11 symbols"


@given(
    caps=st.lists(st.integers(0, 3_000), min_size=1, max_size=4),
    max_symbols=st.none() | st.integers(1, 3_000),
    batch=st.sampled_from((1, 7, 500)),
    desired=st.integers(0, 3_000),
)
def test_the_search_finds_every_limit(
    caps: list[int], max_symbols: int | None, batch: int, desired: int
) -> None:
    """On each connection all room is used, and a 405 comes at most once for each halving."""
    limit = SymbolLimit(max_symbols)
    for cap in caps:
        limit.connected()
        active = refused = 0
        while size := min(limit.request_size(active, batch), desired - active):
            assert max_symbols is None or active + size <= max_symbols
            if active + size > cap:
                limit.exceeded(active, size)
                refused += 1
            else:
                active += size
                limit.acknowledged(active)
        assert active == min(desired, cap, desired if max_symbols is None else max_symbols)
        assert refused <= batch.bit_length() + 1
