"""What Alpaca and the way to it may do wrong for months: keys, floods, idle cuts, many ends."""

from __future__ import annotations

import asyncio
import os

import pytest
from pydantic import SecretStr

from spotd.alpaca.handshake import Timeouts
from spotd.simulator import Simulator
from spotd.simulator.session import Ending, Frame
from spotd.simulator.wire import encode
from tests.daemon.rig import BRISK, NewRig, Rig, quote
from tests.kit.idle_proxy import IdleProxy
from tests.kit.waiting import GUARD_S, until

NEW_KEY, NEW_SECRET = "rotated-key", "rotated-secret"


# Keys


async def test_keys_that_were_rotated_end_a_daemon_that_had_worked(
    rig: NewRig, sim: Simulator
) -> None:
    """402 at a reconnect is as final as at the start: exit code 3, and nothing is called live.

    A standby that has the new keys takes over.
    """
    daemon = rig()
    running = asyncio.create_task(daemon.daemon.run(), name="daemon")
    await until(daemon.leads, "leading")
    await daemon.want("SPY")
    await daemon.quote("SPY", 1)
    await until(lambda: daemon.values.has("SPY", 1), "the price")
    sim.keys.clear()
    sim.keys[NEW_KEY] = NEW_SECRET
    await sim.drop_sessions("close", 1001)

    async with asyncio.timeout(GUARD_S):
        assert await running == 3

    assert await daemon.values.state("SPY") == "stale"
    assert await daemon.values.token() is None
    assert await daemon.values.status() is None
    await daemon.values.aclose()
    async with rig(api_key=SecretStr(NEW_KEY), secret_key=SecretStr(NEW_SECRET)) as successor:
        await until(successor.works, "the successor")
        await successor.quote("SPY", 2)
        await until(lambda: successor.values.has("SPY", 2), "its price")
    assert sim.stats.refused[402] == 1


# More than a core can take


async def test_a_server_that_is_faster_than_we_read(rig: NewRig, sim: Simulator) -> None:
    """Alpaca says 407 and closes; all is asked for anew, and the newest price counts."""
    sim.limits.out_buffer_bytes = 1 << 20
    async with rig() as daemon:
        await daemon.want("SPY")
        flood = encode([quote("SPY", 1, t=1)] * 500, "msgpack")
        [session] = sim.sessions
        while not session.closing:
            for _ in range(100):
                session.offer(Frame(flood, text=False, quotes=500, messages=500))
            await asyncio.sleep(0)
        await until(lambda: _ends(daemon), "the end")
        await until(lambda: daemon.active, "the next session")
        await daemon.quote("SPY", 2)
        await until(lambda: daemon.values.has("SPY", 2), "the newest price")
        await until(daemon.works, "calm")
        assert daemon.daemon.metrics.reconnects == {"code_407": 1}


# Connections on which nothing passes


@pytest.mark.long  # quick, without a proxy: tests/alpaca/test_session.py
async def test_pings_keep_an_idle_connection_through_a_proxy(rig: NewRig, sim: Simulator) -> None:
    """A proxy that cuts idle connections finds none, although no price comes for long."""
    async with IdleProxy.to(sim.port, idle_s=2.0) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/v2/iex"
        async with rig(stream_url=url, timeouts=Timeouts(ping_s=0.5, pong_s=0.5)) as daemon:
            await daemon.want("SPY")
            await until(lambda: len(sim.received.of("ping")) >= 8, "4 s of pings")
            await daemon.quote("SPY", 1)
            await until(lambda: daemon.values.has("SPY", 1), "the price")
        assert proxy.cuts == 0
        assert proxy.connections == 1


async def test_a_proxy_that_cuts_sooner_than_pings_go(rig: NewRig, sim: Simulator) -> None:
    """Each cut is a lost connection like others: a new session, and the prices of that."""
    async with IdleProxy.to(sim.port, idle_s=0.3) as proxy:
        url = f"ws://127.0.0.1:{proxy.port}/v2/iex"
        async with rig(stream_url=url, breaker_failures=100) as daemon:
            await daemon.want("SPY")
            await until(lambda: proxy.cuts >= 3, "three cuts")
            await until(lambda: _ends(daemon) >= 3, "three ends")
            assert daemon.daemon.metrics.reconnects.keys() == {"lost"}

            async def comes() -> bool:
                await sim.send([quote("SPY", 7)])
                return await daemon.values.has("SPY", 7)

            await until(comes, "a price")


# Many ends


@pytest.mark.parametrize(
    "how", ["abort", *(pytest.param(how, marks=pytest.mark.long) for how in ("eof", "close"))]
)
async def test_a_stream_that_ends_again_and_again_leaves_nothing_behind(
    rig: NewRig, sim: Simulator, how: Ending
) -> None:
    """After 60 sessions there are as many tasks and descriptors as after five."""
    async with rig(pauses=BRISK, breaker_failures=1_000) as daemon:
        await daemon.want("SPY")

        async def again(times: int) -> None:
            for _ in range(times):
                ended = _ends(daemon)
                await sim.drop_sessions(how)
                await until(lambda n=ended: _ends(daemon) > n, "the end")  # type: ignore[misc]
                await until(daemon.works, "the next session")

        await again(5)
        before = _held()
        await again(55)
        # Connections to Redis come and go; a leak of one a session would be 55.
        await until(lambda: _held() <= before + 20, "no more than before")
        await daemon.quote("SPY", 1)
        await until(lambda: daemon.values.has("SPY", 1), "the price")
        assert len(sim.sessions) == 1


def _ends(daemon: Rig) -> int:
    return sum(daemon.daemon.metrics.reconnects.values())


def _held() -> int:
    """Return the number of tasks and descriptors of this process, together."""
    return len(asyncio.all_tasks()) + len(os.listdir("/dev/fd"))  # noqa: PTH208 - not files
