"""Being told of SIGTERM and SIGINT beside whoever handles them."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from types import FrameType

import pytest

from spotd.relay.exit_signals import told_of_exit
from tests.kit.waiting import GUARD_S


class ServersHandler:
    """What a server would do at a signal."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, number: int, frame: FrameType | None) -> None:
        self.calls.append(number)


@pytest.fixture
def handler() -> Iterator[ServersHandler]:
    """The handler of a server for SIGTERM."""
    handler = ServersHandler()
    before = signal.signal(signal.SIGTERM, handler)
    yield handler
    signal.signal(signal.SIGTERM, before)


async def test_both_are_called(handler: ServersHandler) -> None:
    """The server's handler as before, and the event loop is told."""
    told = asyncio.Event()
    with told_of_exit(told.set):
        signal.raise_signal(signal.SIGTERM)
        async with asyncio.timeout(GUARD_S):
            await told.wait()
    assert handler.calls == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is handler


async def test_a_signal_that_nobody_handles_is_left_alone() -> None:
    """It ends the process as before."""
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        with told_of_exit(asyncio.Event().set):
            assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGTERM, before)


async def test_who_takes_the_signal_over_meanwhile_keeps_it(handler: ServersHandler) -> None:
    """Its handler is not replaced at the end."""
    other = ServersHandler()
    with told_of_exit(asyncio.Event().set):
        signal.signal(signal.SIGTERM, other)
    assert signal.getsignal(signal.SIGTERM) is other


async def test_outside_the_main_thread_nothing_is_done(handler: ServersHandler) -> None:
    """Only the main thread may handle signals."""

    async def elsewhere() -> object:
        with told_of_exit(asyncio.Event().set):
            return signal.getsignal(signal.SIGTERM)

    assert await asyncio.to_thread(lambda: asyncio.run(elsewhere())) is handler
