"""Prices on their way to Redis, also while it is away: newest wins, nothing known is lost."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from functools import partial

import pytest
import structlog

from spotd.core.messages import Quote
from spotd.core.publishing import BatchSize
from spotd.keys import Keys
from tests.daemon.rig import GIVES_UP_S, LONG_TTL_S, NewRig, Rig, commands, frozen, logged, quote
from tests.daemon.test_leader import TTL_S
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

KEYS = Keys()
MANY = [f"{a}{b}{c}" for a in "ABCDEFGHIJ" for b in "ABCDEFGHIJ" for c in "ABCDEFGHIJ"]


async def heard_last(heard: Recorder, symbol: str, bid: float) -> None:
    """Wait until the newest bid that was heard of a symbol is this one."""
    await until(lambda: heard.bids(symbol)[-1:] == [bid], f"{symbol} at {bid}")


async def refused_again(daemon: Rig, times: int = 8) -> None:
    """Wait until this many more calls to Redis have failed."""
    metrics = daemon.daemon.metrics
    enough = metrics.redis_errors + times
    await until(lambda: metrics.redis_errors >= enough, f"{times} failed calls")


# What is published


async def test_channel_and_last_hold_the_same_bytes(rig: NewRig, server: Server) -> None:
    """A quote of a desired symbol reaches its channel and ``spotd:last``, byte for byte."""
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY")
        await daemon.quote("SPY", 421.35, 421.39)
        await until(lambda: heard.raw("SPY"), "an update")
        assert await daemon.values.raw_last("SPY") == heard.raw("SPY")[0]
        [update] = heard.updates("SPY")
        assert update["mid_price"] == 421.37
        assert update["last_price"] is None
        await until(lambda: daemon.metric("spotd_updates_published_total") == 1, "the count")


async def test_a_thousand_symbols_go_out_each_once(rig: NewRig, server: Server) -> None:
    """They are more than one call holds."""
    assert len(MANY) > BatchSize().limit
    async with rig(throttle_ms=60_000) as daemon, Recorder(server.url) as heard:
        await daemon.want(*MANY)
        await daemon.send(*(quote(symbol, 1) for symbol in MANY))
        await until(lambda: all(heard.of(symbol) for symbol in MANY), "all")
        assert heard.check_order() == len(MANY)
        assert len({seq for symbol in MANY for seq in heard.seqs(symbol)}) == len(MANY)
        assert len(await daemon.values.all_last()) == len(MANY)


async def test_the_newest_of_what_came_in_a_window_goes_out_at_its_end(
    rig: NewRig, server: Server
) -> None:
    """The first at once, then the newest alone; what it replaced is counted."""
    async with rig(throttle_ms=200) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 1)
        await heard_last(heard, "SPY", 1)
        await daemon.send(*(quote("SPY", bid) for bid in range(2, 11)))
        await heard_last(heard, "SPY", 10)
        assert daemon.metric("spotd_quotes_conflated_total") == 8
        # What came later went out, and nothing more of SPY before it.
        await daemon.quote("QQQ", 1)
        await heard_last(heard, "QQQ", 1)
        assert heard.bids("SPY") == [1, 10]


@pytest.mark.parametrize("what", ["last", "states", "status", "seq"])
async def test_a_key_of_ours_that_has_the_wrong_type_is_replaced(
    rig: NewRig, server: Server, what: str
) -> None:
    """Somebody wrote over it: it is what it should be after the next write."""
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1)
        await heard_last(heard, "SPY", 1)
        await until(lambda: daemon.values.live("SPY"), "the states")
        await until(daemon.values.status, "the status")
        key = f"spotd:{what}"
        with server.client() as client:
            right = client.type(key)
            client.pipeline(transaction=True).delete(key).rpush(key, "x").execute()
        await daemon.quote("SPY", 2)
        await daemon.want("QQQ")
        await heard_last(heard, "SPY", 2)

        async def replaced() -> bool:
            return bool(await daemon.values.redis.type(key) == right)

        await until(replaced, f"{key} to be a {right}")
        assert daemon.daemon.health.get().away is None


# Symbols that leave


async def test_a_symbol_that_left_does_not_come_back(rig: NewRig, server: Server) -> None:
    """Its prices come in while it leaves, and calls with them are under way."""
    async with rig() as daemon:
        many = MANY[:300]
        await daemon.want("SPY", *many)
        bid = 1
        sending = True

        async def send() -> None:
            nonlocal bid
            while sending:
                bid += 1
                await daemon.sim.send([quote(symbol, bid) for symbol in ("SPY", *many)])

        source = asyncio.create_task(send())
        try:
            for start in range(0, len(many), 50):
                leaving = many[start : start + 50]
                await until(partial(_has_all, daemon, leaving), "their prices")
                await daemon.values.unwant(*leaving)
                await until(partial(daemon.values.forgotten, *leaving), "them to be forgotten")
        finally:
            sending = False
            await source
        newest = bid + 1
        await daemon.quote("SPY", newest)
        await until(lambda: daemon.values.has("SPY", newest), "the newest price")
        assert list(await daemon.values.all_last()) == ["SPY"]


async def _has_all(daemon: Rig, symbols: list[str]) -> bool:
    return all(await daemon.values.redis.hmget(KEYS.last, symbols))


async def test_a_field_that_redis_refused_to_drop_is_dropped_later(
    rig: NewRig, server: Server
) -> None:
    """A removal is not forgotten, and the prices of others go on meanwhile."""
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.send(quote("SPY", 1), quote("QQQ", 1))
        await heard_last(heard, "SPY", 1)
        with server.client() as client:
            client.execute_command("ACL", "SETUSER", "default", "-hdel")
            await daemon.values.unwant("SPY")
            await refused_again(daemon)
            await daemon.quote("QQQ", 2)
            await heard_last(heard, "QQQ", 2)
            assert await daemon.values.bid("SPY") == 1
            client.execute_command("ACL", "SETUSER", "default", "+hdel")
        await until(lambda: daemon.values.forgotten("SPY"), "the field to be dropped")


async def test_what_came_back_before_it_was_dropped_holds_up_no_price(
    rig: NewRig, server: Server
) -> None:
    """A price that waited for the drop goes out although nothing is to be dropped any more."""
    async with rig(silence_s=3_600.0) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY")
        prices = daemon.daemon.prices
        prices.dropping.add("QQQ")
        prices.receive([Quote("SPY", 1.0, 1.02, datetime.now(UTC))])
        prices.dropping.clear()
        await heard_last(heard, "SPY", 1)


# Redis away


async def test_while_redis_hangs_the_newest_price_waits_once(rig: NewRig, server: Server) -> None:
    """Memory is bounded by the symbols; one call is under way, and the newest price follows it."""
    async with rig() as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1)
        await heard_last(heard, "SPY", 1)
        with frozen(server):
            for bid in range(2, 22):
                await daemon.quote("SPY", bid)
            assert len(daemon.daemon.prices.conflator.ready) <= 1
        await heard_last(heard, "SPY", 21)
        heard.check_order()
        bids = heard.bids("SPY")
        assert bids == sorted(set(bids))
        assert len(bids) <= 3  # one was under way
        assert daemon.metric("spotd_quotes_conflated_total") > 0


@pytest.mark.parametrize("ttl_s", [TTL_S, LONG_TTL_S], ids=["longer than the TTL", "shorter"])
@pytest.mark.parametrize("how", ["kill", "kill and lose all", "hang"])
async def test_the_newest_of_each_symbol_is_there_when_redis_is_back(
    rig: NewRig, server: Server, how: str, ttl_s: float
) -> None:
    """Of what changed meanwhile only the newest goes out; an outage is said once, and its end."""
    symbols = ("SPY", "QQQ", "IWM")
    with structlog.testing.capture_logs() as lines:
        limits = {"leader_ttl_s": ttl_s, "redis_call_s": GIVES_UP_S}
        async with rig(**limits) as daemon, Recorder(server.url) as heard:
            await daemon.want(*symbols)
            await daemon.send(*(quote(symbol, 1) for symbol in symbols))
            await heard_last(heard, "IWM", 1)
            _go_away(server, how)
            prices, now = daemon.daemon.prices, datetime.now(UTC)
            for bid in range(2, 12):
                prices.receive([Quote(symbol, bid, bid + 0.02, now) for symbol in ("SPY", "QQQ")])
                await asyncio.sleep(0)  # the publishing loop may send each of them
            await until(lambda: daemon.daemon.health.get().away, "a failed call")
            if ttl_s == TTL_S:
                await until(lambda: not daemon.leads(), "the term to end")
            _come_back(server, how, symbols)

            async def all_there() -> bool:
                last = await daemon.values.all_last()
                bids = {symbol: update["bid_price"] for symbol, update in last.items()}
                return bids == {"SPY": 11, "QQQ": 11, "IWM": 1} and daemon.works()

            await until(all_there, "the newest prices, and calm")
            await until(lambda: daemon.values.live(*symbols), "live")
            assert heard.bids("SPY") == sorted(heard.bids("SPY"))
            assert heard.bids("IWM")[0] == heard.bids("IWM")[-1] == 1
            heard.check_order()
    assert len(logged(lines, "redis is away")) == 1
    assert len(logged(lines, "redis is back")) == 1


def _go_away(server: Server, how: str) -> None:
    if how == "hang":
        server.freeze()
        return
    with server.client() as client:
        client.save()
    server.kill()


def _come_back(server: Server, how: str, symbols: tuple[str, ...]) -> None:
    if how == "hang":
        server.thaw()
        return
    server.restart(
        lose_data=how == "kill and lose all",
        fill=lambda client: client.sadd(KEYS.symbols, *symbols),
    )


async def test_calls_that_are_given_up_are_followed_by_smaller_ones(
    rig: NewRig, server: Server
) -> None:
    """Their size may have made them slow. Everything goes out with the smaller ones."""
    async with rig(redis_call_s=GIVES_UP_S) as daemon:
        await daemon.want(*MANY)
        with commands(server) as seen:
            with frozen(server):
                await daemon.send(*(quote(symbol, 1) for symbol in MANY))
                ready, limit = daemon.daemon.prices.conflator.ready, BatchSize().limit
                await until(lambda: len(ready) == len(MANY) - limit, "a call to be sent")
                await until(lambda: len(ready) > len(MANY) - limit, "it to be given up")
            await until(lambda: _has_all(daemon, MANY), "all prices")
    calls = [command for command in seen if f"{KEYS.last} {KEYS.seq} " in command]
    # Each call would carry the limit, had none been given up.
    assert min(call.count("mid_price") for call in calls) <= limit / 2


@pytest.mark.parametrize("what", ["channels", "memory"])
async def test_what_redis_refuses_again_and_again_is_said_once(
    rig: NewRig, server: Server, what: str
) -> None:
    """A leader key that is renewed meanwhile does not make it come and go; its end is said too."""
    with structlog.testing.capture_logs() as lines:
        async with rig() as daemon, Recorder(server.url) as heard:
            await daemon.want("SPY")
            await daemon.quote("SPY", 1)
            await heard_last(heard, "SPY", 1)
            with server.client() as client:
                if what == "channels":
                    client.execute_command("ACL", "SETUSER", "default", "resetchannels", "&spotd:*")
                else:
                    client.config_set("maxmemory", 1)
                daemon.daemon.prices.receive([Quote("SPY", 2.0, 2.02, datetime.now(UTC))])
                await refused_again(daemon)
                assert any("redis" in reason for reason in daemon.daemon.not_ready())
                assert daemon.status["state"] in ("waiting", "standby")
                if what == "channels":
                    client.execute_command("ACL", "SETUSER", "default", "allchannels")
                else:
                    client.config_set("maxmemory", 0)
            await until(daemon.works, "calm")
            await heard_last(heard, "SPY", 2)
    event = "redis refuses" if what == "channels" else "redis is away"
    assert len(logged(lines, event)) == 1
    assert len(logged(lines, "redis is back")) == 1


# The end


async def test_what_is_pending_is_published_before_the_end(rig: NewRig, server: Server) -> None:
    """An orderly stop publishes what the throttle held back, and then gives the key away."""
    async with rig(throttle_ms=60_000) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY", "QQQ")
        await daemon.quote("SPY", 1)
        await heard_last(heard, "SPY", 1)
        await daemon.quote("SPY", 2)
        assert await daemon.stop() == 0
        await heard_last(heard, "SPY", 2)
        assert await daemon.values.bid("SPY") == 2
        assert await daemon.values.token() is None
        assert await daemon.values.status() is None


async def test_a_stop_does_not_wait_for_a_redis_that_is_away(rig: NewRig, server: Server) -> None:
    """What could not be published is lost with the daemon."""
    async with rig() as daemon:
        await daemon.want("SPY")
        server.kill()
        await daemon.quote("SPY", 1)
        assert await daemon.stop() == 0
