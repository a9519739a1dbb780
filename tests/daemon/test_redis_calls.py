"""Redis' health as one value: what wakes its dependants, what is counted, what is logged."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import structlog

from spotd.core.redis_health import RedisHealth
from spotd.daemon.redis_calls import RedisCalls
from spotd.daemon.value import Value, WakeUp
from spotd.ops.metrics import Metrics
from spotd.redis.port import Outcome

LONG_S = 60.0  # of calm


class Outcomes:
    """The outcomes of calls by a manual clock, and what is made of them."""

    def __init__(self) -> None:
        self.health = Value(RedisHealth())
        self.woken = WakeUp()
        self.health.wakes(self.woken)
        self.metrics = Metrics()
        self.calls = RedisCalls(self.health, self.metrics)
        self.now = 100.0

    def fail(self, why: str = "refused") -> None:
        """Report a call that failed, a tenth of a second after the one before."""
        self.now += 0.1
        self.calls.outcome(Outcome(self.now - 0.05, self.now, why))

    def answer(self) -> None:
        """Report a call that was answered, a tenth of a second after the one before."""
        self.now += 0.1
        self.calls.outcome(Outcome(self.now - 0.05, self.now, None))

    def calm(self) -> None:
        """Let time pass without a failure."""
        self.now += LONG_S
        self.calls.checked(self.now)

    async def wakes(self, report: Callable[[], None]) -> bool:
        """Return whether a report wakes whoever depends on the value."""
        report()
        return await self.woken.wait(0.0)


@pytest.fixture
def outcomes() -> Outcomes:
    """Return outcomes of which none was reported yet."""
    return Outcomes()


async def test_an_outage_changes_the_value_at_its_begin_its_return_and_its_end(
    outcomes: Outcomes,
) -> None:
    """Nothing in between wakes anybody, however often calls fail and are answered."""
    assert not await outcomes.wakes(outcomes.answer)
    assert await outcomes.wakes(outcomes.fail)
    assert outcomes.health.get() == RedisHealth(away="refused")
    assert not await outcomes.wakes(outcomes.fail)
    assert await outcomes.wakes(outcomes.answer)
    assert outcomes.health.get() == RedisHealth(away="refused", returns=1)
    assert not await outcomes.wakes(outcomes.answer)
    assert await outcomes.wakes(outcomes.calm)
    assert outcomes.health.get() == RedisHealth(returns=1)
    assert not await outcomes.wakes(outcomes.calm)


def test_an_outage_is_logged_once_and_so_is_its_end(outcomes: Outcomes) -> None:
    """The outage goes on while Redis answers one command and refuses another."""
    with structlog.testing.capture_logs() as lines:
        for _ in range(5):
            outcomes.fail()
            outcomes.answer()
        outcomes.calm()
        outcomes.calm()
        outcomes.fail("gone")
    assert [(line["event"], line.get("why")) for line in lines] == [
        ("redis is away", "refused"),
        ("redis is back", None),
        ("redis is away", "gone"),
    ]


def test_a_refusal_is_not_logged_as_an_outage(outcomes: Outcomes) -> None:
    """Redis answers, and refuses: waiting does not help."""
    with structlog.testing.capture_logs() as lines:
        outcomes.calls.outcome(Outcome(1.0, 1.1, "a wrong password", refused=True))
        outcomes.answer()
        outcomes.calm()
    assert [(line["event"], line.get("why")) for line in lines] == [
        ("redis refuses", "a wrong password"),
        ("redis is back", None),
    ]


def test_failures_are_counted_and_answers_are_not(outcomes: Outcomes) -> None:
    """Operators see how many calls failed, also while it is already known that Redis is away."""
    for report in (outcomes.fail, outcomes.answer, outcomes.fail, outcomes.fail, outcomes.calm):
        report()
    assert outcomes.metrics.redis_errors == 3
