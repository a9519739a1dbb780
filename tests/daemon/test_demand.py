"""Demand as services write it, well and badly, until the market keeps it and Redis shows it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from string import ascii_uppercase
from typing import Self

import pytest
import redis.asyncio as aioredis
import structlog

from spotd.core.demand import MAX_REFUSED_SHOWN, MAX_SYMBOLS_PER_STEP
from spotd.daemon import demand
from tests.daemon.conftest import NewRig
from tests.daemon.rig import Busy, Ear, Rig, eventually, logged
from tests.kit.servers import Server


@asynccontextmanager
async def subscribed(server: Server, *channels: str, pattern: str = "") -> AsyncIterator[None]:
    """Somebody listens to these channels."""
    async with aioredis.Redis.from_url(server.url) as client, client.pubsub() as pubsub:
        count = len(channels)
        if channels:
            await pubsub.subscribe(*channels)
        if pattern:
            await pubsub.psubscribe(pattern)
            count += 1
        for _ in range(count):
            assert await pubsub.get_message(timeout=5.0) is not None
        yield


async def prices_flow(daemon: Rig, symbol: str = "SPY") -> None:
    """A quote of a desired symbol comes out at once."""
    bid = random.randrange(1, 1_000_000)
    daemon.quote(symbol, bid)

    async def out() -> bool:
        return await daemon.bid(symbol) == bid

    assert await eventually(out, f"a price of {symbol}") < 1.0


# When it is noticed


async def test_a_change_is_noticed_within_a_second_by_itself(rig: NewRig, server: Server) -> None:
    """SADD, ZADD, SREM and ZREM need no wake."""
    async with rig() as daemon:
        await daemon.leads()
        keys = daemon.settings.keys
        await daemon.redis.sadd(keys.symbols, "SPY")
        assert await eventually(lambda: daemon.wanted("SPY"), "SADD") < 1.0
        await daemon.redis.zadd(keys.leases, {"QQQ@me": time.time() + 60})
        assert await eventually(lambda: daemon.wanted("SPY", "QQQ"), "ZADD") < 1.0
        await daemon.redis.srem(keys.symbols, "SPY")
        assert await eventually(lambda: not daemon.wanted("SPY"), "SREM") < 1.0
        await daemon.redis.zrem(keys.leases, "QQQ@me")
        assert await eventually(lambda: not daemon.wanted("QQQ"), "ZREM") < 1.0


async def test_a_wake_is_obeyed_within_100_ms(rig: NewRig) -> None:
    """From the message to a market that keeps the symbol, and to a subscription."""
    async with rig() as daemon:
        await daemon.want("FIRST")
        keys = daemon.settings.keys
        for symbol in ("SPY", "QQQ", "IWM"):
            await daemon.redis.sadd(keys.symbols, symbol)
            await daemon.redis.publish(keys.wake, "anything")

            def subscribed_to(symbol: str = symbol) -> bool:
                return symbol in daemon.shared.subscriptions.active

            took_s = await eventually(subscribed_to, symbol)
            assert took_s < 0.1


async def test_demand_that_was_there_before_is_read_at_once(rig: NewRig, server: Server) -> None:
    """A daemon that begins to lead does not wait for a change."""
    with server.client() as client:
        client.sadd("spotd:symbols", "SPY")
    async with rig() as daemon:
        assert await eventually(lambda: daemon.wanted("SPY"), "the demand") < 1.0


async def test_a_lapsed_lease_ends_the_demand(rig: NewRig) -> None:
    """Who renews keeps it; who died loses it, and its field leaves the hashes."""
    async with rig() as daemon:
        keys = daemon.settings.keys
        await daemon.redis.zadd(
            keys.leases, {"SPY@dead": time.time() + 0.8, "QQQ@alive": time.time() + 0.8}
        )
        await eventually(lambda: daemon.wanted("SPY", "QQQ"), "both")
        await prices_flow(daemon)
        await daemon.redis.zadd(keys.leases, {"QQQ@alive": time.time() + 60})
        assert await eventually(lambda: not daemon.wanted("SPY"), "the lapse") < 2.0
        assert daemon.wanted("QQQ")
        assert await daemon.redis.zrange(keys.leases, 0, -1) == ["QQQ@alive"]

        async def gone() -> bool:
            return await daemon.last("SPY") is None and await daemon.state("SPY") is None

        await eventually(gone, "its fields to go", 1.0)


async def test_one_symbol_from_two_sources_is_wanted_until_both_end(rig: NewRig) -> None:
    """The union counts, however it is written."""
    async with rig() as daemon:
        keys = daemon.settings.keys
        await daemon.redis.zadd(keys.leases, {"spy@a": time.time() + 60})
        await daemon.redis.sadd(keys.symbols, " spy ")
        await eventually(lambda: daemon.shared.demand.symbols == {"SPY"}, "SPY")
        await daemon.redis.srem(keys.symbols, " spy ")
        await daemon.want("QQQ")
        assert daemon.wanted("SPY")
        await daemon.redis.zrem(keys.leases, "spy@a")
        await eventually(lambda: not daemon.wanted("SPY"), "the end")


async def test_a_removed_symbol_leaves_last_and_states(rig: NewRig) -> None:
    """Within a second, and a quote that comes after it brings nothing back."""
    async with rig() as daemon:
        await daemon.want("SPY", "QQQ")
        await prices_flow(daemon, "SPY")
        await prices_flow(daemon, "QQQ")
        await daemon.redis.srem(daemon.settings.keys.symbols, "SPY")

        async def gone() -> bool:
            return await daemon.last("SPY") is None and await daemon.state("SPY") is None

        assert await eventually(gone, "its fields to go") < 1.0
        daemon.quote("SPY", 1)
        await prices_flow(daemon, "QQQ")
        assert await daemon.last("SPY") is None
        assert await daemon.state("QQQ") == "live"


async def test_a_symbol_that_returns_before_it_was_unsubscribed_is_primed(rig: NewRig) -> None:
    """Its price was forgotten, and no acknowledgement will call it new."""
    async with rig(acknowledge=False) as daemon:
        shared = daemon.shared
        await daemon.want("QQQ", "SPY")
        shared.subscriptions.connected()
        shared.subscriptions.acknowledged(["QQQ", "SPY"], [], time.monotonic())
        await daemon.redis.srem(daemon.settings.keys.symbols, "SPY")
        await eventually(lambda: not daemon.wanted("SPY"), "the end")
        assert not shared.to_prime
        await daemon.want("SPY", "IWM")
        assert shared.to_prime == {"SPY"}
        assert shared.facts.ever_active == {"SPY"}
        assert await shared.bells.prime.wait(0.0)


async def test_a_demand_with_something_new_is_not_refused_as_a_whole(rig: NewRig) -> None:
    """Until the stream was asked; with less of the refused it is still refused."""
    async with rig(acknowledge=False) as daemon:
        shared = daemon.shared
        await daemon.want("A", "B")
        shared.subscriptions.connected()
        shared.subscriptions.next_request(time.monotonic())
        shared.subscriptions.acknowledged([], [], time.monotonic())
        shared.facts.all_refused = shared.subscriptions.all_refused()
        await daemon.redis.srem(daemon.settings.keys.symbols, "A")
        await eventually(lambda: not daemon.wanted("A"), "the end")
        assert shared.facts.all_refused
        await daemon.want("C")
        assert not shared.facts.all_refused


# What it may hold


@pytest.mark.parametrize("key", ["symbols", "leases"])
@pytest.mark.parametrize("kind", ["string", "hash"])
async def test_a_key_of_the_wrong_type_disturbs_nothing(rig: NewRig, key: str, kind: str) -> None:
    """Said once; what was wanted stays; the other source works; recovery is said too."""
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon:
            keys = daemon.settings.keys
            await daemon.want("SPY")
            await daemon.redis.zadd(keys.leases, {"DIA@me": time.time() + 60})
            await eventually(lambda: daemon.wanted("SPY", "DIA"), "both")
            name = getattr(keys, key)
            await daemon.redis.delete(name)
            if kind == "string":
                await daemon.redis.set(name, "SPY")
            else:
                await daemon.redis.hset(name, "SPY", "1")
            await eventually(
                lambda: logged(lines, "cannot read a source of the demand"), "the report"
            )
            if key == "symbols":
                await daemon.redis.zadd(keys.leases, {"IWM@me": time.time() + 60})
            else:
                await daemon.redis.sadd(keys.symbols, "IWM")
            await eventually(lambda: daemon.wanted("IWM"), "the other source")
            assert daemon.wanted("SPY", "DIA")
            await prices_flow(daemon)
            assert daemon.shared.facts.redis_error is None
            await daemon.redis.delete(name)
            await eventually(
                lambda: logged(lines, "can read the source of the demand again"), "recovery"
            )
            gone = "SPY" if key == "symbols" else "DIA"
            await eventually(lambda: not daemon.wanted(gone), "the demand to be what is there")
    reported = logged(lines, "cannot read a source of the demand")
    assert len(reported) == 1
    assert name in reported[0]["why"]


async def test_undecodable_and_ill_formed_entries_are_refused(rig: NewRig) -> None:
    """Each under what was written, cut at 64 characters, and none disturbs another."""
    async with rig() as daemon:
        entries = [b"\xff\xfe", b"", b"bad-one", "ÄÖ".encode(), b"x" * 1_000_000, b"*", b"\x00"]
        await daemon.redis.sadd(daemon.settings.keys.symbols, *entries)
        await daemon.redis.zadd(daemon.settings.keys.leases, {b"n-o@\xff": time.time() + 60})
        await daemon.want("SPY")
        await prices_flow(daemon)

        async def all_refused() -> bool:
            states = await daemon.states()
            return len([s for s in states.values() if s["state"] == "refused"]) == 8

        await eventually(all_refused, "all to be refused")
        states = await daemon.states()
        assert states["SPY"]["state"] == "live"
        assert states["\\xff\\xfe"]["reason"] == "invalid_symbol"
        assert states["x" * 64]["symbol"] == "x" * 64
        assert states["*"]["reason"] == "wildcard_not_allowed"
        assert states["n-o@\\xff"]["detail"]
        status = await daemon.status()
        assert status is not None
        assert status["symbols"] == {
            "desired": 1, "live": 1, "refused": 8, "pending": 0, "stale": 0, "halted": 0,
        }  # fmt: skip


async def test_a_hundred_thousand_garbage_entries_disturb_nothing(
    rig: NewRig, server: Server
) -> None:
    """Prices flow, the loop stays free, 1,000 are shown, all are counted, it is said once."""
    with structlog.testing.capture_logs() as lines:
        async with rig(leader_ttl_s=5) as daemon, Ear(server.url, "spotd:events") as ear:
            await daemon.want("SPY")
            with server.client() as client:
                client.sadd("spotd:symbols", *(f"garbage-{n}" for n in range(100_000)))
            async with Busy() as busy:

                async def counted() -> bool:
                    daemon.quote("SPY", random.randrange(1, 100))
                    status = await daemon.status()
                    return status is not None and status["symbols"]["refused"] == 100_000

                await eventually(counted, "all to be counted", 20.0)
                looked_at = time.monotonic()
                while time.monotonic() < looked_at + 1.2:  # two more looks at the same
                    await prices_flow(daemon)
                    await asyncio.sleep(0.05)
            # In one piece of the loop; coverage and neighbours on the machine slow it down.
            assert busy.longest_s < 0.25
            states = await daemon.states()
            assert len(states) == MAX_REFUSED_SHOWN + 1
            assert states["SPY"]["state"] == "live"
            assert len(ear.events("symbol")) <= MAX_REFUSED_SHOWN + 2
            await daemon.want("QQQ")
            await prices_flow(daemon, "QQQ")
            with server.client() as client:
                client.delete("spotd:symbols")
                client.sadd("spotd:symbols", "SPY")

            async def clean() -> bool:
                return set(await daemon.states()) == {"SPY"}

            await eventually(clean, "the refused to go")
    counts = [line["count"] for line in logged(lines, "entries of the demand are refused")]
    # They came, they went; a look in the middle of the DEL may have seen a part.
    assert (counts[0], counts[-1]) == (100_000, 0)
    assert len(counts) <= 3


async def test_the_wildcard_is_refused_unless_allowed(rig: NewRig) -> None:
    """Allowed, every symbol that comes is published on its own channel."""
    async with rig() as daemon:
        await daemon.redis.sadd(daemon.settings.keys.symbols, "*")
        await daemon.want("SPY")
        await eventually(lambda: daemon.shared.demand.refused_count == 1, "the refusal")
        assert daemon.shared.subscriptions.active <= {"SPY"}
        daemon.quote("ANY", 1)
        await prices_flow(daemon)
        assert await daemon.last("ANY") is None
    async with rig(instance="b", allow_wildcard=True) as daemon:
        await eventually(lambda: daemon.shared.subscriptions.active == {"*"}, "the wildcard")
        await prices_flow(daemon, "ANY")
        await prices_flow(daemon, "SPY")


async def test_what_the_whole_market_brought_leaves_with_it(rig: NewRig) -> None:
    """Every symbol that nobody names loses its last price; those named keep it."""
    async with rig(allow_wildcard=True) as daemon:
        await daemon.want("SPY")
        await daemon.redis.sadd(daemon.settings.keys.symbols, "*")
        await eventually(lambda: daemon.shared.subscriptions.active == {"*"}, "the wildcard")
        for symbol in ("SPY", "ANY", "OTHER"):
            await prices_flow(daemon, symbol)
        await daemon.redis.srem(daemon.settings.keys.symbols, "*")

        async def left() -> bool:
            return set(await daemon.redis.hkeys(daemon.settings.keys.last)) == {"SPY"}

        assert await eventually(left, "the discovered ones to go", 3.0) < 1.5


# Subscribers


async def test_a_subscriber_is_demand_and_lingers(rig: NewRig, server: Server) -> None:
    """A plain SUBSCRIBE is enough; after the last one left it counts a while longer."""
    async with rig(subscribers_are_demand=True, linger_s=1.2) as daemon:
        await daemon.leads()
        async with subscribed(server, "spot:SPY", "other:QQQ", pattern="spot:I*"):
            assert await eventually(lambda: daemon.wanted("SPY"), "the subscriber") < 1.0
        left_at = time.monotonic()
        async with subscribed(server, pattern="spot:*"):
            while time.monotonic() < left_at + 1.15:
                assert daemon.wanted("SPY")
                await asyncio.sleep(0.02)
            await eventually(lambda: not daemon.wanted("SPY"), "the end")
            assert time.monotonic() - left_at < 1.2 + 1.5
        assert daemon.shared.demand.symbols == frozenset()
        assert daemon.shared.demand.refused_count == 0


async def test_subscribers_are_no_demand_by_default(rig: NewRig, server: Server) -> None:
    """Only what is asked for in the keys counts."""
    async with rig() as daemon, subscribed(server, "spot:SPY"):
        await daemon.want("QQQ")
        assert daemon.shared.demand.symbols == {"QQQ"}


async def test_an_ill_formed_channel_is_refused(rig: NewRig, server: Server) -> None:
    """As any other entry."""
    async with rig(subscribers_are_demand=True) as daemon, subscribed(server, "spot:no-no"):
        await eventually(lambda: daemon.shared.demand.refused_count == 1, "the refusal")


# Neighbours


async def test_two_daemons_with_other_prefixes_do_not_touch(rig: NewRig, server: Server) -> None:
    """Demand, prices, leases and states of one are nothing to the other."""
    async with (
        rig(instance="one") as one,
        rig(instance="two", key_prefix="sip:", channel_prefix="sip-price:") as two,
        Ear(server.url, "*") as ear,
    ):
        await one.want("SPY")
        await two.want("QQQ")
        await prices_flow(one, "SPY")
        await prices_flow(two, "QQQ")
        one.quote("QQQ", 5)
        two.quote("SPY", 5)
        await prices_flow(one, "SPY")
        await prices_flow(two, "QQQ")
        assert one.shared.leads()
        assert two.shared.leads()
        assert set(await one.redis.hkeys("spotd:last")) == {"SPY"}
        assert set(await one.redis.hkeys("sip:last")) == {"QQQ"}
        assert set(await one.redis.hkeys("spotd:states")) == {"SPY"}
        assert set(await one.redis.hkeys("sip:states")) == {"QQQ"}
        priced = {
            channel for _, channel, _ in ear.heard if "spot:" in channel or "price" in channel
        }
        assert priced == {"spot:SPY", "sip-price:QQQ"}
    with server.client() as client:
        assert client.get("spotd:leader") is None


# Very much at once


class Witness:
    """Looks at a daemon in every turn of its loop: whether all parts agree, and how far it got."""

    def __init__(self, daemon: Rig) -> None:
        self._shared = daemon.shared
        self._task: asyncio.Task[None] | None = None
        self.seen: list[frozenset[str]] = []

    async def __aenter__(self) -> Self:
        """Look from here on."""
        self._task = asyncio.create_task(self._look())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Fail where it saw something torn, or a change larger than a step."""
        assert self._task is not None
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for before, after in pairwise(self.seen):
            assert len(after - before) <= MAX_SYMBOLS_PER_STEP
            assert len(before - after) <= MAX_SYMBOLS_PER_STEP

    async def _look(self) -> None:
        shared = self._shared
        while True:
            symbols = shared.demand.symbols
            assert shared.market.slots.keys() == symbols
            assert shared.subscriptions.desired == symbols
            assert shared.facts.desired == len(symbols)
            assert shared.facts.ever_active <= symbols
            assert shared.to_drop.isdisjoint(symbols)
            if not self.seen or self.seen[-1] != symbols:
                self.seen.append(symbols)
            await asyncio.sleep(0)


async def first_step(daemon: Rig, more_than: int) -> None:
    """Wait for it in every turn of the loop: the next step comes with the next turn."""
    async with asyncio.timeout(5.0):
        while len(daemon.shared.demand.symbols) <= more_than:  # noqa: ASYNC110
            await asyncio.sleep(0)


MANY = [f"{a}{b}{c}X" for a in "ABCDEFGHIJKL" for b in ascii_uppercase for c in "PQRSTUVW"]


async def all_live(daemon: Rig, names: Iterable[str]) -> None:
    """Exactly these are subscribed, and ``spotd:states`` and ``spotd:status`` say so."""
    wanted = set(names)

    async def told() -> bool:
        states = await daemon.states()
        status = await daemon.status() or {"symbols": {}}
        live = {name for name, state in states.items() if state["state"] == "live"}
        counts = status["symbols"]
        return states.keys() == live == wanted and (
            counts["desired"] == counts["live"] == len(wanted)
        )

    await eventually(told, f"{len(wanted)} symbols to be live")
    assert daemon.shared.subscriptions.active == wanted


async def test_a_large_change_goes_in_steps_that_nobody_finds_torn(
    rig: NewRig, server: Server
) -> None:
    """Coming and leaving; the last prices of those that left are gone, those of others are not."""
    async with rig() as daemon, Witness(daemon) as witness:
        await daemon.want("SPY")
        await prices_flow(daemon)
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
        await all_live(daemon, ["SPY", *MANY])
        assert len(witness.seen) > len(MANY) / MAX_SYMBOLS_PER_STEP
        for name in MANY[::100]:
            daemon.quote(name, 1)
        await prices_flow(daemon, MANY[-1])
        with server.client() as client:
            client.srem("spotd:symbols", *MANY)
        await all_live(daemon, ["SPY"])

        async def dropped() -> bool:
            return await daemon.redis.hkeys("spotd:last") == ["SPY"]

        await eventually(dropped, "their prices to go")


async def test_a_demand_that_changes_while_it_is_worked_off_is_met(
    rig: NewRig, server: Server
) -> None:
    """What left in the middle, leaves; what came, comes; what stays is touched once."""
    async with rig() as daemon, Witness(daemon) as witness:
        await daemon.want("SPY")
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
            await first_step(daemon, 1)
            client.srem("spotd:symbols", *MANY[::2])
            client.sadd("spotd:symbols", "QQQ")
        await all_live(daemon, ["SPY", "QQQ", *MANY[1::2]])
        assert all("SPY" in symbols for symbols in witness.seen[2:])


async def test_a_demand_is_met_by_a_daemon_that_lost_its_lease_in_the_middle(
    rig: NewRig, server: Server
) -> None:
    """Or froze: the next look goes on from what was reached."""
    async with rig() as daemon:
        await daemon.leads()
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
            await first_step(daemon, 0)
            await daemon.freeze()
            reached = daemon.shared.demand.symbols
            assert reached < set(MANY)
            client.set("spotd:leader", "another", px=300)
            client.srem("spotd:symbols", min(reached))
        daemon.resume()
        await all_live(daemon, set(MANY) - {min(reached)})


async def test_the_whole_market_leaves_in_steps_too(rig: NewRig, server: Server) -> None:
    """What it brought loses its price, a part at a time; who is named meanwhile keeps it."""
    async with rig(allow_wildcard=True) as daemon:
        await daemon.redis.sadd(daemon.settings.keys.symbols, "*")
        await eventually(lambda: daemon.shared.subscriptions.active == {"*"}, "the wildcard")
        for name in MANY:
            daemon.quote(name, 1)
        await prices_flow(daemon, MANY[-1])
        with server.client() as client, client.pipeline() as both:
            both.srem("spotd:symbols", "*")
            both.sadd("spotd:symbols", *MANY[:900])
            both.execute()
        await all_live(daemon, MANY[:900])

        async def left() -> bool:
            return set(await daemon.redis.hkeys("spotd:last")) == set(MANY[:900])

        await eventually(left, "what nobody names to go")
        assert daemon.shared.market.slots.keys() == set(MANY[:900])


async def test_very_many_leases_are_demand_as_long_as_they_live(
    rig: NewRig, server: Server
) -> None:
    """More than are read at once: none is missed, and those that lapse end."""
    async with rig() as daemon:
        lapses_at = time.time() + 3.0
        with server.client() as client:
            client.zadd("spotd:leases", dict.fromkeys((f"{n}@me" for n in MANY), lapses_at + 60))
            client.zadd("spotd:leases", {"SPY@me": lapses_at})
        await all_live(daemon, ["SPY", *MANY])
        await all_live(daemon, MANY)
        assert time.time() >= lapses_at


async def test_a_scan_that_ends_early_ends_no_demand(
    rig: NewRig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that went on at another server gives a part, and no error; real removals are noticed."""
    leases = [f"L{name}@me" for name in MANY]
    async with rig(leader_ttl_s=5) as daemon:
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
            client.zadd("spotd:leases", dict.fromkeys(leases, time.time() + 60))
        wanted = {*MANY, *(f"L{name}" for name in MANY)}
        await eventually(lambda: daemon.shared.demand.symbols == wanted, "all")
        whole_set, whole_leases = daemon.port.demand_set, daemon.port.live_leases
        looks = 0

        async def part_of_the_set() -> AsyncIterator[Sequence[bytes]]:
            nonlocal looks
            looks += 1
            async for some in whole_set():
                yield some[::2]

        async def part_of_the_leases(unix_s: float) -> list[bytes]:
            return (await whole_leases(unix_s))[::2]

        monkeypatch.setattr(daemon.port, "demand_set", part_of_the_set)
        monkeypatch.setattr(daemon.port, "live_leases", part_of_the_leases)
        async with Witness(daemon) as witness:
            await eventually(lambda: looks >= 3, "some looks")
            assert witness.seen == [wanted]
        with server.client() as client:
            client.srem("spotd:symbols", *MANY[:700])
            client.zrem("spotd:leases", *leases[:700])
        wanted -= {*MANY[:700], *(f"L{name}" for name in MANY[:700])}
        took_s = await eventually(lambda: daemon.shared.demand.symbols == wanted, "the removals")
        assert took_s < 1.0


async def test_a_wake_does_not_wait_for_a_large_change(
    rig: NewRig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is heeded at the next step, and what it brought comes before the rest."""
    monkeypatch.setattr(demand, "_STEP_EVERY_S", 0.1)
    with structlog.testing.capture_logs() as lines:
        async with rig(leader_ttl_s=5) as daemon:
            await daemon.want("SPY")
            with server.client() as client:
                client.sadd("spotd:symbols", *MANY)
                await first_step(daemon, 1)
                client.sadd("spotd:symbols", "ZZZ")
                client.srem("spotd:symbols", "SPY")
                client.publish("spotd:wake", "")

            def subscribed_to() -> bool:
                return "ZZZ" in daemon.shared.subscriptions.active and not daemon.wanted("SPY")

            await eventually(subscribed_to, "the newcomer")
            assert len(daemon.shared.demand.symbols) <= 2 * MAX_SYMBOLS_PER_STEP + 1
            await all_live(daemon, ["ZZZ", *MANY])
    said = [(line["added"], line["removed"]) for line in logged(lines, "the demand changed")]
    assert said == [(1, 0), (len(MANY) + 1, 1)]


async def test_with_a_limit_a_newcomer_waits_its_turn(
    rig: NewRig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it would depend on the moment of a wake who gets room."""
    monkeypatch.setattr(demand, "_STEP_EVERY_S", 0.1)
    async with rig(leader_ttl_s=5, max_symbols=1_000) as daemon:
        await daemon.want("AAAA")
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
            await first_step(daemon, 1)
            client.sadd("spotd:symbols", "ZZZ")
            client.publish("spotd:wake", "")
        await eventually(lambda: daemon.wanted("ZZZ"), "the newcomer")
        assert daemon.wanted(*MANY)
        await eventually(lambda: len(daemon.shared.subscriptions.active) == 1_000, "all room taken")
        assert daemon.shared.subscriptions.active == {"AAAA", *MANY[:999]}


async def test_a_term_begins_with_what_was_published_before_it(
    rig: NewRig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large change of an earlier term is not worked off before that is read."""
    monkeypatch.setattr(demand, "_STEP_EVERY_S", 0.1)
    async with rig() as daemon:
        await daemon.want("SPY")
        shared = daemon.shared
        heeded: list[tuple[int, int]] = []
        heed = shared.market.heed

        def noting(published: Mapping[str, datetime]) -> None:
            heeded.append((shared.term, len(shared.demand.symbols)))
            heed(published)

        monkeypatch.setattr(shared.market, "heed", noting)
        with server.client() as client:
            client.sadd("spotd:symbols", *MANY)
            await first_step(daemon, 1)
            client.set("spotd:leader", "another", px=60)
        shared.bells.leader.ring()
        await all_live(daemon, ["SPY", *MANY])
        assert heeded == [(2, MAX_SYMBOLS_PER_STEP + 1)]


async def test_what_the_whole_market_brought_leaves_whatever_comes_in_between(
    rig: NewRig, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wake does not end it, and what it brought to the demand does not wait for its end."""
    monkeypatch.setattr(demand, "_STEP_EVERY_S", 0.1)
    async with rig(allow_wildcard=True, leader_ttl_s=5) as daemon:
        slots = daemon.shared.market.slots
        await daemon.redis.sadd(daemon.settings.keys.symbols, "*")
        await eventually(lambda: daemon.shared.subscriptions.active == {"*"}, "the wildcard")
        for name in MANY:
            daemon.quote(name, 1)
        await prices_flow(daemon, MANY[-1])
        await daemon.redis.srem(daemon.settings.keys.symbols, "*")
        await eventually(lambda: len(slots) < len(MANY), "some to go")
        await daemon.want("SPY", MANY[-1])
        assert len(slots) > MAX_SYMBOLS_PER_STEP

        async def left() -> bool:
            return set(await daemon.redis.hkeys("spotd:last")) == {MANY[-1]}

        await eventually(left, "what nobody names to go")
        assert slots.keys() == {"SPY", MANY[-1]}
