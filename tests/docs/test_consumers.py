"""The consumers of docs/consumers.md, in bash and Node.js, run beside a real server."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.kit.npm import asked_for, package
from tests.kit.publisher import Publisher, state_calls, state_of
from tests.kit.servers import Server
from tests.kit.waiting import GUARD_S, until

EXAMPLES = Path(__file__).parents[2] / "docs/examples"
NODE_REDIS = "redis@6.3.1"


@asynccontextmanager
async def running(*command: str, server: Server, cwd: Path | None = None) -> AsyncIterator[Process]:
    """Run a consumer of SPY in a process group of its own, and end it in order."""
    process = await asyncio.create_subprocess_exec(
        *command, "SPY", stdout=PIPE, stderr=PIPE, cwd=cwd, start_new_session=True,
        env={**os.environ, "SPOTD_REDIS_URL": server.url},
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended, which asyncio may not know yet
            os.killpg(process.pid, signal.SIGTERM)
        async with asyncio.timeout(GUARD_S):
            await process.communicate()


async def line(process: Process) -> str:
    """Return the next line that a consumer prints."""
    assert process.stdout is not None
    async with asyncio.timeout(GUARD_S):
        return (await process.stdout.readline()).decode().strip()


async def leases_of_spy(daemon: Publisher) -> list[float]:
    """Return the seconds until each lease of the symbol lapses, by the server's clock."""
    now, _ = await daemon.redis.time()
    found = (await daemon.leases()).items()
    return [lapses - now for member, lapses in found if member.startswith("SPY@")]


async def follows(process: Process, daemon: Publisher, server: Server, price: str) -> None:
    """Check the four things that every consumer does. ``price`` is in each line of a price."""

    async def demanded() -> bool:
        return len(await leases_of_spy(daemon)) == 1

    async def subscribed() -> bool:
        return await daemon.subscribers("spot:SPY") == 1

    assert price in await line(process)  # the stored one
    await until(demanded, "a lease")
    [lapses_in] = await leases_of_spy(daemon)
    assert 0 < lapses_in <= 60
    await until(subscribed, "a subscription")
    await daemon.publish("SPY", 2)
    await daemon.redis.publish("spot:SPY", await daemon.raw_last("SPY"))  # again: it is not newer
    await daemon.publish("SPY", 3)
    assert [price in await line(process) for _ in range(2)] == [True, True]

    server.restart()  # and its data are lost
    await daemon.publish("SPY", 4)
    assert price in await line(process)
    await until(subscribed, "a subscription after the interruption")
    await daemon.publish("SPY", 5)
    assert price in await line(process)


async def ended(process: Process, daemon: Publisher) -> None:
    """End a consumer, and wait until its demand has ended too."""
    os.killpg(process.pid, signal.SIGTERM)

    async def undemanded() -> bool:
        return await leases_of_spy(daemon) == []

    await until(undemanded, "the end of the demand")


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="needs redis-cli (redis-tools)")
async def test_the_shell_consumer(daemon: Publisher, server: Server) -> None:
    """It demands by lease, joins without a gap, drops what is old, and survives an interruption."""
    await daemon.publish("SPY", 1)
    async with running(str(EXAMPLES / "prices.sh"), server=server) as process:
        await follows(process, daemon, server, '"mid_price":421.37,')
        await ended(process, daemon)


@asked_for
@pytest.mark.timeout(300)
async def test_the_node_consumer(daemon: Publisher, server: Server, tmp_path: Path) -> None:
    """It does the same, and tells states."""
    (tmp_path / "node_modules").symlink_to(package(NODE_REDIS) / "node_modules")
    shutil.copy(EXAMPLES / "prices.mjs", tmp_path)
    await daemon.publish("SPY", 1)
    async with running("node", "prices.mjs", server=server, cwd=tmp_path) as process:
        await follows(process, daemon, server, "SPY 421.37 2026-01-20T05:12:00.000000Z")
        for _, *call in state_calls(state_of("SPY", "halted")):
            if call[0] == "spotd:events":
                await daemon.redis.publish(*call)
        assert await line(process) == "SPY halted"
        await ended(process, daemon)
