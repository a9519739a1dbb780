"""Who leads, what a daemon says of it, and what becomes of prices and stream when it changes."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from spotd.core.messages import Quote, TradingStatus
from spotd.keys import Keys
from spotd.models import spot_price
from spotd.simulator import Simulator
from tests.daemon.rig import GIVES_UP_S, LONG_TTL_S, NewRig, Rig, commands, frozen, logged, quote
from tests.kit.publisher import update_of
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import until

KEYS = Keys()
TTL_S = 2.0  # a second in which any process may stand still ends no term
SHORT: dict[str, Any] = {"leader_ttl_s": TTL_S, "redis_call_s": GIVES_UP_S}
OTHER = "other:1"


async def given_up(*daemons: Rig) -> None:
    """Wait until no daemon leads, and until each has given up a request of its next term.

    A server that hangs meanwhile takes that request when it goes on, and answers nobody.
    """
    await until(lambda: not any(daemon.leads() for daemon in daemons), "the terms to end")
    given_up_at = time.monotonic() + 1.2 * GIVES_UP_S
    await until(
        lambda: (
            time.monotonic() > given_up_at
            and all(daemon.daemon.health.get().away for daemon in daemons)
        ),
        "a request to be given up",
    )


async def stored(values: Values, **bids: float) -> None:
    """Wait until ``spotd:last`` holds exactly these bids."""

    async def held() -> bool:
        last = await values.all_last()
        return {symbol: update["bid_price"] for symbol, update in last.items()} == bids

    await until(held, f"{bids}")


async def all_agrees(daemon: Rig) -> None:
    """Wait until the daemon works as a leader, says so everywhere, and Redis agrees."""
    await until(daemon.works, "a leader at work")

    async def agrees() -> bool:
        values, desired = daemon.values, daemon.daemon.demand.get().symbols
        return (
            daemon.works()
            and await values.token() == daemon.daemon.leadership.get().token
            and ((await values.status()) or {}).get("state") == "streaming"
            and await values.live(*desired)
        )

    await until(agrees, "Redis to agree")


# A server that hangs


@pytest.mark.parametrize("key", ["lapsed", "kept"])
async def test_a_leader_leads_again_after_redis_hung_for_longer_than_the_ttl(
    rig: NewRig, server: Server, key: str
) -> None:
    """What it does and what it says agree, and it keeps its prices: nobody else published."""
    async with rig(**SHORT) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await daemon.quote("QQQ", 20)
        await stored(daemon.values, SPY=10, QQQ=20)
        if key == "kept":
            with server.client() as client:
                client.persist(KEYS.leader)
        with frozen(server):
            daemon.daemon.prices.receive([Quote("SPY", 11.0, 11.02, datetime.now(UTC))])
            await given_up(daemon)
            assert daemon.status["state"] == "standby"
            assert daemon.metric("spotd_leader") == 0.0
            assert daemon.daemon.not_ready() != []
        await all_agrees(daemon)
        await stored(daemon.values, SPY=11, QQQ=20)
        leadership = daemon.daemon.leadership.get()
        assert leadership.term >= 2
        assert leadership.reign == 0
        await daemon.quote("QQQ", 21)
        await stored(daemon.values, SPY=11, QQQ=21)
        await until(lambda: heard.bids("QQQ")[-1:] == [21], "the newest price")
        assert set(heard.bids("SPY")) == {10, 11}
        heard.check_order()


async def test_a_daemon_leads_that_was_started_while_redis_hung(
    rig: NewRig, server: Server
) -> None:
    """Redis took a request that was given up, so what it says first is "renewed"."""
    async with rig(**SHORT) as before:
        await before.want("SPY", "QQQ")
        await before.quote("QQQ", 20)
        await stored(before.values, QQQ=20)
    server.freeze()
    async with rig(**SHORT, leads=False) as daemon:
        await given_up(daemon)
        assert daemon.status["state"] == "starting"
        assert daemon.daemon.not_ready() != []
        server.thaw()
        await all_agrees(daemon)
        await daemon.quote("SPY", 10)
        await stored(daemon.values, SPY=10, QQQ=20)


async def only_one_works(first: Rig, second: Rig) -> Rig:
    """Wait until one leads and the other one stands by. Return the leader."""

    def leader() -> Rig | None:
        for one, other in ((first, second), (second, first)):
            if one.works() and other.stands_by():
                return one
        return None

    found: Rig | None = await until(leader, "one leader and one standby")
    assert found is not None
    return found


async def test_of_two_daemons_one_leads_after_redis_hung_for_longer_than_the_ttl(
    rig: NewRig, server: Server
) -> None:
    """The other one says that it stands by, and ``spotd:last`` is complete."""
    async with (
        rig(**SHORT) as first,
        rig(**SHORT, leads=False) as second,
        Recorder(server.url) as heard,
    ):
        await first.want("SPY", "QQQ")
        await first.quote("SPY", 10)
        await first.quote("QQQ", 20)
        await stored(first.values, SPY=10, QQQ=20)
        await until(second.stands_by, "the standby")
        with frozen(server):
            await given_up(first, second)
        leader = await only_one_works(first, second)
        await stored(first.values, SPY=10, QQQ=20)
        await leader.quote("SPY", 11)
        await stored(first.values, SPY=11, QQQ=20)
        assert await only_one_works(first, second) is leader
        heard.check_order()


async def test_of_two_daemons_that_were_started_while_redis_hung_one_leads(
    rig: NewRig, server: Server
) -> None:
    """The other one says that it stands by."""
    async with rig(**SHORT) as before:
        await before.want("SPY")
    server.freeze()
    async with (
        rig(**SHORT, leads=False) as first,
        rig(**SHORT, leads=False) as second,
    ):
        await given_up(first, second)
        server.thaw()
        leader = await only_one_works(first, second)
        await leader.quote("SPY", 10)
        await stored(first.values, SPY=10)


# Two daemons


async def test_a_standby_opens_no_stream_and_takes_over_from_one_that_stops(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """The key is released: nobody waits until it lapses. ``seq`` rises over the hand-over."""
    ttl = {"leader_ttl_s": LONG_TTL_S}
    async with (
        rig(**ttl) as first,
        rig(leads=False, **ttl) as second,
        Recorder(server.url) as heard,
    ):
        await first.want("SPY", "QQQ")
        await first.quote("SPY", 10)
        await first.quote("QQQ", 20)
        await stored(first.values, SPY=10, QQQ=20)
        await until(second.stands_by, "the standby")
        assert len(sim.received.of("connect")) == 1
        assert await first.stop() == 0
        await all_agrees(second)
        await second.quote("SPY", 11)
        await stored(second.values, SPY=11, QQQ=20)
        await until(lambda: len(heard.bids("SPY")) == 2, "the successor's price")
        heard.check_order()


async def test_the_throttle_holds_over_a_hand_over(rig: NewRig, server: Server) -> None:
    """The first update of a new leader is a window away from the last one of the leader before."""
    window_ms = 2_000  # much longer than a hand-over takes
    async with (
        rig(throttle_ms=window_ms) as first,
        rig(throttle_ms=window_ms, leads=False) as second,
        Recorder(server.url) as heard,
    ):
        await first.want("SPY")
        await first.quote("SPY", 10)
        await until(lambda: heard.bids("SPY") == [10], "the last update of the first")
        assert await first.stop() == 0
        await until(lambda: second.active == {"SPY"}, "the second to stream")
        await second.quote("SPY", 11)
        await until(lambda: heard.bids("SPY")[1:], "the first update of the second")

        before, after = heard.seqs("SPY")
        assert heard.bids("SPY") == [10, 11]
        # A seq is the publisher's wall clock in microseconds, and a window is monotonic.
        assert after - before >= 1000 * window_ms - 1_000


async def test_a_standby_of_another_feed_says_so_once(rig: NewRig) -> None:
    """With the same prefixes it would publish another feed's prices after a fail-over."""
    with structlog.testing.capture_logs() as lines:
        async with rig(feed="sip"):
            for feed in ("iex", "sip"):
                async with rig(feed=feed, leads=False) as standby:
                    await until(standby.stands_by, "the standby")
    told = [line for line in lines if "the leader streams another feed" in line["event"]]
    assert [(line["feed"], line["feed_of_leader"]) for line in told] == [("iex", "sip")]


# A key that is not ours any more


async def test_a_server_that_was_emptied_is_written_anew_over_the_same_stream(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """A write finds out that the key vanished. Nobody else leads, so the session goes on."""
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon, Recorder(server.url) as heard:
            await daemon.want("SPY", "QQQ")
            await daemon.quote("SPY", 10)
            await daemon.quote("QQQ", 20)
            await stored(daemon.values, SPY=10, QQQ=20)
            await all_agrees(daemon)
            sessions = [session.id for session in sim.sessions]
            token = daemon.daemon.leadership.get().token
            with server.client() as client, client.pipeline(transaction=True) as at_once:
                at_once.flushall().sadd(KEYS.symbols, "SPY", "QQQ").execute()
            await daemon.quote("SPY", 11)
            await all_agrees(daemon)
            await stored(daemon.values, SPY=11, QQQ=20)
            assert [session.id for session in sim.sessions] == sessions
            leadership = daemon.daemon.leadership.get()
            assert (leadership.term, leadership.reign, leadership.token) == (2, 0, token)
            heard.check_order()
    assert logged(lines, "not leading any more") == []
    assert len(logged(lines, "connecting")) == 1


async def test_anothers_key_ends_the_stream_and_the_prices_are_forgotten(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """A write finds it out. When the other has left, only what came in since is published."""
    ahead = int((time.time() + 60) * 1_000_000)
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await daemon.quote("QQQ", 20)
        await stored(daemon.values, SPY=10, QQQ=20)
        with server.client() as client:
            client.set(KEYS.leader, OTHER, px=600_000)
            client.set(KEYS.seq, f"{ahead} {OTHER}")
        await sim.send([quote("SPY", 11)])
        await until(daemon.stands_by, "the standby")
        await until(lambda: not sim.sessions, "the session to end")
        [close] = sim.received.of("close")
        assert close.data is not None
        assert all(slot.quoted_at is None for slot in daemon.daemon.prices.cache.slots.values())
        with server.client() as client:
            client.delete(KEYS.leader)
        await all_agrees(daemon)
        leadership = daemon.daemon.leadership.get()
        assert (leadership.term, leadership.reign) == (2, 1)
        await daemon.quote("QQQ", 21)
        await stored(daemon.values, SPY=10, QQQ=21)
        await until(lambda: heard.bids("QQQ") == [20, 21], "the new price")
        assert heard.bids("SPY") == [10]
        assert heard.seqs("QQQ")[-1] > ahead


async def test_a_reign_that_rises_ends_the_session_and_fetches_all_anew(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Another took the key that vanished, published and left before we asked."""
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await daemon.quote("QQQ", 20)
        await stored(daemon.values, SPY=10, QQQ=20)
        seq = int(time.time() * 1_000_000)
        newer = datetime.now(UTC) + timedelta(seconds=1)
        theirs = spot_price("SPY", 99.0, 99.02, None, newer, seq)
        with server.client() as client, client.pipeline(transaction=True) as at_once:
            at_once.delete(KEYS.leader)
            at_once.hset(KEYS.last, "SPY", theirs.to_json())
            at_once.set(KEYS.seq, f"{seq} {OTHER}").execute()
        fetched = len(sim.received.of("rest"))
        async with Recorder(server.url) as heard:
            await sim.send([quote("QQQ", 21)])
            await until(lambda: daemon.daemon.leadership.get().reign == 1, "the reign to rise")
            await until(lambda: len(sim.received.of("connect")) == 2, "another session")
            await until(lambda: heard.bids("QQQ")[-1:] == [21], "the price that was fetched")
            await all_agrees(daemon)
            assert [close.data for close in sim.received.of("close")] == [1000]
            assert not daemon.daemon.metrics.reconnects
            asked = " ".join(str(each.data) for each in sim.received.of("rest")[fetched:])
            assert "SPY" in asked
            assert "QQQ" in asked
            # What was fetched of SPY is older than what the other one published.
            await stored(daemon.values, SPY=99, QQQ=21)
            assert heard.bids("SPY") == []


# A daemon that froze


@pytest.mark.parametrize("left", [False, True], ids=["another leads", "another led and left"])
async def test_a_leader_that_froze_and_woke_writes_nothing(
    rig: NewRig, server: Server, left: bool
) -> None:
    """Its loops run before the timer that ends its right, and each of them reads the clock.

    It froze with a price to publish, a field to drop and a state to write. None of them reaches
    Redis, nor does anything of them later.
    """
    async with rig(leader_ttl_s=TTL_S) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 10)
        await stored(daemon.values, SPY=10)
        await all_agrees(daemon)
        token = daemon.daemon.leadership.get().token
        with server.client() as client:
            # All in one turn of the event loop, so no loop of the daemon runs meanwhile.
            prices, now = daemon.daemon.prices, datetime.now(UTC)
            # The first is sent at once, by right; the second waits for the answer to it.
            prices.receive([Quote("SPY", 11.0, 11.02, now)])
            prices.receive([Quote("SPY", 12.0, 12.02, now), TradingStatus("QQQ", "T1", "C")])
            prices.drop_stored(["IWM"])
            time.sleep(1.2 * TTL_S)  # noqa: ASYNC251 - the process was frozen
            assert client.set(KEYS.leader, OTHER, px=600_000, nx=True)
            client.sadd(KEYS.symbols, "IWM")
            for symbol, bid in (("SPY", 20.0), ("IWM", 30.0)):
                client.hset(KEYS.last, symbol, update_of(symbol, bid=bid).to_json())
            client.set(KEYS.seq, f"{int(time.time() * 1_000_000)} {OTHER}")
            if left:
                client.delete(KEYS.leader)
            with commands(server) as seen:
                await until(daemon.works if left else daemon.stands_by, "it to find out")
            assert [command for command in seen if f"{KEYS.leader} {KEYS.seq} " in command]
            written = [c for c in seen if any(f"{key} {token}" in c for key in WRITTEN)]
            assert [c for c in written if '"bid_price":11.0' not in c] == []
            if not left:
                client.delete(KEYS.leader)
        await all_agrees(daemon)
        assert daemon.daemon.leadership.get().reign == 1
        await daemon.quote("QQQ", 40)
        await stored(daemon.values, SPY=20, IWM=30, QQQ=40)
        assert heard.bids("SPY") == [10, 11]


WRITTEN = (KEYS.last, f"{KEYS.last} {KEYS.seq}", KEYS.states, KEYS.status)


# seq


async def test_seq_rises_over_restarts_and_a_clock_that_was_set_back(
    rig: NewRig, server: Server
) -> None:
    """A stored seq ahead of the wall clock is where the next leader begins."""
    ahead = int((time.time() + 3_600) * 1_000_000)
    with server.client() as client:
        client.set(KEYS.seq, f"{ahead} before:1")
    async with Recorder(server.url) as heard:
        for life in (1, 2):
            async with rig(leader_ttl_s=TTL_S) as daemon:
                await daemon.want("SPY")
                await daemon.quote("SPY", life)
                await stored(daemon.values, SPY=life)
        await until(lambda: heard.bids("SPY") == [1, 2], "all updates")
        heard.check_order()
        assert heard.seqs("SPY")[0] > ahead


async def test_a_seq_that_was_raised_by_hand_is_stepped_over(rig: NewRig, server: Server) -> None:
    """Redis refuses the batch. The leader asks for its key, learns the seq and goes on."""
    async with rig() as daemon:
        await daemon.want("SPY")
        ahead = int((time.time() + 60) * 1_000_000)
        with server.client() as client:
            client.set(KEYS.seq, ahead)
        await daemon.quote("SPY", 12)
        await stored(daemon.values, SPY=12)
        last = await daemon.values.last("SPY")
        assert last is not None
        assert last["seq"] > ahead
        assert daemon.daemon.leadership.get().term == 1
