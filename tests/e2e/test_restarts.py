"""Two daemons that are started at once or restarted one after the other, under load."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise

import pytest

from tests.e2e.setup import Setup, quote
from tests.kit.processes import Command
from tests.kit.recorder import Recorder
from tests.kit.waiting import until

SYMBOLS = ("SPY", "QQQ", "AAPL")


class Load:
    """Quotes whose bids rise by 1 each time, so that an old price after a newer one is seen."""

    def __init__(self, setup: Setup) -> None:
        self.bid = 1000
        self._setup = setup

    async def send(self) -> None:
        """Send one quote of each symbol."""
        self.bid += 1
        await self._setup.sim.send([quote(s, self.bid, self.bid + 1) for s in SYMBOLS])

    async def _run(self) -> None:
        while True:
            await self.send()
            await asyncio.sleep(0.005)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Send 200 times a second meanwhile."""
        task = asyncio.create_task(self._run(), name="load")
        try:
            yield
            assert not task.done()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def _one_leads(setup: Setup, *daemons: Command) -> tuple[Command, Command]:
    """Wait until one streams and the other is a ready standby. Return them in this order."""

    async def settled() -> tuple[Command, Command] | None:
        states = [await daemon.state() for daemon in daemons]
        ready = [await daemon.ready() for daemon in daemons]
        if sorted(states) == ["standby", "streaming"] and all(ready):
            first, second = daemons
            return (first, second) if states[0] == "streaming" else (second, first)
        return None

    found: tuple[Command, Command] = await setup.until(settled, "one leader and one standby")
    return found


def _changes_of_leader(recorder: Recorder) -> int:
    """Return how often a new leader told of a gap. A Redis that answers late makes one too."""
    return sum(gap["code"] == "leader_changed" for gap in recorder.events("gap"))


def _one_publisher_in_order(recorder: Recorder) -> None:
    """Check that ``seq`` rises, and that no update has an older price than one before it."""
    recorder.check_order()
    for symbol in SYMBOLS:
        back = [(a, b) for a, b in pairwise(recorder.bids(symbol)) if b < a]
        assert not back, f"{symbol}: older after newer: {back[:5]}"


@pytest.mark.parametrize(
    "number", [0, *(pytest.param(number, marks=pytest.mark.long) for number in range(1, 5))]
)
async def test_two_that_are_started_at_once(setup: Setup, number: int) -> None:
    """One leads and the other stands by; Alpaca sees one session, and nobody meets 406."""
    await setup.values.want(*SYMBOLS)
    daemons = await asyncio.gather(*(setup.start(name) for name in ("first", "second")))
    leader, standby = await _one_leads(setup, *daemons)

    assert await leader.leads()
    assert not await standby.leads()
    assert setup.sim.stats.connections == 1
    assert setup.sim.stats.refused[406] == 0
    assert not any("not leading any more" in daemon.events() for daemon in daemons)


@pytest.mark.parametrize("times", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_a_rolling_restart_under_load(setup: Setup, times: int) -> None:
    """Each of two is replaced: no two sessions, no older price, and the last one arrives.

    A standby is ready before its leader is stopped, as a deployment waits for readiness.
    """
    load, env = Load(setup), {"SPOTD_LEADER_TTL_S": "300", "SPOTD_THROTTLE_MS": "20"}
    daemons = [await setup.daemon("first", **env)]
    await setup.streaming(*SYMBOLS)
    daemons.append(await setup.daemon("second", **env))
    recorder = await setup.recorder()
    terms = 0
    async with load.running():
        for number in range(2 * times):
            leader, standby = await _one_leads(setup, *daemons)
            assert await leader.stop() == 0
            terms += 1
            daemons = [standby, await setup.daemon(f"replacement-{number}", **env)]
            # A gap is announced behind the first prices.
            await setup.until(lambda n=number: _changes_of_leader(recorder) > n, "the gap")  # type: ignore[misc]
            heard = len(recorder.of("SPY"))
            await setup.until(partial(recorder.has_more, "SPY", heard + 3), "prices go on")
    await load.send()
    last = load.bid
    for symbol in SYMBOLS:
        await setup.until(lambda s=symbol: recorder.bids(s)[-1:] == [last], "the last price")  # type: ignore[misc]
        assert await setup.values.bid(symbol) == last

    _one_publisher_in_order(recorder)
    assert setup.sim.stats.connections == terms + 1
    assert setup.sim.stats.refused[406] == 0
    assert setup.closes() == [1000] * terms
    assert _changes_of_leader(recorder) == terms
    for daemon in setup.commands:
        assert "Traceback" not in daemon.output


@pytest.mark.parametrize("times", [1, pytest.param(3, marks=pytest.mark.long)])
@pytest.mark.long  # quick: test_two_daemons.py, one killed leader
async def test_leaders_that_are_killed_one_after_the_other(setup: Setup, times: int) -> None:
    """SIGKILL under load: no older price after a newer one, and the last one arrives."""
    setup.sim.limits.connections = 2  # a session of the dead may still be there
    load, env = Load(setup), {"SPOTD_LEADER_TTL_S": "3", "SPOTD_THROTTLE_MS": "20"}
    daemons = [await setup.daemon("first", **env)]
    await setup.streaming(*SYMBOLS)
    daemons.append(await setup.daemon("second", **env))
    recorder = await setup.recorder()
    async with load.running():
        for number in range(times):
            leader, standby = await _one_leads(setup, *daemons)
            await leader.kill()
            daemons = [standby, await setup.daemon(f"replacement-{number}", **env)]
            await setup.until(lambda n=number: _changes_of_leader(recorder) > n, "the gap")  # type: ignore[misc]
            heard = len(recorder.of("SPY"))
            await setup.until(partial(recorder.has_more, "SPY", heard + 3), "prices go on")
    await _one_leads(setup, *daemons)
    await load.send()
    last = load.bid
    for symbol in SYMBOLS:
        await until(lambda s=symbol: recorder.bids(s)[-1:] == [last], "the last price")  # type: ignore[misc]
    _one_publisher_in_order(recorder)
    assert _changes_of_leader(recorder) == times
