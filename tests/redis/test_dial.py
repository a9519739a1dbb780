"""Several addresses are tried, and the first one that answers is used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from spotd.redis.dial import AllFailedError, race


def tries(*bodies: Callable[[], Awaitable[str]]) -> list[Callable[[], Awaitable[str]]]:
    """Return them as they are, with their common type."""
    return list(bodies)


async def hangs() -> str:
    """Never answer."""
    await asyncio.Event().wait()
    return "never"


async def refuses() -> str:
    """Refuse at once."""
    raise ConnectionRefusedError("refused")


async def answers() -> str:
    """Answer at once."""
    return "answer"


async def test_one_that_hangs_or_refuses_does_not_hold_up_the_next() -> None:
    """The result is that of the first that answers."""
    assert await race(tries(hangs, refuses, answers), print) == "answer"


async def test_what_comes_too_late_is_discarded() -> None:
    """A connection that nobody needs is closed, also if it was made in the same moment."""
    discarded: list[str] = []
    both = asyncio.Event()

    async def first() -> str:
        await both.wait()
        return "one"

    async def second() -> str:
        both.set()
        return "two"

    winner = await race(tries(first, second), discarded.append)
    await asyncio.sleep(0)
    assert {winner, *discarded} <= {"one", "two"}
    assert winner not in discarded

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "late"
        return "never"

    assert await race(tries(stubborn, answers), discarded.append) == "answer"
    assert "late" in discarded


async def test_the_errors_of_all_are_kept() -> None:
    """Where none answers, the error holds what each one said, in the order of the addresses."""

    async def is_away() -> str:
        raise OSError("away")

    with pytest.raises(AllFailedError, match="refused") as caught:
        await race(tries(refuses, is_away, hangs), print, try_s=0.05)
    assert [str(each) for each in caught.value.failures] == ["refused", "away", ""]
    assert isinstance(caught.value.failures[2], TimeoutError)


async def test_a_process_that_was_frozen_meanwhile_has_an_error_for_each_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the time is over before an address is tried, there was no answer in time."""
    loop = asyncio.get_running_loop()
    clock, frozen_s = loop.time, 0.0
    monkeypatch.setattr(loop, "time", lambda: clock() + frozen_s)

    async def is_frozen() -> str:
        nonlocal frozen_s
        frozen_s = 3_600.0
        raise ConnectionRefusedError("refused")

    with pytest.raises(AllFailedError) as caught:
        await race(tries(is_frozen, answers), print)
    assert [type(each) for each in caught.value.failures] == [ConnectionRefusedError, TimeoutError]


async def test_a_defect_is_no_address_that_failed() -> None:
    """An error that no network causes is raised as it is."""

    async def is_wrong() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await race(tries(is_wrong, hangs), print)


async def test_a_caller_that_is_cancelled_leaves_no_try_behind() -> None:
    """All tries end with their caller."""
    running = asyncio.create_task(race(tries(hangs, hangs), print))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_caller_that_is_cancelled_while_losers_end_discards_the_winner() -> None:
    """A connection that was won is closed where its caller is cancelled before receiving it."""
    discarded: list[str] = []
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def loses() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ending.set()
            await may_end.wait()
            raise
        return "never"

    racing = asyncio.create_task(race(tries(loses, answers), discarded.append))
    await ending.wait()
    racing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await racing
    may_end.set()
    assert discarded == ["answer"]
