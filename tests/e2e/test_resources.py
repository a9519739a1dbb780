"""A host without descriptors, memory or disk: what goes on, what ends, and who takes over."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from pathlib import Path
from string import ascii_uppercase

import pytest

from tests.e2e.setup import Setup, quote
from tests.kit.processes import Command
from tests.kit.recorder import Recorder


@contextmanager
def limited(daemon: Command, what: int, soft: int) -> Iterator[None]:
    """Lower a limit of a running process, and give it back."""
    before = resource.prlimit(daemon.process.pid, what)
    resource.prlimit(daemon.process.pid, what, (soft, before[1]))
    try:
        yield
    finally:
        if daemon.running:
            resource.prlimit(daemon.process.pid, what, before)


def _mapped_bytes(daemon: Command) -> int:
    """Return what the process has mapped: with this limit it gets no more."""
    pages = int(Path(f"/proc/{daemon.process.pid}/statm").read_text().split()[0])
    return pages * resource.getpagesize()


async def _has(setup: Setup, bid: float) -> bool:
    return await setup.values.bid("SPY") == bid


async def test_no_descriptor_is_left(setup: Setup) -> None:
    """What is connected goes on; what is to be connected is tried again until there is one."""
    daemon = await setup.daemon()
    await setup.streaming("SPY")
    await setup.sim.send([quote("SPY", 1, 2)])
    await setup.until(partial(_has, setup, 1), "the first price")

    with limited(daemon, resource.RLIMIT_NOFILE, 3):
        await setup.sim.send([quote("SPY", 2, 3)])
        await setup.until(partial(_has, setup, 2), "a price over the open connections")
        await setup.sim.drop_sessions("abort")
        await setup.until(lambda: "stream is down" in daemon.events(), "the loss")
        await setup.sim.send([quote("SPY", 3, 4)])
    await setup.until(partial(_has, setup, 3), "what was missed")
    await setup.until(lambda: setup.values.live("SPY"), "live again")
    await setup.until(daemon.ready, "ready again")
    await setup.until(lambda: len(setup.sim.sessions) == 1, "one session")
    assert daemon.running


@pytest.mark.long  # exotic
async def test_no_memory_is_left(setup: Setup) -> None:
    """A leader that gets no more memory goes on or ends: in the end somebody serves.

    Which of the two is the allocator's doing. One that hangs ends itself (tests/ops/test_hang.py).
    """
    setup.sim.limits.connections = 2
    first = await setup.daemon("first", SPOTD_LEADER_TTL_S="1")
    await setup.streaming("SPY")
    second = await setup.daemon("second", SPOTD_LEADER_TTL_S="1")
    recorder = await setup.recorder()
    many = [f"M{a}{b}{c}" for a, b, c in product("ABCDEFGHIJ", ascii_uppercase, ascii_uppercase)]

    with limited(first, resource.RLIMIT_AS, _mapped_bytes(first)):
        await setup.values.want(*many)
        await setup.until(partial(_all_live, setup, len(many) + 1), "all live")
        await setup.until(partial(_published, setup, recorder), "a price by whoever leads")
    assert (await second.get("/livez"))[0] == 200
    recorder.check_order()


async def _all_live(setup: Setup, number: int) -> bool:
    status = await setup.values.status() or {"state": "none"}
    return bool(status["state"] == "streaming" and status["symbols"]["live"] == number)


async def _published(setup: Setup, recorder: Recorder) -> bool:
    bid = len(recorder.of("SPY")) + 1
    return await _sent(setup, bid)


@pytest.mark.long  # exotic
async def test_a_full_disk_of_the_log_costs_no_price(setup: Setup) -> None:
    """A log line that cannot be written is lost, and nothing else."""
    daemon = await setup.daemon()
    await setup.streaming("SPY")
    with limited(daemon, resource.RLIMIT_FSIZE, 1):
        for bid in (1, 2, 3):
            await setup.sim.drop_sessions("abort")  # which is logged
            await setup.until(lambda: setup.values.live("SPY"), "live again")
            await setup.until(partial(_sent, setup, bid), f"price {bid}")
    assert daemon.running
    assert await daemon.stop() == 0


async def _sent(setup: Setup, bid: float) -> bool:
    await setup.sim.send([quote("SPY", bid, bid + 1)])
    return await _has(setup, bid)
