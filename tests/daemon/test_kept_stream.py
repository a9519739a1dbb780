"""Redis is away for longer than the leader's TTL: who keeps the stream, and who gets the key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote
from tests.daemon.test_leader import SHORT, TTL_S, all_agrees, given_up, only_one_works, stored
from tests.kit.recorder import Recorder
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.waiting import until


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Yield a server that keeps its data when it is killed."""
    with Server(tmp_path / "server", "--appendonly", "yes", "--appendfsync", "always") as own:
        yield own


@contextmanager
def away(server: Server, how: str) -> Iterator[None]:
    """Have the server hang, or be gone."""
    if how == "frozen":
        server.freeze()
    else:
        server.kill()
    try:
        yield
    finally:
        if how == "frozen":
            server.thaw()
        else:
            server.start()


def subscribed(sim: Simulator) -> int:
    """Return how often quotes were subscribed to."""
    return len([m for m in sim.received.messages("subscribe") if m.get("quotes")])


async def keeps(daemon: Rig) -> None:
    """Wait until no lease is left, and check what the daemon says while it keeps the stream."""
    await given_up(daemon)
    assert daemon.status["state"] == "standby"
    assert daemon.status["reason"].endswith("; the stream is kept")
    assert daemon.metric("spotd_leader") == 0.0
    assert daemon.metric("spotd_stream_connected") == 1.0
    assert daemon.daemon.not_ready() != []


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_the_stream_is_kept_and_its_last_values_are_published(
    rig: NewRig, server: Server, sim: Simulator, how: str
) -> None:
    """Prices come in meanwhile, so symbols count as live. None is subscribed anew or forgotten."""
    async with rig(**SHORT) as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await daemon.quote("QQQ", 20)
        await stored(daemon.values, SPY=10, QQQ=20)
        asked = subscribed(sim)
        with away(server, how):
            await keeps(daemon)
            for bid in (11, 12, 13):
                await daemon.quote("SPY", bid)
            assert daemon.status["symbols"]["live"] == 2
        await all_agrees(daemon)
        await stored(daemon.values, SPY=13, QQQ=20)
        assert len(sim.received.of("connect")) == 1
        assert sim.received.of("close") == []
        assert subscribed(sim) == asked
        assert daemon.daemon.leadership.get().reign == 0
        await daemon.quote("QQQ", 21)
        await stored(daemon.values, SPY=13, QQQ=21)


@pytest.mark.parametrize("how", ["frozen", "killed"])
async def test_of_two_daemons_the_one_that_holds_the_stream_leads_again(
    rig: NewRig, server: Server, sim: Simulator, how: str
) -> None:
    """The standby lets it go first, so Alpaca sees one session throughout."""
    async with rig(**SHORT) as first, rig(**SHORT, leads=False) as second:
        await first.want("SPY", "QQQ")
        await first.quote("SPY", 10)
        await first.quote("QQQ", 20)
        await stored(first.values, SPY=10, QQQ=20)
        await until(second.stands_by, "the standby")
        with away(server, how):
            await given_up(first, second)
            await first.quote("SPY", 11)
        assert await only_one_works(first, second) is first
        await stored(first.values, SPY=11, QQQ=20)
        assert second.daemon.leadership.get().term == 0
        assert len(sim.received.of("connect")) == 1
        assert sim.received.of("close") == []


async def test_without_a_time_to_keep_it_the_stream_is_closed_with_the_term(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """The clock alone ends it. It is opened anew when the daemon leads again, and no failure."""
    async with rig(**SHORT, keep_stream_s=0) as daemon:
        await daemon.want("SPY")
        with away(server, "frozen"):
            await given_up(daemon)
            await until(lambda: not sim.sessions, "the session to end")
            assert "kept" not in daemon.status["reason"]
        await all_agrees(daemon)
        assert [close.data for close in sim.received.of("close")] == [1000]
        assert len(sim.received.of("connect")) == 2
        assert not daemon.daemon.metrics.reconnects


async def test_the_stream_is_closed_when_its_time_is_over(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """It is closed with a close frame; then no symbol is live, until Redis is back."""
    async with rig(**SHORT, keep_stream_s=2 * TTL_S) as daemon:
        await daemon.want("SPY")
        await daemon.quote("SPY", 10)
        await stored(daemon.values, SPY=10)
        with away(server, "frozen"):
            await keeps(daemon)
            await until(lambda: not sim.sessions, "the session to end")
            [close] = sim.received.of("close")
            assert close.data is not None
            assert daemon.metric("spotd_stream_connected") == 0.0
            assert "kept" not in daemon.status["reason"]
            assert daemon.status["symbols"]["live"] == 0
            assert daemon.status["symbols"]["stale"] == 1
            assert len(sim.received.of("connect")) == 1
        await all_agrees(daemon)
        assert len(sim.received.of("connect")) == 2


async def test_a_stream_that_ends_while_it_is_kept_is_not_opened_anew(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Without the key nobody opens a stream: another daemon may have one."""
    async with rig(**SHORT) as daemon:
        await daemon.want("SPY")
        with away(server, "frozen"):
            await keeps(daemon)
            await sim.drop_sessions()
            await until(lambda: daemon.metric("spotd_stream_connected") == 0.0, "its end")
            ends = time.monotonic() + TTL_S
            await until(lambda: time.monotonic() > ends, "time to connect, if it did")
            assert len(sim.received.of("connect")) == 1
        await all_agrees(daemon)
        assert len(sim.received.of("connect")) == 2


# A leader that is cut off alone


async def test_a_leader_that_was_cut_off_closes_its_stream_when_it_sees_anothers_token(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Until then its successor meets 406 and says so. Then it serves, with newer prices only."""
    async with (
        RedisProxy.to(server) as proxy,
        Rig(proxy.url, sim, **SHORT) as first,
        rig(leads=False, **SHORT) as second,
    ):
        await first.want("SPY", "QQQ")
        await first.quote("SPY", 10)
        await first.quote("QQQ", 20)
        await stored(second.values, SPY=10, QQQ=20)
        await until(second.stands_by, "the standby")
        proxy.hold("EVALSHA")
        await until(lambda: second.waits("406"), "the successor to meet 406")
        assert second.metric("spotd_leader") == 1.0
        assert first.metric("spotd_leader") == 0.0
        assert first.status["reason"].endswith("; the stream is kept")
        await first.quote("SPY", 11)
        proxy.release()
        await all_agrees(second)
        await until(first.stands_by, "the first to stand by")
        assert first.daemon.leadership.get().reign == 1
        cache = first.daemon.prices.cache
        assert all(slot.quoted_at is None for slot in cache.slots.values())
        await second.quote("SPY", 12)
        await stored(second.values, SPY=12, QQQ=20)


async def test_a_leader_that_stays_cut_off_closes_its_stream_in_time(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Nobody serves until then. What it took in meanwhile is never published."""
    async with (
        RedisProxy.to(server) as proxy,
        Rig(proxy.url, sim, **SHORT, keep_stream_s=2 * TTL_S) as first,
        rig(leads=False, **SHORT) as second,
        Recorder(server.url) as heard,
    ):
        await first.want("SPY")
        await first.quote("SPY", 10)
        await stored(second.values, SPY=10)
        await until(second.stands_by, "the standby")
        proxy.hold("EVALSHA")
        await until(lambda: second.waits("406"), "the successor to meet 406")
        await first.quote("SPY", 11)
        await all_agrees(second)
        assert first.metric("spotd_stream_connected") == 0.0
        await second.send(quote("SPY", 12))
        await stored(second.values, SPY=12)
        proxy.release()
        await until(first.stands_by, "the first to stand by")
        assert heard.bids("SPY") == [10, 12]


# A standby that is cut off alone


async def test_a_standby_that_is_cut_off_says_so_and_disturbs_nothing(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """The leader serves on. Where it ends meanwhile, nobody serves until the cut is over."""
    async with (
        RedisProxy.to(server) as proxy,
        rig(**SHORT) as first,
        Rig(proxy.url, sim, leads=False, **SHORT) as second,
    ):
        await first.want("SPY")
        await first.quote("SPY", 10)
        await stored(first.values, SPY=10)
        await until(second.stands_by, "the standby")
        proxy.hold("EVALSHA")
        await until(second.daemon.not_ready, "the standby to say so")
        assert second.status["code"] == "redis_away"
        assert second.metric("spotd_leader") == 0.0
        await first.quote("SPY", 11)
        await stored(first.values, SPY=11)
        assert first.works()
        assert await first.stop() == 0
        assert await first.values.token() is None
        proxy.release()
        await all_agrees(second)
        assert second.metric("spotd_leader") == 1.0
