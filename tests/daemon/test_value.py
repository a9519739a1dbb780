"""Values and those who depend on them: the traps, one test for each."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from spotd.core.leadership import Leadership
from spotd.daemon.value import BEAT_S, Value, WakeUp, beat_before


def test_waits_of_about_the_same_length_end_at_the_same_beat() -> None:
    """A wait ends at a beat, never late and never at once; one that no beat ends is as asked."""
    now = time.monotonic()
    beat = beat_before(now + 300 * BEAT_S)  # still to come when it is asked for again
    assert now + 299 * BEAT_S < beat <= now + 300 * BEAT_S
    assert beat % BEAT_S == 0
    assert beat_before(beat) == beat_before(beat + 0.99 * BEAT_S) == beat
    assert beat_before(now) == now
    assert beat_before(float("inf")) == float("inf")


@given(after_s=st.floats(-2.0, 400.0))
def test_a_beat_ends_a_wait_early_by_less_than_a_beat(after_s: float) -> None:
    """No time that the contract promises is exceeded, and no loop wakes again at once."""
    now = time.monotonic()
    at = now + after_s
    chosen = beat_before(at)
    assert at - BEAT_S < chosen <= at
    assert chosen == at or chosen > now


@dataclass(frozen=True)
class Right:
    """A value with a time."""

    term: int
    until: float = field(default=0.0, compare=False)


async def test_a_change_wakes_and_an_equal_value_does_not() -> None:
    """Times are left out of the comparison, and are put in place all the same."""
    value, woken = Value(Right(1)), WakeUp()
    value.wakes(woken)
    assert not value.set(Right(1, until=5.0))
    assert not woken.is_set
    assert value.get().until == 5.0
    assert value.set(Right(2))
    assert woken.is_set


async def test_every_dependant_is_woken_once() -> None:
    """One that is woken takes nothing from the others."""
    value, woken = Value(0), [WakeUp(), WakeUp()]
    value.wakes(*woken)
    value.set(1)
    assert [await one.wait(0.0) for one in woken] == [True, True]
    assert [await one.wait(0.0) for one in woken] == [False, False]


async def test_a_change_before_the_wait_is_not_lost() -> None:
    """A loop that was at work while the value changed goes on at once."""
    value, woken = Value(0), WakeUp()
    value.wakes(woken)
    value.set(1)
    assert await woken.wait()


async def test_a_change_between_waking_and_reading_is_read_or_wakes_again() -> None:
    """The wake-up is cleared before the value is read."""
    value, woken = Value(0), WakeUp()
    value.wakes(woken)
    seen = []

    async def loop() -> None:
        while value.get() < 3:
            await woken.wait()
            seen.append(value.get())

    running = asyncio.create_task(loop())
    for number in (1, 2, 3):
        value.set(number)
        await asyncio.sleep(0)
    await running
    assert seen[-1] == 3


async def test_there_and_back_is_told_by_what_rises() -> None:
    """Leading, lost and leading again may pass between two rounds: the term tells."""
    value, woken = Value(Leadership(term=1, leads=True, token="a")), WakeUp()
    value.wakes(woken)
    before = value.get()
    value.set(Leadership(term=1, token="b"))
    value.set(Leadership(term=2, leads=True, token="b"))
    assert await woken.wait()
    assert value.get().leads is before.leads
    assert value.get() != before


async def test_a_loop_that_is_woken_in_every_round_holds_up_nobody() -> None:
    """A wait that is over at once lets other tasks run."""
    woken, rounds, others = WakeUp(), 0, 0

    async def other() -> None:
        nonlocal others
        while True:
            others += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    for _ in range(100):
        woken.set()
        assert await woken.wait()
        rounds += 1
    task.cancel()
    assert others >= rounds - 1


async def test_a_wait_ends_at_its_time() -> None:
    """Without a change it returns False, and a time that has passed ends it in one round."""
    woken = WakeUp()
    assert not await woken.wait(time.monotonic() - 1.0)
    assert not await woken.wait(time.monotonic() + 0.001)


async def test_a_cancellation_while_waiting_is_not_swallowed() -> None:
    """A loop that was told to end ends, also where it is woken in the same moment."""
    woken = WakeUp()

    async def loop() -> None:
        while True:
            await woken.wait(time.monotonic() + 60.0)

    for set_too in (False, True):
        task = asyncio.create_task(loop())
        await asyncio.sleep(0)
        if set_too:
            woken.set()
        task.cancel()
        [ended] = await asyncio.gather(task, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)


async def test_after_a_freeze_the_clock_decides() -> None:
    """A sender may run before the timer that ends its right: the value itself tells."""
    now = time.monotonic()
    value = Value(Leadership(term=1, leads=True, publish_until=now + 0.01))
    time.sleep(0.02)  # noqa: ASYNC251 - the process was frozen
    assert value.get().leads
    assert not value.get().may_publish(time.monotonic())
