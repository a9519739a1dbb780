"""Which symbols are halted, over sessions and reigns."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from spotd.core.halts import Halts
from spotd.core.messages import TradingStatus

T0 = datetime(2026, 1, 20, 14, 30, tzinfo=UTC)
Step = Callable[[Halts], object]


def at(second: float) -> datetime:
    """Return an exchange time."""
    return T0 + timedelta(seconds=second)


def told(code: str, second: float | None = 0, tape: str = "C") -> Step:
    """Have Alpaca tell a status of SPY."""
    moment = None if second is None else at(second)
    return lambda halts: halts.status(TradingStatus("SPY", code, tape, moment))


def sold(second: float, symbol: str = "SPY") -> Step:
    """Have a trade set the last sale."""
    return lambda halts: halts.sold(symbol, at(second))


def published(second: float = 0) -> Step:
    """Find in Redis that a predecessor said that SPY is halted."""
    return lambda halts: halts.take_over({"SPY": at(second)})


def nothing_published(halts: Halts) -> None:
    """Find no halt in Redis."""
    halts.take_over({})


def forget(halts: Halts) -> None:
    """Begin a reign."""
    halts.forget()


TABLE: dict[str, tuple[list[Step], bool]] = {
    "halted": ([told("H")], True),
    "paused": ([told("P")], True),
    "resumed": ([told("H"), told("T", 1)], False),
    "quoted again": ([told("H"), told("Q", 1)], True),
    "halted on tape B": ([told("2", tape="B")], True),
    "resumed on tape B": ([told("2", tape="B"), told("3", tape="B")], False),
    "halted twice": ([told("P"), told("H", 1), told("T", 2)], False),
    "resumed, never halted": ([told("T")], False),
    "sold after it": ([told("H", 5), sold(6)], False),
    "sold at its time": ([told("H", 5), sold(5)], True),
    "sold before it": ([told("H", 5), sold(4)], True),
    "sold after the first of two": ([told("P", 5), told("H", 7), sold(6)], True),
    "another one sold": ([told("H"), sold(6, "QQQ")], True),
    "sold after one without a time": ([told("H", None), sold(-9)], False),
    "taken over": ([published()], True),
    "taken over, then sold": ([published(5), sold(6)], False),
    "taken over, sold before": ([published(5), sold(4)], True),
    "taken over, then resumed": ([published(), told("T", 1)], False),
    "taken over, told before": ([told("H", 9), published(5), sold(7)], True),
    "no news within a reign": ([nothing_published, published()], False),
    "resumed, then no news": ([published(), told("T"), published()], False),
    "forgotten": ([told("H"), forget], False),
    "taken over in the next reign": ([nothing_published, forget, published()], True),
}


@pytest.mark.parametrize(("steps", "halted"), TABLE.values(), ids=TABLE)
def test_whether_a_symbol_is_halted(steps: list[Step], halted: bool) -> None:
    """A halt stands until a resumption, or until a later trade sets the last sale."""
    halts = Halts()
    for step in steps:
        step(halts)
    assert halts.symbols() == ({"SPY"} if halted else set())


def test_the_set_remains_the_same_object_until_it_changes() -> None:
    """Whoever keeps it may compare by identity; what changed back is no change."""
    halts = Halts()
    assert [halts.changed, told("H")(halts), halts.changed] == [False, None, True]
    before = halts.symbols()
    assert [halts.changed] == [False]
    told("H", 1)(halts)
    assert halts.symbols() is before
    told("T", 2)(halts)
    told("H", 3)(halts)
    assert halts.symbols() is before
    told("T", 4)(halts)
    assert halts.symbols() is not before
    assert before == {"SPY"}
