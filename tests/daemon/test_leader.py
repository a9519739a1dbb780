"""Who leads, who publishes, and what becomes of prices when that changes."""

from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest

from spotd.errors import NotLeaderError
from tests.daemon.conftest import NewRig
from tests.daemon.rig import Ear, Rig, eventually
from tests.kit.servers import Server

TTL_S = 1.0


def seqs(ear: Ear, symbol: str) -> list[int]:
    """Every seq that was published of a symbol, in order."""
    return [message["seq"] for message in ear.messages(symbol)]


def rises(numbers: list[int]) -> bool:
    """Whether they rise strictly."""
    return all(a < b for a, b in pairwise(numbers))


async def published(rig: Rig, symbol: str, bid: float, patience_s: float = 5.0) -> None:
    """Wait until ``spotd:last`` holds this bid."""

    async def held() -> bool:
        return await rig.bid(symbol) == bid

    await eventually(held, f"{symbol} at {bid}", patience_s)


async def test_two_daemons_never_publish_both(rig: NewRig, server: Server) -> None:
    """Of two with the same demand and the same quotes, one publishes, and the other is standby."""
    async with rig(instance="a") as first:
        await first.leads()
        async with rig(instance="b") as second, Ear(server.url, "spot:*") as ear:
            await eventually(lambda: second.shared.facts.lease_works, "the second to look")
            await first.want("SPY")
            for number in range(1, 21):
                first.quote("SPY", number)
                second.quote("SPY", 1_000 + number)
                await published(first, "SPY", number)
            assert not second.shared.leads()
            assert not second.shared.facts.leader
            assert second.report.status().state == "standby"
            assert second.report.not_ready() == []
            bids = [message["bid_price"] for message in ear.messages("SPY")]
            assert set(bids) <= set(range(1, 21))
            assert rises(seqs(ear, "SPY"))


async def test_a_standby_takes_over_within_the_ttl(rig: NewRig, server: Server) -> None:
    """A leader that vanished without a word blocks its successor for TTL + 1 s at most."""
    async with rig(instance="a") as first, rig(instance="b") as second:
        await eventually(
            lambda: first.shared.facts.leader or second.shared.facts.leader, "a leader"
        )
        leader, standby = (first, second) if first.shared.facts.leader else (second, first)
        await leader.want("SPY")
        leader.quote("SPY", 10)
        await published(leader, "SPY", 10)
        before = await leader.last("SPY")
        await leader.freeze()
        assert await standby.leads() < TTL_S + 1
        await eventually(lambda: standby.wanted("SPY"), "the demand")
        standby.quote("SPY", 11)
        await published(standby, "SPY", 11)
        after = await standby.last("SPY")
        assert before is not None
        assert after is not None
        assert after["seq"] > before["seq"]


async def test_an_orderly_stop_hands_over_at_once(rig: NewRig) -> None:
    """The key is released, so nobody waits for it to lapse."""
    async with rig(instance="b", leader_ttl_s=30) as standby:
        await standby.leads()
        await standby.freeze()
        async with rig(instance="a", leader_ttl_s=30) as successor:
            await eventually(lambda: successor.shared.facts.lease_works, "a look")
            assert not successor.shared.facts.leader
            assert await standby.port.release(standby.shared.token)
            assert await successor.leads() < 1.5


async def test_a_leader_that_froze_and_woke_publishes_nothing(rig: NewRig, server: Server) -> None:
    """Whatever it still believes, Redis knows better; and its first act is to step down."""
    async with rig(instance="a") as frozen:
        await frozen.want("SPY")
        frozen.quote("SPY", 10)
        await published(frozen, "SPY", 10)
        await frozen.freeze()
        async with rig(instance="b") as leader, Ear(server.url, "spot:*") as ear:
            await leader.leads()
            await eventually(lambda: leader.wanted("SPY"), "the demand")
            leader.quote("SPY", 20)
            await published(leader, "SPY", 20)
            # It believes in its lease, as if it had been frozen in the middle of a batch.
            frozen.shared.lease.granted(time.monotonic())
            frozen.quote("SPY", 11)
            with pytest.raises(NotLeaderError):
                await frozen.port.publish(
                    frozen.shared.token, b'{"symbol":"SPY"}\n', frozen.shared.seq + 10**9
                )
            frozen.resume()
            await eventually(lambda: not frozen.shared.facts.leader, "the frozen one to step down")
            leader.quote("SPY", 21)
            await published(leader, "SPY", 21)
            await eventually(lambda: len(seqs(ear, "SPY")) >= 2, "both updates")
            assert [message["bid_price"] for message in ear.messages("SPY")] == [20, 21]
            # What it knew is older than what was published: it is forgotten, not published later.
            assert frozen.shared.market.slots["SPY"].quote is None


async def test_a_leader_key_that_was_lost_is_taken_again_without_an_interruption(
    rig: NewRig, server: Server
) -> None:
    """Nobody else leads, so the stream need not end, whoever finds out first that it is gone."""
    async with rig(leader_ttl_s=30) as daemon:
        await daemon.want("SPY")
        daemon.quote("SPY", 10)
        await published(daemon, "SPY", 10)
        interrupted = False

        async def watch() -> None:
            nonlocal interrupted
            while True:
                interrupted = interrupted or not daemon.shared.leads()
                await asyncio.sleep(0)

        watching = asyncio.create_task(watch())
        with server.client() as client:
            client.delete("spotd:leader")
        daemon.quote("SPY", 11)  # published, or not, long before the lease would be renewed
        await published(daemon, "SPY", 11)
        watching.cancel()
        assert not interrupted
        assert daemon.shared.term == 2


async def test_a_flushed_server_is_written_anew(rig: NewRig, server: Server) -> None:
    """After FLUSHALL the lease is retaken, and last, states and status are all there again."""
    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")
        daemon.quote("SPY", 10)
        daemon.quote("QQQ", 20)
        await published(daemon, "QQQ", 20)
        last = await daemon.last("SPY")
        with server.client() as client:
            client.flushall()
            client.sadd("spotd:symbols", "SPY", "QQQ")

        async def all_there() -> bool:
            return (
                await daemon.bid("SPY") == 10
                and await daemon.bid("QQQ") == 20
                and await daemon.state("SPY") == "live"
                and await daemon.state("QQQ") == "live"
                and (await daemon.status() or {}).get("state") == "streaming"
                and await daemon.port.leader() == daemon.shared.token
            )

        await eventually(all_there, "everything to be written anew", TTL_S + 1)
        again = await daemon.last("SPY")
        assert last is not None
        assert again is not None
        assert again["seq"] > last["seq"]


async def test_a_leader_steps_down_before_its_key_can_lapse(rig: NewRig, server: Server) -> None:
    """When Redis hangs, the leader's own clock ends its term."""
    async with rig() as daemon:
        await daemon.want("SPY")
        renewed_at = daemon.shared.lease.until - 0.9 * TTL_S
        server.freeze()
        frozen_at = time.monotonic()
        try:
            await eventually(lambda: not daemon.shared.facts.leader, "stepping down", 3.0)
            ended_at = time.monotonic()
            assert not daemon.shared.leads()
        finally:
            server.thaw()
        assert renewed_at <= frozen_at
        # A renewal may have been answered between the two lines above; none was after the freeze.
        assert ended_at <= frozen_at + TTL_S
        assert await daemon.leads() < 1.5


async def test_a_leader_whose_key_did_not_lapse_takes_it_back(rig: NewRig, server: Server) -> None:
    """A term that ended by our own clock leaves our own key behind: no other daemon, no wait."""
    async with rig(leader_ttl_s=2) as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY")
        daemon.quote("SPY", 10)
        await published(daemon, "SPY", 10)
        server.freeze()
        try:
            daemon.quote("SPY", 11)
            await eventually(lambda: not daemon.shared.facts.leader, "stepping down", 4.0)
            daemon.quote("SPY", 12)
        finally:
            with server.client() as client:
                server.thaw()
                client.set("spotd:leader", daemon.leader._former, px=60_000)
        assert await daemon.leads() < 1.5
        await published(daemon, "SPY", 12, 1.0)
        await eventually(lambda: ear.messages("SPY")[-1]["bid_price"] == 12, "the newest price")
        assert rises(seqs(ear, "SPY"))


async def test_seq_rises_over_restart_and_a_clock_set_back(rig: NewRig, server: Server) -> None:
    """A stored seq ahead of the wall clock is where the next leader begins."""
    ahead = int((time.time() + 3_600) * 1_000_000)
    with server.client() as client:
        client.set("spotd:seq", f"{ahead} before:1")
    async with Ear(server.url, "spot:*") as ear:
        for life in range(3):
            async with rig(instance=f"life{life}") as daemon:
                await daemon.want("SPY")
                daemon.quote("SPY", 10 + life)
                await published(daemon, "SPY", 10 + life)
        await eventually(lambda: len(seqs(ear, "SPY")) >= 3, "all updates")
        assert rises([ahead, *seqs(ear, "SPY")])
        assert seqs(ear, "SPY")[-1] < ahead + 1_000


async def test_seq_rises_after_another_leader_whose_clock_is_ahead(
    rig: NewRig, server: Server
) -> None:
    """A daemon that leads again begins above what was published meanwhile, and republishes none."""
    async with rig(instance="a") as daemon, Ear(server.url, "spot:*") as ear:
        await daemon.want("SPY", "QQQ")
        daemon.quote("SPY", 10)
        daemon.quote("QQQ", 10)
        await published(daemon, "QQQ", 10)
        other, ahead = "other:1", int((time.time() + 60) * 1_000_000)
        with server.client() as client:
            client.set("spotd:leader", other, px=60_000)
        await eventually(lambda: not daemon.shared.facts.leader, "stepping down", 2.0)
        await daemon.port.publish(other, f'{{"symbol":"SPY","seq":{ahead}}}\n'.encode(), ahead)
        assert await daemon.port.release(other)
        await daemon.leads(3.0)
        daemon.quote("SPY", 12)
        await eventually(lambda: seqs(ear, "SPY")[-1] > ahead, "a new price")
        assert rises(seqs(ear, "SPY"))
        assert len(seqs(ear, "QQQ")) == 1


async def test_a_seq_raised_by_hand_is_stepped_over(rig: NewRig, server: Server) -> None:
    """A leader whose seq is behind the stored one learns it by its next renewal and goes on."""
    async with rig() as daemon:
        await daemon.want("SPY")
        ahead = int((time.time() + 60) * 1_000_000)
        with server.client() as client:
            client.set("spotd:seq", ahead)

        async def above() -> bool:
            daemon.quote("SPY", 12)
            last = await daemon.last("SPY")
            return last is not None and last["seq"] > ahead

        await eventually(above, "a seq above it", 2.0)


async def test_a_former_leader_that_missed_a_whole_reign_republishes_nothing(
    rig: NewRig, server: Server
) -> None:
    """Frozen over a whole term of another, it leads again without its old prices."""
    async with rig(instance="a") as frozen:
        await frozen.want("SPY")
        frozen.quote("SPY", 10)
        await published(frozen, "SPY", 10)
        await frozen.freeze()
        async with rig(instance="b") as other:
            await other.leads()
            await eventually(lambda: other.wanted("SPY"), "the demand")
            other.quote("SPY", 20)
            await published(other, "SPY", 20)
        frozen.resume()
        await frozen.leads()
        await eventually(lambda: frozen.shared.term == 2, "the second term")
        assert await frozen.bid("SPY") == 20
        frozen.quote("SPY", 21)
        await published(frozen, "SPY", 21)


async def test_what_was_to_be_dropped_in_an_earlier_term_is_not_dropped_in_a_later_one(
    rig: NewRig, server: Server
) -> None:
    """It may be desired again since, and published by another: its last price stays."""
    async with rig(instance="a") as first:
        await first.want("SPY", "QQQ")
        first.quote("SPY", 10)
        await published(first, "SPY", 10)
        with server.client() as client:
            client.srem("spotd:symbols", "SPY")
        await eventually(lambda: not first.wanted("SPY"), "the end of it")
        await first.freeze()
        first.shared.to_drop |= {"SPY", "IWM"}  # as if Redis had failed before they were dropped
        async with rig(instance="b") as other:
            await other.leads()
            await other.want("SPY")
            other.quote("SPY", 20)
            await published(other, "SPY", 20)
        with server.client() as client:
            client.hset("spotd:last", "IWM", "{}")
        first.resume()
        await first.leads()

        async def leftover_gone() -> bool:
            return await first.last("IWM") is None

        await eventually(leftover_gone, "what nobody wants to go, as found anew")
        assert await first.bid("SPY") == 20


async def test_an_answer_that_comes_too_late_is_no_lease(rig: NewRig, server: Server) -> None:
    """Granted by a key that may have lapsed since: looked at again before anything is published."""
    async with rig() as daemon:
        await daemon.leads()
        await daemon.freeze()
        await daemon.port.release(daemon.shared.token)
        daemon.port._limit_s = 5.0  # the answer is waited for all the same
        shared = daemon.shared
        shared.lease.refused()
        daemon.leader._check_expiry()
        server.freeze()
        look = asyncio.create_task(daemon.leader._look())
        try:
            asked_at = time.monotonic()
            await eventually(lambda: time.monotonic() > asked_at + TTL_S, "the TTL", 3.0)
        finally:
            server.thaw()
        assert await look == 0.0
        assert not shared.leads()
