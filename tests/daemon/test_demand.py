"""Demand as services write it, well and badly, until Alpaca is asked for it and Redis shows it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from string import ascii_uppercase
from typing import Any

import pytest
import redis.asyncio as aioredis
import structlog
from pydantic import SecretStr

from spotd.core.channels import ChannelMonitor, Channels
from spotd.core.demand import (
    MAX_LEAVERS,
    MAX_REFUSED_SHOWN,
    PROMPT_UP_TO,
    Demand,
    DemandStep,
)
from spotd.core.freshness import Silence
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.states import StreamState
from spotd.core.subscriptions import MAX_SYMBOLS_PER_REQUEST
from spotd.daemon.channels import ChannelLoop
from spotd.daemon.demand import DemandLoop
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value
from spotd.keys import Keys
from spotd.ops.metrics import Metrics
from spotd.redis.demand import SCAN_COUNT
from spotd.redis.port import SCAN_ABOVE
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, logged
from tests.kit.recorder import Recorder
from tests.kit.redis_port import patient
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.values import Values
from tests.kit.waiting import until

NEVER = float("inf")
# 1,664 symbols: several requests to Alpaca, and read by one call, so in one piece.
MANY = [f"{a}{b}{c}X" for a in "ABCDEFGH" for b in ascii_uppercase for c in "PQRSTUVW"]
assert MAX_SYMBOLS_PER_REQUEST * 3 < len(MANY) < SCAN_ABOVE


def desired(daemon: Rig) -> frozenset[str]:
    """Return what the daemon knows to be desired."""
    return daemon.daemon.demand.get().symbols


async def asks_for(daemon: Rig, *symbols: str) -> None:
    """Wait until exactly these are desired and active."""
    expected = frozenset(symbols)
    await until(
        lambda: desired(daemon) == daemon.active == expected, f"{len(expected)} symbols, active"
    )


async def forgotten(daemon: Rig, symbol: str) -> None:
    """Wait until neither price nor state of a symbol is left."""
    await until(lambda: daemon.values.forgotten(symbol), f"{symbol} to be forgotten")


async def prices_flow(daemon: Rig, symbol: str, bid: float) -> None:
    """Have Alpaca send a quote, and wait until it is published."""
    await daemon.quote(symbol, bid)
    await until(lambda: daemon.values.has(symbol, bid), f"a price of {symbol}")


# One demand from several sources


async def test_the_demand_is_the_set_and_the_leases(rig: NewRig) -> None:
    """A change is noticed without a message, and a symbol is desired until no source names it."""
    async with rig() as daemon:
        values = daemon.values
        await values.want(" spy ", wake=False)
        await asks_for(daemon, "SPY")
        await values.lease("spy@a", "QQQ@a", for_s=600, wake=False)
        await asks_for(daemon, "SPY", "QQQ")
        await values.unwant(" spy ", wake=False)
        await values.redis.zrem(values.keys.leases, "QQQ@a")
        await asks_for(daemon, "SPY")
        await values.redis.zrem(values.keys.leases, "spy@a")
        await asks_for(daemon)


async def test_a_lease_that_lapses_ends_the_demand(rig: NewRig) -> None:
    """A lapsed lease is removed, and so are price and state of its symbol; a renewed one stays."""
    async with rig() as daemon:
        await daemon.values.lease("SPY@dead", "QQQ@alive", for_s=600)
        await asks_for(daemon, "SPY", "QQQ")
        await prices_flow(daemon, "SPY", 1.0)
        await daemon.values.lease("SPY@dead", "QQQ@alive", for_s=0.8)
        await daemon.values.lease("QQQ@alive", for_s=600)
        await asks_for(daemon, "QQQ")
        await forgotten(daemon, "SPY")
        assert (await daemon.values.leases()).keys() == {"QQQ@alive"}


@pytest.mark.parametrize("wrong_s", [3_600.0, -3_600.0])
async def test_a_clock_of_ours_that_jumps_ends_no_lease(
    rig: NewRig, monkeypatch: pytest.MonkeyPatch, wrong_s: float
) -> None:
    """Redis' clock decides alone: what lives stays, what has lapsed goes and is counted."""
    real = time.time
    async with rig() as daemon:
        leases = daemon.settings.keys.leases
        await daemon.values.redis.zadd(leases, {"SPY@alive": real() + 600})
        await asks_for(daemon, "SPY")
        monkeypatch.setattr(time, "time", lambda: real() + wrong_s)
        await daemon.values.redis.zadd(leases, {"QQQ@alive": real() + 600, "IWM@slow": real() - 10})
        await asks_for(daemon, "SPY", "QQQ")
        await until(
            lambda: daemon.metric('spotd_doubtful_leases_total{kind="lapsed"}') == 1, "1 lapsed"
        )
        assert (await daemon.values.leases()).keys() == {"SPY@alive", "QQQ@alive"}


async def test_a_doubtful_lease_is_counted_and_logged_once_per_owner(rig: NewRig) -> None:
    """Milliseconds and infinity are heeded; a lease that had lapsed before it came demands nothing.

    What lapsed before this daemon led is no doubt.
    """
    now_s = time.time()
    async with rig() as daemon:
        leases = daemon.settings.keys.leases
        with structlog.testing.capture_logs() as lines:
            far = {"SPY@js": now_s * 1000, "QQQ@js": now_s * 1000, "IWM@eternal": NEVER}
            await daemon.values.redis.zadd(leases, far)
            await asks_for(daemon, "SPY", "QQQ", "IWM")
            await daemon.values.redis.zadd(leases, {"DIA@slow": 1.0, "GLD@slow": now_s - 60})
            await until(
                lambda: daemon.metric('spotd_doubtful_leases_total{kind="lapsed"}') == 2, "2 lapsed"
            )
            await until(
                lambda: daemon.metric('spotd_doubtful_leases_total{kind="far"}') == 3, "3 far"
            )
        told = [line["owner"] for line in lines if "unix time in seconds?" in line["event"]]
        assert sorted(told) == ["eternal", "js", "slow"]
        assert desired(daemon) == {"SPY", "QQQ", "IWM"}
        assert (await daemon.values.leases()).keys() == far.keys()
        await daemon.values.redis.zadd(leases, {"DIA@slow": 1.0})
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            await asks_for(daemon, "SPY", "QQQ", "IWM")
            assert daemon.metric('spotd_doubtful_leases_total{kind="lapsed"}') == 0


async def test_a_removed_symbol_leaves_no_trace(rig: NewRig, sim: Simulator) -> None:
    """A quote that comes after its end brings nothing back, and the others keep their prices."""
    sim.faults.late_data_s = 600
    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")
        await prices_flow(daemon, "SPY", 1.0)
        await prices_flow(daemon, "QQQ", 1.0)
        await daemon.values.unwant("SPY")
        await asks_for(daemon, "QQQ")
        await forgotten(daemon, "SPY")
        await daemon.quote("SPY", 2.0)
        await prices_flow(daemon, "QQQ", 2.0)
        await until(lambda: daemon.values.live("QQQ"), "QQQ to be live")
        assert (await daemon.values.all_last()).keys() == {"QQQ"}
        assert (await daemon.values.states()).keys() == {"QQQ"}


async def test_a_demand_that_changes_in_another_s_term_is_met(rig: NewRig) -> None:
    """The daemon reads the demand anew in each term, also where it has read it in one before."""
    async with rig() as daemon:
        values = daemon.values
        await daemon.want("SPY", "QQQ")
        await prices_flow(daemon, "SPY", 1.0)
        await values.redis.set(values.keys.leader, "other:1", px=600_000)
        await until(lambda: not daemon.leads(), "the end of the term")
        await values.unwant("SPY")
        await values.want("IWM")
        await values.redis.delete(values.keys.leader)
        await asks_for(daemon, "QQQ", "IWM")
        await forgotten(daemon, "SPY")


# What it may hold


@pytest.mark.parametrize(
    ("source", "command"), [("symbols", ("SET", "x")), ("leases", ("HSET", "SPY", "1"))]
)
async def test_a_key_of_the_wrong_type_disturbs_nothing(
    rig: NewRig, source: str, command: Sequence[str]
) -> None:
    """The unreadable source's demand stands, the other source works, and the status says why."""
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            values = daemon.values
            await values.want("SPY")
            await values.lease("DIA@me", for_s=600)
            await asks_for(daemon, "SPY", "DIA")
            name = getattr(values.keys, source)
            async with values.redis.pipeline(transaction=True) as both:
                await both.delete(name).execute_command(command[0], name, *command[1:])
                await both.execute()
            await until(lambda: logged(lines, "cannot read a source of the demand"), "the report")
            if source == "symbols":
                await values.lease("IWM@me", for_s=600)
            else:
                await values.want("IWM")
            await asks_for(daemon, "SPY", "DIA", "IWM")
            await prices_flow(daemon, "SPY", 1.0)
            assert daemon.daemon.health.get().away is None
            assert name in daemon.status["reason"]
            [reason] = daemon.daemon.not_ready()
            assert reason.startswith(f"demand_unreadable: cannot read the demand in {source}: ")
            await values.redis.delete(name)
            await asks_for(daemon, "DIA" if source == "symbols" else "SPY", "IWM")
            await until(lambda: daemon.status["reason"] is None, "no reason any more")
    [reported] = logged(lines, "cannot read a source of the demand")
    assert name in reported["why"]
    assert len(logged(lines, "can read the source of the demand again")) == 1


async def test_a_new_leader_that_cannot_read_the_demand_removes_nothing(
    rig: NewRig, server: Server
) -> None:
    """What a predecessor left is wanted by somebody until the demand says otherwise."""
    async with rig() as before:
        await before.want("SPY", "QQQ")
        await prices_flow(before, "SPY", 1.0)
        await prices_flow(before, "QQQ", 1.0)
        await before.stop()
        await before.values.redis.rename(before.values.keys.symbols, "aside")
        await before.values.redis.set(before.values.keys.symbols, "of the wrong type")
    async with rig() as daemon:
        values = daemon.values
        await values.lease("DIA@me", for_s=600)
        await until(lambda: values.live("DIA"), "the states to be written")
        assert set(await values.all_last()) == {"SPY", "QQQ"}
        assert {"SPY", "QQQ"} <= (await values.states()).keys()
        await values.redis.rename("aside", values.keys.symbols)
        await values.unwant("QQQ")
        await until(lambda: values.forgotten("QQQ"), "what nobody wants to be removed")
        assert "SPY" in await values.all_last()
        assert daemon.daemon.not_ready() == []


async def test_entries_that_name_no_symbol_are_refused(rig: NewRig) -> None:
    """Each is shown under what was written, cut at 64 characters, and disturbs no other."""
    async with rig() as daemon:
        values = daemon.values
        await values.redis.sadd(
            values.keys.symbols, b"\xff\xfe", b"", "ÄÖ".encode(), b"x" * 100_000, b"*", b"\x00"
        )
        await values.redis.zadd(values.keys.leases, {b"n-o@\xff": NEVER})
        await daemon.want("SPY")
        await prices_flow(daemon, "SPY", 1.0)

        async def shown() -> bool:
            states = await values.states()
            return len(states) == 8 and states["SPY"]["reason"] is None  # its first quote came

        await until(shown, "all entries to be shown")
        states = await values.states()
        assert {name: state["reason"] for name, state in states.items()} == {
            "SPY": None,
            "\\xff\\xfe": "invalid_symbol",
            "": "invalid_symbol",
            "ÄÖ": "invalid_symbol",
            "x" * 64: "invalid_symbol",
            "*": "wildcard_not_allowed",
            "\x00": "invalid_symbol",
            "n-o@\\xff": "invalid_symbol",
        }
        assert daemon.status["symbols"]["refused"] == 7


async def test_more_garbage_than_the_contract_allows_for_is_a_reason(rig: NewRig) -> None:
    """The daemon streams and is ready; the reason goes when the garbage does."""
    garbage = [f"garbage-{n}" for n in range(PROMPT_UP_TO + 1)]
    async with rig() as daemon:
        await daemon.want("SPY")
        await daemon.values.want(*garbage)
        await until(lambda: daemon.status["code"] == "demand_crowded", "the reason")
        assert daemon.status["state"] == "streaming"
        assert daemon.daemon.not_ready() == []
        await daemon.want("QQQ")
        await daemon.values.unwant(garbage[0])
        await until(lambda: daemon.status["reason"] is None, "the reason to go")


async def test_very_much_garbage_disturbs_nothing(rig: NewRig) -> None:
    """Of very many bad entries all are counted, 1,000 are shown, and prices go on."""
    garbage = [f"garbage-{n}" for n in range(5_000)]
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            values = daemon.values
            await daemon.want("SPY")
            await values.want(*garbage)
            await until(lambda: daemon.status["symbols"]["refused"] == len(garbage), "the count")
            await prices_flow(daemon, "SPY", 1.0)

            async def shown() -> bool:
                return len(await values.states()) == MAX_REFUSED_SHOWN + 1

            await until(shown, "1,000 to be shown")
            await until(lambda: values.live("SPY"), "SPY to be live")
            await values.unwant(*garbage)

            async def clean() -> bool:
                return set(await values.states()) == {"SPY"}

            await until(clean, "the refused to go")
    counts = [line["count"] for line in logged(lines, "entries of the demand are refused")]
    assert (max(counts), counts[-1]) == (len(garbage), 0)
    assert len(counts) <= 4  # a read that overlaps a change may find a part of it


async def test_the_wildcard_is_refused_unless_it_is_allowed(rig: NewRig) -> None:
    """The wildcard is refused by default, and only the named symbols are asked for."""
    async with rig() as daemon:
        await daemon.values.want("*")
        await daemon.want("SPY")

        async def refused() -> bool:
            return await daemon.values.state("*") == "refused"

        await until(refused, "the refusal")
        assert daemon.active == {"SPY"}


async def test_what_the_whole_market_brought_leaves_with_it(rig: NewRig) -> None:
    """Every symbol that comes is published; after the end only named ones keep their prices."""
    async with rig(allow_wildcard=True) as daemon:
        await daemon.want("*")
        for symbol in ("SPY", "ANY", MANY[0]):
            await prices_flow(daemon, symbol, 1.0)
        await daemon.values.want("SPY")
        await until(lambda: "SPY" in desired(daemon), "SPY to be desired")
        await daemon.values.unwant("*")
        await asks_for(daemon, "SPY")

        async def left() -> bool:
            return set(await daemon.values.all_last()) == {"SPY"}

        await until(left, "the prices of all others to go")
        assert daemon.daemon.prices.cache.slots.keys() == {"SPY"}


async def test_what_a_predecessor_published_leaves_with_the_whole_market(
    rig: NewRig, server: Server
) -> None:
    """A price that was only stored goes too: no message of its symbol came in this term."""
    with server.client() as client:
        client.sadd("spotd:symbols", "*", "SPY")
        for symbol in ("SPY", "OLD"):
            client.hset("spotd:last", symbol, "not JSON")
    async with rig(allow_wildcard=True) as daemon:
        await until(lambda: "*" in daemon.active, "the whole market")
        await prices_flow(daemon, "ANY", 1.0)
        await until(lambda: daemon.values.live("SPY"), "the stored names to be read")
        assert await daemon.values.raw_last("OLD") is not None
        await daemon.values.unwant("*")
        await asks_for(daemon, "SPY")

        async def left() -> bool:
            return bool(await daemon.values.redis.hkeys(daemon.values.keys.last) == ["SPY"])

        await until(left, "the prices of all others to go")


# Subscribers


@asynccontextmanager
async def subscribed(
    server: Server, *channels: str, patterns: Sequence[str] = ()
) -> AsyncIterator[None]:
    """Have somebody subscribed to these channels, and to what matches these patterns."""
    async with aioredis.Redis.from_url(server.url) as client, client.pubsub() as pubsub:
        await pubsub.subscribe(*channels)
        if patterns:
            await pubsub.psubscribe(*patterns)
        for _ in (*channels, *patterns):
            assert await pubsub.get_message(timeout=30.0) is not None
        yield


async def test_a_subscriber_is_demand_until_it_leaves(rig: NewRig, server: Server) -> None:
    """A plain SUBSCRIBE counts, a pattern and other channels do not; bad names are refused."""
    async with rig(subscribers_are_demand=True, linger_s=0.1) as daemon:
        async with subscribed(
            server, "spot:SPY", "spot:no-no", "other:QQQ", patterns=["spot:*", "spot:IWM"]
        ):
            await asks_for(daemon, "SPY")
            assert daemon.daemon.demand.get().refused.keys() == {"no-no"}
        await asks_for(daemon)
        assert daemon.daemon.demand.get().refused_count == 0


async def test_a_subscriber_of_a_channel_that_stays_silent_is_told(
    rig: NewRig, server: Server
) -> None:
    """The lower-case channel gets no price, so the symbol is not streamed for it."""
    async with rig(subscribers_are_demand=True, linger_s=0.1) as daemon:
        async with subscribed(server, "spot:ibm"):

            async def told() -> bool:
                return await daemon.values.state("ibm") == "refused"

            await until(told, "the refusal")
            state = (await daemon.values.states())["ibm"]
            assert (state["reason"], state["detail"]) == ("invalid_symbol", "use upper case")
            assert desired(daemon) == frozenset()
        await until(lambda: daemon.values.forgotten("ibm"), "the refusal to end")


async def test_subscribers_are_no_demand_by_default(rig: NewRig, server: Server) -> None:
    """Only what is asked for in the keys counts: a symbol asked for later comes alone."""
    async with rig() as daemon, subscribed(server, "spot:SPY"):
        await daemon.want("QQQ")
        assert desired(daemon) == {"QQQ"}


# Neighbours


async def test_two_daemons_with_other_prefixes_do_not_touch(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """Each leads, publishes and writes states under its own prefixes alone."""
    sim.limits.connections = 2
    async with (
        rig() as one,
        rig(key_prefix="sip:", channel_prefix="sip-price:") as two,
        Recorder(server.url, "spot:*", "sip-price:*") as recorder,
    ):
        await one.want("SPY")
        await two.want("QQQ")
        await prices_flow(one, "SPY", 1.0)
        await prices_flow(two, "QQQ", 2.0)
        for daemon, symbol in ((one, "SPY"), (two, "QQQ")):
            await until(lambda: daemon.values.live(symbol), f"{symbol} to be live")  # noqa: B023
            assert daemon.leads()
            assert (await daemon.values.all_last()).keys() == {symbol}
            assert (await daemon.values.states()).keys() == {symbol}
        await until(lambda: len(recorder.heard) == 2, "both updates")
        assert {heard.channel for heard in recorder.heard} == {"spot:SPY", "sip-price:QQQ"}


# Very much at once


@asynccontextmanager
async def watched(daemon: Rig) -> AsyncIterator[list[int]]:
    """Check in each turn of the event loop that prices fit the demand. Yield the demand's sizes."""
    sizes: list[int] = []

    async def watch() -> None:
        prices, demand = daemon.daemon.prices, daemon.daemon.demand
        while True:
            symbols = demand.get().symbols
            assert prices.cache.slots.keys() <= symbols
            assert prices.dropping.isdisjoint(symbols)
            if not sizes or sizes[-1] != len(symbols):
                sizes.append(len(symbols))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch(), name="watch")
    yield sizes
    watching.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await watching


async def test_a_large_change_leaves_each_turn_complete(rig: NewRig) -> None:
    """Many come in one step and leave in several; no turn of the event loop finds half of one."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await prices_flow(daemon, "SPY", 1.0)
        async with watched(daemon) as sizes:
            await daemon.values.want(*MANY)
            await asks_for(daemon, "SPY", *MANY)
            for symbol in MANY[::100]:
                await daemon.quote(symbol, 1.0)
            await prices_flow(daemon, MANY[-1], 1.0)
            await daemon.values.unwant(*MANY)
            await asks_for(daemon, "SPY")

            async def dropped() -> bool:
                return set(await daemon.values.all_last()) == {"SPY"}

            await until(dropped, "their prices to go")
        left = range(len(MANY), 0, -MAX_LEAVERS)
        assert sizes == [1, *(1 + count for count in left), 1]


def requests_of(sim: Simulator) -> list[list[str]]:
    """Return the symbols of each request for quotes, in order."""
    return [asked["quotes"] for asked in sim.received.messages("subscribe") if asked.get("quotes")]


async def acknowledge(sim: Simulator) -> None:
    """Send the acknowledgement that was held back, and hold back none from now on."""
    sim.faults.ack_silent = False
    active = [symbol for request in requests_of(sim) for symbol in request]
    await sim.send_control({"T": "subscription", "quotes": active, "trades": active})


async def test_a_newcomer_does_not_wait_behind_a_large_change(rig: NewRig, sim: Simulator) -> None:
    """It is asked for next, and what left meanwhile is not asked for at all."""
    async with rig() as daemon:
        await daemon.want("SPY")
        await until(lambda: len(sim.received.messages("subscribe")) == 2, "all requests for SPY")
        sim.faults.ack_silent = True
        await daemon.values.want(*MANY)
        await until(lambda: len(requests_of(sim)) == 2, "the first request of many")
        await daemon.values.want("ZZZ")
        await daemon.values.unwant("SPY", *MANY[1_000:])
        wanted = {"ZZZ", *MANY[:1_000]}
        await until(lambda: desired(daemon) == wanted, "the changes to be read")
        await acknowledge(sim)
        await asks_for(daemon, *wanted)
        assert requests_of(sim)[2][0] == "ZZZ"
        assert not {*MANY[1_000:]}.intersection(*requests_of(sim)[2:])


async def test_with_a_limit_a_newcomer_waits_its_turn(rig: NewRig, sim: Simulator) -> None:
    """With a limit a newcomer waits: else the moment of a message would decide who gets room."""
    async with rig(max_symbols=600) as daemon:
        sim.faults.ack_silent = True
        await daemon.values.want(*MANY[:700])
        await until(lambda: requests_of(sim), "the first request")
        await daemon.values.want("ZZZ")
        await until(lambda: "ZZZ" in desired(daemon), "the newcomer")
        await acknowledge(sim)
        await until(lambda: len(daemon.active) == 600, "all room to be taken")
        assert daemon.active == {*MANY[:600]}


async def test_a_scan_that_ends_early_ends_no_demand(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """A scan that a fail-over cut short finds a part; what really left is noticed all the same."""
    symbols = [f"A{name}" for name in MANY] + [f"B{name}" for name in MANY]
    leased = [f"C{name}" for name in MANY] + [f"D{name}" for name in MANY]
    everything = {*symbols, *leased}
    async with RedisProxy.to(server) as proxy, rig(redis_url=SecretStr(proxy.url)) as daemon:
        values = daemon.values
        await values.want(*symbols)
        await values.lease(*(f"{symbol}@me" for symbol in leased), for_s=600)
        await until(lambda: desired(daemon) == everything, "all to be desired")
        proxy.cuts_scans = True
        async with watched(daemon) as sizes:
            for more_s in range(1, 5):
                seen = proxy.scans_cut
                # A demand of the same digest would not be scanned. A renewal changes that alone.
                await values.lease(f"{leased[0]}@me", for_s=600 + more_s)
                await until(lambda seen=seen: proxy.scans_cut > seen, "a scan")  # type: ignore[misc]
        assert sizes == [len(everything)]
        await values.unwant(*symbols[:700])
        await values.redis.zrem(values.keys.leases, *(f"{symbol}@me" for symbol in leased[:700]))
        rest = everything - {*symbols[:700], *leased[:700]}
        await until(lambda: desired(daemon) == rest, "the removals to be noticed")


# The loop alone


class Alone:
    """The loops of demand and channels without their daemon, and each demand with its step."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.demand = Value(Demand())
        self.leadership = Value(Leadership(term=1, leads=True, publish_until=NEVER))
        self.followed: list[tuple[Demand, DemandStep]] = []
        self.port = patient(url, Keys())
        self.loop = DemandLoop(
            self.port,
            Prices(
                throttle_s=0.0,
                demand=self.demand,
                silence=Silence(),
                metrics=Metrics(),
            ),
            demand=self.demand,
            leadership=self.leadership,
            stream=Value(StreamState()),
            follow=self._follow,
            allow_wildcard=False,
            subscribers_are_demand=False,
            **settings,
        )

        self.channels = ChannelLoop(
            self.port,
            ChannelMonitor(lambda _: True, ttl_s=NEVER),
            channels=Value(Channels()),
            leadership=self.leadership,
            health=Value(RedisHealth()),
            wake_up=self.loop.wake_up,
        )

    def _follow(self, demand: Demand, step: DemandStep) -> None:
        assert self.demand.get() is demand  # the value and what follows from it are one turn
        self.followed.append((demand, step))

    @classmethod
    @asynccontextmanager
    async def run(cls, url: str, **settings: Any) -> AsyncIterator[Alone]:
        """Run the loop, and fail where it ended by itself."""
        alone = cls(url, **settings)
        running = [
            asyncio.create_task(alone.loop.run(), name="demand"),
            asyncio.create_task(alone.channels.run(), name="channels"),
        ]
        try:
            yield alone
            assert not any(task.done() for task in running)
        finally:
            for task in running:
                task.cancel()
            await asyncio.wait(running)
            await alone.port.close()


async def test_a_message_on_the_wake_channel_has_the_demand_read(server: Server) -> None:
    """A loop that never reads by itself finds what a service announced."""
    async with (
        Alone.run(server.url, read_every_s=NEVER) as alone,
        Values(server.url) as values,
    ):
        for wanted in ({"SPY"}, {"SPY", "QQQ"}, {"SPY", "QQQ", "IWM"}):
            await values.want(*wanted, wake=False)

            async def read(wanted: set[str] = wanted) -> bool:
                await values.wake()  # again, as a read that fails is not repeated here
                return alone.demand.get().symbols == wanted

            await until(read, f"{wanted} to be read")


async def test_a_demand_that_did_not_change_is_not_scanned_again(server: Server) -> None:
    """What is new is found all the same, also by a read that follows a scan which ended early.

    What a scan brought is scanned once more: the set may have changed meanwhile, and changed back.
    """
    names = [f"A{name}" for name in MANY] + [f"B{name}" for name in MANY]
    async with RedisProxy.to(server) as proxy, Values(server.url) as values:
        await values.want(*names)

        async def calls(command: str) -> int:
            stats = await values.redis.info("commandstats")
            return int(stats[f"cmdstat_{command}"]["calls"])

        async with Alone.run(proxy.url, read_every_s=0.01) as alone:
            await until(lambda: len(alone.demand.get().symbols) == len(names), "all to be desired")
            read = await calls("evalsha")

            async def read_again() -> bool:
                return await calls("evalsha") > read + 5

            await until(read_again, "the read that takes the digest")
            scanned, read = await calls("sscan"), await calls("evalsha")
            await until(read_again, "reads")
            assert await calls("sscan") == scanned
            once = values.redis.sscan_iter(values.keys.symbols, count=SCAN_COUNT)
            assert {name.decode() async for name in once} == {*names}
            assert scanned == 2 * (await calls("sscan") - scanned)
            proxy.cuts_scans = True
            await values.want("ZZZ")
            await until(lambda: proxy.scans_cut > 1, "scans that end early, one after the other")
            proxy.cuts_scans = False
            await until(lambda: "ZZZ" in alone.demand.get().symbols, "what is new")


async def test_what_was_read_in_an_earlier_term_is_not_applied(server: Server) -> None:
    """Each demand carries the term in which it was read whole, also where the term changes."""
    async with RedisProxy.to(server) as proxy, Values(server.url) as values:
        await values.want("SPY")
        proxy.hold("HVALS")
        async with Alone.run(proxy.url, read_every_s=NEVER) as alone:
            await until(lambda: proxy.held, "the read of the first term to be under way")
            alone.leadership.set(Leadership(term=2, leads=True, publish_until=NEVER))
            proxy.release()
            await until(lambda: alone.demand.get().symbols, "the demand")
        assert [demand.term for demand, _ in alone.followed] == [2]
