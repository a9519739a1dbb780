"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from spotd.ops.stop_signals import SAME_WISH_S, stop_on_signals
from tests.kit.waiting import until

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers back."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Process:
    """What is asked to stop, and the clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.heard = 0
        self.stops = 0
        stop_on_signals(asyncio.get_running_loop(), self.stop, clock=self.clock)

    def clock(self) -> float:
        """Return the time. It is asked for at each signal."""
        self.heard += 1
        return self.now

    def stop(self) -> None:
        """Count a stop."""
        self.stops += 1

    async def hears(self, number: signal.Signals) -> int:
        """Send a signal. Return how often the process was asked to stop, once it has heard it."""
        heard = self.heard
        signal.raise_signal(number)
        await until(lambda: self.heard > heard, "the signal")
        return self.stops


@pytest.mark.parametrize("number", STOPS)
async def test_each_stops(number: signal.Signals) -> None:
    """Each signal asks the process to stop, and one that comes later asks again."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = Process()
    assert await process.hears(number) == 1
    process.now += SAME_WISH_S
    assert await process.hears(number) == 2


async def test_a_signal_that_comes_twice_at_once_is_one_wish() -> None:
    """``timeout`` signals the process and its group, and a second wish would force it to end."""
    process = Process()
    assert await process.hears(signal.SIGTERM) == 1
    process.now += SAME_WISH_S / 2
    assert await process.hears(signal.SIGTERM) == 1
    assert await process.hears(signal.SIGINT) == 1
    process.now += SAME_WISH_S / 2
    assert await process.hears(signal.SIGINT) == 2


async def test_under_nohup() -> None:
    """A SIGHUP that is ignored does not stop the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stops: list[int] = []
    stop_on_signals(asyncio.get_running_loop(), lambda: stops.append(1))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
