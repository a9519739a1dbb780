"""The life of a symbol: demanded, published, leased, removed. One daemon serves all these tests.

Each test uses symbols of its own, so that none sees what another left.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial

import pytest
import pytest_asyncio

from tests.e2e.setup import Setup, quote

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def setup(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Setup]:
    """Yield a quiet Alpaca, a server, and a daemon that streams IBM."""
    async with Setup(tmp_path_factory.mktemp("symbol_life")) as shared:
        await shared.daemon()
        await shared.streaming("IBM")
        yield shared


async def test_a_demanded_symbol_is_published_without_any_wake(setup: Setup) -> None:
    """A new entry of the set is found by itself, and its price comes out on its channel."""
    recorder = await setup.recorder("spot:SPY")
    await setup.sim.send([quote("SPY", 100.0, 100.5)])
    await setup.values.want("SPY", wake=False)
    await setup.until(lambda: recorder.of("SPY"), "SPY is published")

    assert recorder.prices("SPY") == [(100.0, 100.5)]


async def test_a_removed_symbol_leaves_without_any_wake(setup: Setup) -> None:
    """A removed entry is unsubscribed by itself; its fields go, and no other symbol's do."""
    await setup.streaming("QQQ", "DIA")
    await setup.sim.send([quote("QQQ", 10, 11), quote("DIA", 20, 21)])
    await setup.until(lambda: setup.values.last("QQQ"), "QQQ published")
    await setup.values.unwant("QQQ", wake=False)

    await setup.until(lambda: setup.asked("unsubscribe", "QQQ"), "unsubscribe")
    await setup.until(lambda: setup.values.forgotten("QQQ"), "no field is left")
    assert await setup.values.live("DIA")
    assert await setup.values.last("DIA")


async def test_wakes_subscribe_and_unsubscribe(setup: Setup) -> None:
    """Each of several symbols is asked for and given up, with a wake after each change."""
    symbols = ("A", "AA", "AAPL", "MSFT", "BRK.B")
    for symbol in symbols:
        await setup.values.want(symbol)
        await setup.until(partial(setup.asked, "subscribe", symbol), f"{symbol} subscribed")
    for symbol in symbols:
        await setup.values.unwant(symbol)
        await setup.until(partial(setup.asked, "unsubscribe", symbol), f"{symbol} unsubscribed")
        await setup.until(partial(setup.values.forgotten, symbol), "no field is left")

    assert await setup.values.live("IBM")


async def test_entries_are_trimmed_and_upper_cased(setup: Setup) -> None:
    """``  kr `` is KR, and an entry that is not a symbol is refused without disturbing others."""
    await setup.sim.send([quote("KR", 10, 11)])
    await setup.values.want("  kr ", "not a symbol", "1234", "*")
    await setup.until(lambda: setup.values.live("KR"), "KR live")

    await setup.until(lambda: setup.values.last("KR"), "KR published")
    for entry in ("not a symbol", "1234", "*"):
        assert await setup.values.state(entry) == "refused"


async def test_a_lease_lives_as_long_as_it_is_renewed(setup: Setup) -> None:
    """A lease that lapses is unsubscribed and leaves no field; one that is renewed lives on."""
    await setup.sim.send([quote("HD", 10, 11), quote("KO", 20, 21)])
    await setup.values.lease("HD@web-1", "KO@web-2", for_s=60)
    await setup.until(lambda: setup.values.live("HD", "KO"), "both live")
    await setup.until(lambda: setup.values.last("HD"), "HD published")
    await setup.until(lambda: setup.values.last("KO"), "KO published")
    lapses = time.time() + 2.0
    await setup.values.lease("HD@web-1", "KO@web-2", for_s=2.0)

    async def gone() -> bool:
        """Renew one lease, and check whether the other's symbol has left."""
        await setup.values.lease("KO@web-2", for_s=60, wake=False)
        return await setup.values.forgotten("HD")

    await setup.until(gone, "HD's fields are gone")
    assert time.time() >= lapses - 0.05, "the lease had not lapsed by Redis' clock"
    assert setup.asked("unsubscribe", "HD")
    assert not setup.asked("unsubscribe", "KO")
    assert "HD@web-1" not in await setup.values.leases()
    assert "KO@web-2" in await setup.values.leases()
    assert await setup.values.live("KO")
    assert await setup.values.last("KO")


async def test_one_of_two_leases_is_enough(setup: Setup) -> None:
    """A symbol stays as long as any of its leases, or the set, wants it."""
    await setup.values.lease("GE@a", for_s=1.0, wake=False)
    await setup.values.lease("GE@b", for_s=60)
    await setup.until(lambda: setup.values.live("GE"), "GE live")

    async def removed() -> bool:
        return "GE@a" not in await setup.values.leases()

    await setup.until(removed, "the first lease is over")
    await setup.streaming("GM")  # a later change of the demand was carried out
    assert not setup.asked("unsubscribe", "GE")
    assert await setup.values.live("GE")


async def test_late_data_of_a_removed_symbol_brings_nothing_back(setup: Setup) -> None:
    """Quotes that Alpaca still sends after the unsubscribe are not published."""
    setup.sim.faults.late_data_s = 60.0
    try:
        await setup.streaming("PG", "PEP")
        recorder = await setup.recorder("spot:PG", "spot:PEP")
        await setup.values.unwant("PG")
        await setup.until(lambda: setup.values.forgotten("PG"), "no field is left")
        await setup.sim.send([quote("PG", 66, 67), quote("PEP", 20, 21)])
        await setup.until(lambda: recorder.of("PEP"), "PEP published")
    finally:
        setup.sim.faults.late_data_s = 0.0

    assert recorder.of("PG") == []
    assert await setup.values.forgotten("PG")


async def test_the_status_is_refreshed_and_dies_with_the_daemon(setup: Setup) -> None:
    """``spotd:status`` is written again without any change, with a TTL of at most 15 s."""
    seen: set[str] = set()

    async def refreshed() -> bool:
        status = await setup.values.status()
        assert status is not None
        assert 0 < await setup.redis.pttl("spotd:status") <= 15_000
        seen.add(status["at"])
        return len(seen) >= 2

    await setup.until(refreshed, "the status is refreshed")


async def test_an_update_has_the_fields_of_the_contract(setup: Setup) -> None:
    """An update has exactly the contract's fields and types; ``last_price`` may be null."""
    recorder = await setup.recorder("spot:T")
    await setup.streaming("T")
    await setup.sim.send([quote("T", 421.35, 421.39, t="2026-01-20T05:12:00Z")])
    await setup.until(lambda: recorder.of("T"), "published")

    raw, seq = recorder.raw("T")[0], recorder.seqs("T")[0]
    assert raw == (
        b'{"symbol":"T","bid_price":421.35,"ask_price":421.39,"mid_price":421.37,'
        b'"last_price":null,"timestamp":"2026-01-20T05:12:00.000000Z","seq":%d}' % seq
    )
    assert 0 < seq < 2**53


async def test_a_halt_is_told_and_ended(setup: Setup) -> None:
    """A halted symbol is ``halted`` until its resumption, and no other is touched."""
    await setup.streaming("HAL", "SLB")
    recorder = await setup.recorder("spotd:events")
    await setup.until(lambda: setup.sim.sessions[0].statuses == {"*"}, "the statuses")
    await setup.sim.halt("HAL")
    await setup.until(lambda: recorder.states("HAL") == ["halted"], "halted")
    await setup.sim.resume("HAL")
    await setup.until(lambda: recorder.states("HAL") == ["halted", "live"], "resumed")

    assert recorder.states("SLB") == []
