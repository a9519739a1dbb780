"""Prices on their way to Redis, also when it is away: newest wins, nothing known is lost."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
import structlog

from spotd.core.publishing import BatchSize
from tests.daemon.conftest import NewRig
from tests.daemon.rig import Busy, Ear, Rig, eventually, logged
from tests.kit.servers import Server

MANY = [f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]


def bids(ear: Ear, symbol: str) -> list[float]:
    """Every bid that was published of a symbol, in order."""
    return [message["bid_price"] for message in ear.messages(symbol)]


async def out(daemon: Rig, ear: Ear, symbol: str, bid: float, patience_s: float = 5.0) -> float:
    """Wait until a bid was heard. Gives how long it took."""
    return await eventually(
        lambda: bids(ear, symbol)[-1:] == [bid], f"{symbol} at {bid}", patience_s
    )


def never_falls(ear: Ear, symbol: str) -> bool:
    """Whether neither seq nor bid (which only rise here) ever went back."""
    messages = ear.messages(symbol)
    return all(
        a["seq"] < b["seq"] and a["bid_price"] <= b["bid_price"] for a, b in pairwise(messages)
    )


async def test_channel_and_last_hold_the_same_bytes(rig: NewRig, server: Server) -> None:
    """A quote of a desired symbol reaches its channel and ``spotd:last``, byte for byte."""
    async with rig() as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 421.35, 421.39)
        await eventually(lambda: ear.raw("SPY"), "an update")
        assert await daemon.redis.hget("spotd:last", "SPY") == ear.raw("SPY")[0].decode()
        message = ear.messages("SPY")[0]
        assert message["mid_price"] == 421.37
        assert message["last_price"] is None
        assert daemon.shared.metrics.updates_published == 1


async def test_a_thousand_symbols_go_out_together(rig: NewRig, server: Server) -> None:
    """More than one call holds: each symbol once, none late, the loop stays free."""
    async with rig(throttle_ms=200) as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want(*MANY)
        async with Busy() as busy:
            for symbol in MANY:
                daemon.quote(symbol, 1)
            await eventually(lambda: len(ear.heard) == len(MANY), "all", 2.0)
        assert len(MANY) > BatchSize().limit
        assert busy.longest_s < 0.1
        assert {channel for _, channel, _ in ear.heard} == {f"spot:{s}" for s in MANY}
        seqs = [ear.messages(symbol)[0]["seq"] for symbol in MANY]
        assert len(set(seqs)) == len(MANY)


async def test_the_last_value_before_a_silence_arrives(rig: NewRig, server: Server) -> None:
    """The first at once, the newest of the rest when the window ends, and no more."""
    async with rig(throttle_ms=200) as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        started = time.monotonic()
        for bid in range(1, 11):
            daemon.quote("SPY", bid)
            await asyncio.sleep(0)
            if bid == 1:
                await eventually(lambda: bids(ear, "SPY") == [1], "the first")
        await out(daemon, ear, "SPY", 10)
        assert time.monotonic() - started < 0.5
        assert bids(ear, "SPY") == [1, 10]
        first, second = (at for at, _, _ in ear.heard)
        assert second - first >= 0.19
        # Nothing changed since: nothing is published again.
        await daemon.want("QQQ")
        daemon.quote("QQQ", 1)
        await out(daemon, ear, "QQQ", 1)
        assert bids(ear, "SPY") == [1, 10]


async def test_what_is_pending_is_flushed_before_the_end(rig: NewRig, server: Server) -> None:
    """An orderly stop publishes what the throttle held back, without waiting for a long window."""
    async with rig(throttle_ms=60_000) as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 1)
        await out(daemon, ear, "SPY", 1)
        daemon.quote("SPY", 2)
        await daemon.publish.flush(time.monotonic() + 0.1)
        await out(daemon, ear, "SPY", 2, 1.0)


async def test_a_flush_gives_up_when_redis_is_away(rig: NewRig, server: Server) -> None:
    """It tries until its deadline, not for ever."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want("SPY")
        server.kill()
        daemon.quote("SPY", 1)
        started = time.monotonic()
        await daemon.publish.flush(started + 0.2)
        assert time.monotonic() - started < 1.0


# Redis away


@pytest.mark.parametrize("how", ["kill", "kill and lose all", "hang"])
@pytest.mark.parametrize("longer", [False, True], ids=["shorter than the TTL", "longer"])
async def test_the_newest_of_each_changed_symbol_is_published_on_return(
    rig: NewRig, server: Server, how: str, longer: bool
) -> None:
    """Within 1 s of its return, once, newest only; said once, and its recovery once."""
    ttl_s = 1.0 if longer else 4.0
    with structlog.testing.capture_logs() as lines:
        async with (
            rig(leader_ttl_s=ttl_s, throttle_ms=100) as daemon,
            Ear(server.url, "spot:*") as ear,
        ):
            await daemon.want("SPY", "QQQ", "IWM")
            for symbol in ("SPY", "QQQ", "IWM"):
                daemon.quote(symbol, 1)
                await out(daemon, ear, symbol, 1)
            if how == "hang":
                server.freeze()
            else:
                with server.client() as client:
                    client.save()
                server.kill()
            away_at = time.monotonic()
            bid = 1
            away_s = 1.6 if longer else 0.7
            while time.monotonic() < away_at + away_s:
                bid += 1
                daemon.quote("SPY", bid)
                daemon.quote("QQQ", bid)
                await asyncio.sleep(0.02)
            assert daemon.shared.facts.leader is not longer
            heard_before = len(ear.heard)
            assert bids(ear, "SPY")[-1] < bid
            if how == "hang":
                server.thaw()
            elif how == "kill":
                server.start()
            else:
                server.restart(lose_data=True)
                with server.client() as client:
                    client.sadd("spotd:symbols", "SPY", "QQQ", "IWM")
            back_at = time.monotonic()

            async def newest() -> bool:
                return await daemon.bid("SPY") == bid and await daemon.bid("QQQ") == bid

            await eventually(newest, "the newest prices", 3.0)
            assert time.monotonic() - back_at < 1.0
            await eventually(lambda: daemon.shared.facts.redis_error is None, "calm", 5.0)

            async def all_there() -> bool:
                return await daemon.bid("IWM") == 1 and await daemon.state("SPY") == "live"

            await eventually(all_there, "everything to be there again", 3.0)
            # What was under way when it went away may have arrived; nothing goes back.
            assert never_falls(ear, "SPY")
            assert never_falls(ear, "QQQ")
            if how != "hang":  # the ear may have missed what came before it was back
                assert len(ear.heard) - heard_before <= 9
    said = [line["event"] for line in lines if line["event"].startswith(("redis is", "cannot"))]
    if how == "hang" and not longer:
        assert said == []  # every call was answered within its limit
    else:
        assert len(said) == 2
        assert said[1] == "redis is back"


async def test_calls_that_are_given_up_are_followed_by_smaller_ones(
    rig: NewRig, server: Server
) -> None:
    """Perhaps they took so long for their size. All the same everything goes out in the end."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want(*MANY)
        batch = daemon.publish._batch
        first = batch.limit
        server.freeze()
        try:
            for symbol in MANY:
                daemon.quote(symbol, 1)
            await eventually(lambda: batch.limit < first, "a smaller batch", 3.0)
        finally:
            server.thaw()

        async def all_out() -> bool:
            return int(await daemon.redis.hlen("spotd:last")) == len(MANY)

        await eventually(all_out, "all prices", 5.0)


async def test_memory_is_bounded_while_redis_is_away(rig: NewRig, server: Server) -> None:
    """One slot per symbol, however many quotes come, and nothing queues."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want(*MANY[:100])
        server.kill()
        for bid in range(1, 201):
            for symbol in MANY[:100]:
                daemon.quote(symbol, bid)
            await asyncio.sleep(0)
        conflator = daemon.shared.conflator
        assert len(conflator.ready) + sum(len(held) for _, held in conflator._windows) <= 100
        assert len(daemon.shared.market.slots) == 100
        assert len(asyncio.all_tasks()) < 20


async def test_a_quote_that_replaces_one_not_published_is_counted(
    rig: NewRig, server: Server
) -> None:
    """What conflation saved shows in the metrics."""
    async with rig(throttle_ms=500) as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 1)
        await out(daemon, ear, "SPY", 1)
        for bid in range(2, 7):
            daemon.quote("SPY", bid)
        assert daemon.report.numbers().quotes_conflated == 4


@pytest.mark.parametrize("what", ["channels", "memory"])
async def test_what_redis_refuses_for_long_is_said_once(
    rig: NewRig, server: Server, what: str
) -> None:
    """A lease that is renewed meanwhile does not make it come and go; the end of it is said too."""
    with structlog.testing.capture_logs() as lines:
        async with rig(leader_ttl_s=1) as daemon, Ear(server.url, "spot:*") as ear:
            await daemon.want("SPY")
            daemon.quote("SPY", 1)
            await out(daemon, ear, "SPY", 1)
            with server.client() as client:
                if what == "channels":
                    client.execute_command("ACL", "SETUSER", "default", "resetchannels", "&spotd:*")
                else:
                    client.config_set("maxmemory", 1)
                daemon.quote("SPY", 2)
                since = time.monotonic()
                await eventually(lambda: daemon.shared.facts.redis_error, "the refusal", 3.0)
                while time.monotonic() < since + 1.6:
                    assert daemon.shared.facts.redis_error is not None
                    assert any("redis" in reason for reason in daemon.report.not_ready())
                    await asyncio.sleep(0.02)
                if what == "channels":
                    client.execute_command("ACL", "SETUSER", "default", "allchannels")
                else:
                    client.config_set("maxmemory", 0)
            daemon.quote("SPY", 3)

            async def newest() -> bool:
                return await daemon.bid("SPY") == 3

            await eventually(newest, "the newest price", 1.0)
            await eventually(lambda: daemon.shared.facts.redis_error is None, "calm", 3.0)
            assert daemon.report.not_ready() == []
    assert len(logged(lines, "redis is back")) == 1
    said = [line for line in lines if line.get("why") and "Redis" in str(line["why"])]
    assert len(said) == 1


async def test_hashes_of_the_wrong_type_are_mended(rig: NewRig, server: Server) -> None:
    """Somebody wrote over spotd's own keys: they are what they should be at the next write."""
    async with rig() as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 1)
        await out(daemon, ear, "SPY", 1)
        with server.client() as client:
            for key in ("last", "states", "status", "seq"):
                client.delete(f"spotd:{key}")
                client.rpush(f"spotd:{key}", "x")
        daemon.quote("SPY", 2)
        await daemon.want("QQQ")

        async def mended() -> bool:
            return (
                await daemon.redis.type("spotd:last") == "hash"
                and await daemon.redis.type("spotd:states") == "hash"
                and await daemon.redis.type("spotd:status") == "string"
                and await daemon.redis.type("spotd:seq") == "string"
            )

        await eventually(mended, "the keys to be mended", 2.0)
        await out(daemon, ear, "SPY", 2)
        assert daemon.shared.facts.redis_error is None


async def test_fields_to_drop_are_dropped_when_redis_is_back(rig: NewRig, server: Server) -> None:
    """A removal that could not be written is not forgotten, nor one that was lost with the key."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want("SPY", "QQQ")
        daemon.quote("SPY", 1)
        daemon.quote("QQQ", 1)

        async def kept() -> bool:
            return await daemon.bid("SPY") == 1 and await daemon.bid("QQQ") == 1

        await eventually(kept, "both")
        with server.client() as client:
            client.srem("spotd:symbols", "SPY")
            client.publish("spotd:wake", "")
            client.config_set("maxmemory", 1)  # refuses what would grow, not HDEL
            client.config_set("maxmemory", 0)
        daemon.shared.to_drop.add("QQQ")
        with server.client() as client:
            client.set("spotd:leader", "other", px=300)
        daemon.shared.bells.publish.ring()

        async def dropped() -> bool:
            return await daemon.last("SPY") is None

        await eventually(dropped, "the field to go", 5.0)
