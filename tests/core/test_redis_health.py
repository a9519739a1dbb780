"""When Redis counts as away and as back: tables of outcomes, under a manual clock."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.redis_health import RedisHealth, RedisMonitor

CALM_S = 1.0
# When, what (``fail WHY``, ``answer SENT_AT`` or ``check``), and the health that follows: ``away``,
# or "-" for calm, and ``returns``.
Step = tuple[float, str, str]


def play(monitor: RedisMonitor, now: float, what: str) -> RedisHealth:
    """Tell the monitor of one step."""
    verb, _, argument = what.partition(" ")
    if verb == "fail":
        return monitor.failed(now, argument)
    if verb == "answer":
        return monitor.answered(float(argument), now)
    return monitor.checked(now)


TABLE: dict[str, list[Step]] = {
    "answers and time alone change nothing": [
        (1.0, "answer 0.9", "- 0"),
        (9.0, "check", "- 0"),
    ],
    "one failed call: away, back at the next answer, calm a second later": [
        (1.0, "fail a", "a 0"),
        (1.3, "answer 1.2", "a 1"),
        (2.2, "check", "a 1"),
        (2.3, "check", "- 1"),
    ],
    "time without an answer proves nothing": [
        (1.0, "fail a", "a 0"),
        (900.0, "check", "a 0"),
    ],
    "an answer to a call sent before the failure is no return": [
        (1.0, "fail a", "a 0"),
        (1.1, "answer 0.9", "a 0"),
        (1.2, "answer 1.0", "a 0"),
        (9.0, "check", "a 0"),
        (9.2, "answer 9.1", "a 1"),
    ],
    "the latest failure counts, not the first": [
        (1.0, "fail a", "a 0"),
        (1.5, "fail a", "a 0"),
        (1.6, "answer 1.4", "a 0"),
        (1.7, "answer 1.6", "a 1"),
    ],
    "later answers do not put off the end": [
        (1.0, "fail a", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (1.9, "answer 1.8", "a 1"),
        (2.2, "check", "- 1"),
    ],
    "an answer ends the episode when it is due": [
        (1.0, "fail a", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (2.5, "answer 2.4", "- 1"),
    ],
    "a failure after the return belongs to the episode, whose end is a second return": [
        (1.0, "fail a", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (1.5, "fail a", "a 1"),
        (2.2, "check", "a 1"),
        (2.4, "answer 2.3", "a 1"),
        (3.3, "check", "a 1"),
        (3.4, "check", "- 2"),
    ],
    "a failure that is noticed before the end continues the episode": [
        (1.0, "fail a", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (9.0, "fail a", "a 1"),
        (9.2, "answer 9.1", "a 1"),
        (10.2, "check", "- 2"),
    ],
    "one command is refused for good while the leader key is renewed: one return, no end": [
        (1.0, "fail a", "a 0"),
        *[
            step
            for second in range(2, 50)
            for step in (
                (second + 0.2, f"answer {second + 0.1}", "a 1"),
                (second + 0.5, "fail a", "a 1"),
                (second + 0.6, "check", "a 1"),
            )
        ],
    ],
    "the next outage is an episode of its own": [
        (1.0, "fail a", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (1.3, "fail a", "a 1"),
        (1.5, "answer 1.4", "a 1"),
        (2.5, "check", "- 2"),
        (3.0, "fail b", "b 2"),
        (3.2, "answer 3.1", "b 3"),
        (4.2, "check", "- 3"),
    ],
    "another reason replaces one that was not seen for a while": [
        (1.0, "fail a", "a 0"),
        (1.5, "fail b", "a 0"),
        (1.9, "fail b", "a 0"),
        (2.0, "fail b", "b 0"),
    ],
    "two commands that are refused for two reasons do not alternate": [
        (1.0, "fail a", "a 0"),
        (1.5, "fail b", "a 0"),
        (1.6, "fail a", "a 0"),
        (2.5, "fail b", "a 0"),
        (2.6, "fail b", "b 0"),
    ],
    "the reason of an episode that ended does not outlive it": [
        (1.0, "fail a", "a 0"),
        (1.0, "fail b", "a 0"),
        (1.2, "answer 1.1", "a 1"),
        (2.2, "check", "- 1"),
        (2.3, "fail b", "b 1"),
    ],
}


def test_an_outage_is_from_the_last_answer_to_the_first_behind_its_failures() -> None:
    """It is counted when it is over. Its times make no value unequal."""
    monitor = RedisMonitor(CALM_S)
    monitor.answered(4.9, 5.0)
    monitor.failed(6.0, "a")
    monitor.answered(6.1, 6.2)
    monitor.failed(6.5, "a")
    monitor.answered(6.4, 6.6)
    assert monitor.health.outages == 0
    monitor.answered(6.7, 6.8)
    health = monitor.checked(7.8)
    assert (health.outages, health.gone_at, health.back_at) == (1, 5.0, 6.8)
    assert health == RedisHealth(returns=2)


@pytest.mark.parametrize("steps", TABLE.values(), ids=TABLE.keys())
def test_the_table(steps: list[Step]) -> None:
    """Each step is followed by the health beside it, and an unchanged health is the same object."""
    monitor = RedisMonitor(CALM_S)
    before = monitor.health
    for now, what, expected in steps:
        health = play(monitor, now, what)
        assert f"{health.away or '-'} {health.returns}" == expected, (now, what)
        assert health is monitor.health
        assert (health is before) == (health == before), (now, what)
        before = health


def test_nothing_is_calm_before_the_call_that_failed_is_repeated() -> None:
    """A Redis that answers reads and refuses writes is not back between two writes."""
    monitor = RedisMonitor(CALM_S)
    monitor.failed(1.0, "a")
    monitor.wait(9.0)
    assert monitor.check_at is None  # only an answer begins the calm
    monitor.answered(1.1, 1.2)
    monitor.wait(3.2)
    monitor.wait(0.0)
    assert monitor.checked(3.1).away == "a"
    monitor.failed(3.1, "a")
    monitor.answered(3.2, 3.3)
    assert monitor.check_at == pytest.approx(3.3 + CALM_S)


@pytest.mark.parametrize("away", [False, True])
def test_data_that_was_lost_is_a_return(away: bool) -> None:
    """Everything has to be written anew, whether a call failed or not."""
    monitor = RedisMonitor(CALM_S)
    if away:
        monitor.failed(1.0, "a")
    assert monitor.lost_data() == RedisHealth("a" if away else None, returns=1)
    assert monitor.health.returns == 1


def test_it_says_when_time_may_change_something() -> None:
    """``check_at`` is the end of the calm that an answer began, and None when nothing is due."""
    monitor = RedisMonitor(CALM_S)
    assert monitor.check_at is None
    monitor.failed(1.0, "a")
    assert monitor.check_at is None
    monitor.answered(1.1, 1.2)
    assert monitor.check_at == pytest.approx(2.2)
    monitor.failed(1.3, "a")
    assert monitor.check_at is None
    monitor.answered(1.4, 1.5)
    assert monitor.check_at == pytest.approx(2.5)
    monitor.checked(2.5)
    assert monitor.check_at is None


def test_without_a_calm_the_first_answer_ends_the_episode() -> None:
    """A calm of no length is over as soon as it begins."""
    monitor = RedisMonitor(0.0)
    monitor.failed(1.0, "a")
    assert monitor.answered(1.1, 1.2) == RedisHealth(away=None, returns=1)


OUTCOMES = st.lists(
    st.tuples(
        st.sampled_from(("fail a", "fail b", "answer", "check")),
        st.floats(0.0, 1.5),  # until then
        st.floats(0.0, 3.0),  # a call's time under way
    ),
    max_size=80,
)


@given(OUTCOMES)
def test_whatever_happens_nothing_is_lost_and_nothing_storms(
    outcomes: list[tuple[str, float, float]],
) -> None:
    """In each episode ``returns`` rises once or twice, and once after the last failed call."""
    monitor = RedisMonitor(CALM_S)
    now, failed_at = 0.0, float("-inf")
    began_with = returns_at_failure = 0
    for what, later_s, way_s in outcomes:
        now += later_s
        before = monitor.health
        health = play(monitor, now, f"answer {now - way_s!r}" if what == "answer" else what)
        assert (health is before) == (health == before)
        assert health.returns - before.returns in (0, 1)
        if what.startswith("fail"):
            assert health.away is not None
            assert health.returns == before.returns
            if before.away is None:
                began_with = health.returns
            failed_at, returns_at_failure = now, health.returns
        elif health != before:
            assert before.away is not None  # calm ends by a failure alone
        assert health.returns - began_with <= 2
        if before.away is not None and health.away is None:
            assert now - failed_at >= CALM_S
            assert health.returns > returns_at_failure
        if health.away is None:
            assert monitor.check_at is None


@given(OUTCOMES)
def test_one_answer_and_a_calm_always_end_it(outcomes: list[tuple[str, float, float]]) -> None:
    """No history keeps Redis away once it answers and no call fails."""
    monitor = RedisMonitor(CALM_S)
    now = 0.0
    for what, later_s, way_s in outcomes:
        now += later_s
        play(monitor, now, f"answer {now - way_s!r}" if what == "answer" else what)
    monitor.answered(now + 1.0, now + 2.0)
    assert monitor.checked(now + 2.0 + CALM_S).away is None
