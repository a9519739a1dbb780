"""The signals that ask a process to stop."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import pytest

from spotd.ops.stop_signals import stop_on_signals
from tests.kit.waiting import until

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the handlers back."""
    before = {number: signal.getsignal(number) for number in STOPS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", STOPS)
async def test_each_stops(number: signal.Signals) -> None:
    """Each signal calls the function, once each time."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    stops: list[int] = []
    stop_on_signals(asyncio.get_running_loop(), lambda: stops.append(1))
    signal.raise_signal(number)
    await until(lambda: len(stops) == 1, "the stop")
    signal.raise_signal(number)
    await until(lambda: len(stops) == 2, "the second one")


async def test_under_nohup() -> None:
    """A SIGHUP that is ignored does not stop the process."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stops: list[int] = []
    stop_on_signals(asyncio.get_running_loop(), lambda: stops.append(1))
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
