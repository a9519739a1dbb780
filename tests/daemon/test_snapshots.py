"""New symbols get a price at once, and nothing that REST does disturbs the stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from string import ascii_uppercase
from typing import Any, Self

import pytest
from pydantic import SecretStr

from spotd.alpaca.rest import MAX_SYMBOLS_PER_CALL, Snapshots
from spotd.core.demand import Demand
from spotd.core.freshness import Silence
from spotd.core.leadership import Leadership
from spotd.core.states import StreamState
from spotd.core.subscription_state import SubscriptionState
from spotd.daemon.prices import Prices
from spotd.daemon.snapshots import RetryPolicy, SnapshotLoop
from spotd.daemon.value import Value
from spotd.models import spot_price
from spotd.ops.metrics import Metrics
from spotd.simulator import Simulator
from tests.daemon.rig import NewRig, Rig, quote, trade
from tests.kit.recorder import Recorder
from tests.kit.redis_proxy import RedisProxy
from tests.kit.servers import Server
from tests.kit.stream import settings_for
from tests.kit.waiting import GUARD_S, until
from tests.kit.websocket import answering, tcp_server

WHOLE_MARKET = SubscriptionState(active=frozenset("*"))
MANY = [f"A{a}{b}" for a in ascii_uppercase for b in ascii_uppercase]


def price(prices: Prices, symbol: str) -> tuple[float | None, float | None]:
    """Return bid and last price of a symbol."""
    slot = prices.cache.slots.get(symbol)
    return (None, None) if slot is None or slot.quoted_at is None else (slot.bid, slot.last_price)


async def has(daemon: Rig, symbol: str, bid: float, last_price: float | None = None) -> None:
    """Wait until these values of a symbol are the newest published ones."""

    async def published() -> bool:
        last = await daemon.values.last(symbol) or {"bid_price": None, "last_price": None}
        return (last["bid_price"], last["last_price"]) == (bid, last_price)

    await until(published, f"{symbol} at {bid}, {last_price}")


def asked(sim: Simulator) -> list[list[str]]:
    """Return the symbols of each request to REST."""
    return [
        one.data.partition("symbols=")[2].partition("&")[0].split("%2C")
        for one in sim.received.of("rest")
    ]


# The loop in its daemon


async def test_a_new_symbol_is_published_without_a_quote_of_the_stream(
    rig: NewRig, sim: Simulator
) -> None:
    """The latest quote and trade are published, however old, as when the market is closed."""
    await sim.send([quote("SPY", 1.5), trade("SPY", 1.625)])
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY")
        await has(daemon, "SPY", 1.5, 1.625)
        assert sim.stats.quotes_sent == 0


async def test_a_stream_that_lags_brings_no_older_price_than_the_snapshot(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """The backlog of a stream that is behind is left out until it reaches the snapshot."""
    await sim.send([quote("SPY", 10.0)])
    async with rig(snapshots=True) as daemon, Recorder(server.url) as heard:
        await daemon.want("SPY")
        await has(daemon, "SPY", 10.0)
        now_ns = time.time_ns()
        backlog = [quote("SPY", bid, t=now_ns - int(20e9)) for bid in (7.0, 8.0)]
        await daemon.send(*backlog)
        await daemon.quote("SPY", 11.0)
        await has(daemon, "SPY", 11.0)
        await until(lambda: heard.bids("SPY")[-1:] == [11.0], "the newest price")
        assert heard.bids("SPY") == [10.0, 11.0]
        assert daemon.metric('spotd_quotes_dropped_total{reason="older_than_snapshot"}') == 2


@pytest.mark.parametrize("wanted", [False, True])
async def test_without_a_stream_of_trades_there_is_no_last_price(
    rig: NewRig, sim: Simulator, wanted: bool
) -> None:
    """Trades may be switched off or not on this feed: a last price would never change again."""
    if wanted:
        sim.faults.unavailable_channels.add("trades")
    await sim.send([quote("SPY", 1.5), trade("SPY", 1.625)])
    async with rig(snapshots=True, trades=wanted) as daemon:
        await daemon.want("SPY")
        await has(daemon, "SPY", 1.5, None)


async def test_trades_that_end_take_the_last_price_with_them(rig: NewRig, sim: Simulator) -> None:
    """Where a later session has no trades, null is published in place of the last price."""
    await sim.send([quote("SPY", 1.5), trade("SPY", 1.625)])
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY")
        await has(daemon, "SPY", 1.5, 1.625)
        sim.faults.unavailable_channels.add("trades")
        await sim.drop_sessions("close", 1012)
        await has(daemon, "SPY", 1.5, None)


async def test_a_symbol_is_asked_for_once_a_session(rig: NewRig, sim: Simulator) -> None:
    """Only newly acknowledged symbols are asked for; after an interruption all of them are."""
    async with rig(snapshots=True) as daemon:
        await daemon.want("A", "B")
        await until(lambda: asked(sim) == [["A", "B"]], "both to be asked for")
        await daemon.want("C")
        await until(lambda: asked(sim)[1:] == [["C"]], "the new one to be asked for")
        await daemon.quote("A", 2.0)
        sim.faults.handshake_status = 503
        await sim.drop_sessions("close", 1012)
        await until(lambda: not daemon.active, "the interruption")
        await sim.send([quote("A", 3.0)])  # no session hears it
        sim.faults.handshake_status = 0
        await until(lambda: asked(sim)[2:] == [["A", "B", "C"]], "the gap to be filled")
        await has(daemon, "A", 3.0)


async def test_a_symbol_that_returns_before_it_was_unsubscribed_gets_a_price(
    rig: NewRig, sim: Simulator
) -> None:
    """Its price left with its demand, and no acknowledgement will call it new."""
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY")
        await daemon.quote("SPY", 1.0)
        await has(daemon, "SPY", 1.0)
        await until(lambda: len(sim.received.messages("subscribe")) == 2, "all requests for SPY")
        sim.faults.ack_silent = True  # while a request is under way, no symbol is unsubscribed
        await daemon.values.want("QQQ")
        await until(lambda: len(sim.received.messages("subscribe")) == 3, "QQQ to be asked for")
        await daemon.values.unwant("SPY")
        await until(lambda: daemon.values.forgotten("SPY"), "SPY to be forgotten")
        await daemon.values.want("SPY")
        await has(daemon, "SPY", 1.0)
        assert asked(sim) == [["SPY"], ["SPY"]]
        assert not sim.received.messages("unsubscribe")


async def test_a_snapshot_that_comes_after_the_end_brings_nothing_back(
    rig: NewRig, sim: Simulator
) -> None:
    """The answer for a symbol that is not desired any more is ignored."""
    await sim.send([quote("A", 1.0), quote("B", 1.0)])
    sim.faults.rest_hang = True
    async with rig(snapshots=True) as daemon:
        await daemon.want("A", "B")
        await until(lambda: asked(sim) == [["A", "B"]], "both to be asked for")
        await daemon.values.unwant("A")
        await until(lambda: daemon.active == {"B"}, "A to be unsubscribed")
        sim.faults.rest_hang = False
        await has(daemon, "B", 1.0)
        assert (await daemon.values.all_last()).keys() == {"B"}


async def test_a_hanging_rest_disturbs_neither_the_stream_nor_the_stop(
    rig: NewRig, sim: Simulator
) -> None:
    """Quotes are published, and the daemon stops in order, while a request hangs."""
    sim.faults.rest_hang = True
    async with rig(snapshots=True) as daemon:
        await daemon.want("SPY")
        await until(lambda: asked(sim) == [["SPY"]], "a request")
        for bid in range(1, 20):
            await daemon.quote("SPY", bid)
        await has(daemon, "SPY", 19)
        assert await daemon.stop() == 0
        assert sim.faults.rest_hang


# What was published before


def published(symbol: str, bid: float, *, in_s: float) -> bytes:
    """Return an update of another daemon, at an exchange time of ``in_s`` seconds from now."""
    at = datetime.now(UTC) + timedelta(seconds=in_s)
    return spot_price(symbol, bid, bid + 0.02, None, at, 1).to_json()


async def test_no_snapshot_goes_back_behind_what_a_predecessor_published(
    rig: NewRig, server: Server, sim: Simulator
) -> None:
    """A first price may be older than the published one; that one stays until a newer one comes."""
    await sim.send([quote("OLDER", 1.0), quote("NEWER", 1.0)])
    with server.client() as client:
        client.hset("spotd:last", "OLDER", published("OLDER", 9.0, in_s=60))
        client.hset("spotd:last", "NEWER", published("NEWER", 9.0, in_s=-60))
        client.hset("spotd:last", "BROKEN", "not JSON")
        client.sadd("spotd:symbols", "OLDER", "NEWER")
    async with rig(snapshots=True) as daemon:
        await has(daemon, "NEWER", 1.0)
        await has(daemon, "OLDER", 9.0)


@pytest.mark.parametrize("under_way", [False, True])
async def test_no_snapshot_is_taken_in_before_it_is_known_what_was_published(
    rig: NewRig, server: Server, sim: Simulator, under_way: bool
) -> None:
    """Another daemon led meanwhile, and what it published is read later than REST answers.

    REST is asked in the new term, or the request is ``under_way`` since the term before.
    """
    await sim.send([quote(symbol, 1.0) for symbol in ("SPY", "QQQ", "IWM")])
    async with (
        RedisProxy.to(server) as proxy,
        rig(snapshots=True, redis_url=SecretStr(proxy.url)) as daemon,
    ):
        values = daemon.values
        sim.faults.rest_hang = under_way
        await daemon.values.want("SPY", "QQQ")
        await until(lambda: asked(sim) == [["QQQ", "SPY"]], "both to be asked for")
        await values.redis.set(values.keys.leader, "other:1", px=600_000)
        await until(lambda: not daemon.active, "the end of the term")
        await values.redis.hset(values.keys.last, "SPY", published("SPY", 9.0, in_s=60))
        async with Recorder(server.url) as recorder:
            proxy.hold("HVALS")
            await values.redis.delete(values.keys.leader)
            await until(lambda: proxy.held, "a new term")
            sim.faults.rest_hang = False
            # Nothing is asked of Alpaca before it is known what the other daemon left.
            assert not daemon.active
            proxy.release()
            # The answer about SPY is taken in with that about QQQ, and IWM is published later.
            await until(lambda: recorder.bids("QQQ"), "the snapshots of this term")
            await daemon.want("IWM")
            await until(lambda: recorder.bids("IWM"), "what is published later")
            assert recorder.bids("SPY") == []
            await has(daemon, "SPY", 9.0)
        await daemon.quote("SPY", 3.0)  # the stream's own quotes know no floor
        await has(daemon, "SPY", 3.0)


# The loop alone


class Alone:
    """A snapshot loop without its daemon: everything is desired, and each term's prices known."""

    def __init__(self, sim: Simulator, retry: RetryPolicy, **settings: Any) -> None:
        self.metrics = Metrics()
        self.prices = Prices(
            throttle_s=0.0,
            demand=Value(Demand(frozenset("*"))),
            silence=Silence(),
            metrics=self.metrics,
        )
        self.snapshots = Snapshots(settings_for(sim, **settings), socket_timeout_s=GUARD_S)
        self.loop = SnapshotLoop(
            self.snapshots,
            self.prices,
            leadership=Value(Leadership(term=1)),
            demand=Value(Demand(term=1)),
            stream=Value(StreamState("open", subscriptions=WHOLE_MARKET)),
            metrics=self.metrics,
            retry=retry,
        )
        self._running: asyncio.Task[None] | None = None

    @classmethod
    @asynccontextmanager
    async def run(
        cls, sim: Simulator, retry: RetryPolicy | None = None, **settings: Any
    ) -> AsyncIterator[Self]:
        """Run the loop, and fail where it ended by itself."""
        alone = cls(sim, RetryPolicy(retry_s=0.0) if retry is None else retry, **settings)
        running = asyncio.create_task(alone.loop.run(), name="snapshots")
        try:
            yield alone
            assert not running.done()
        finally:
            running.cancel()
            await asyncio.wait((running,))
            alone.snapshots.close()

    async def has(self, symbol: str, bid: float, last_price: float | None = None) -> None:
        """Wait until these are the values of a symbol."""
        expected = (bid, last_price)
        await until(lambda: price(self.prices, symbol) == expected, f"{symbol} at {expected}")


async def test_many_symbols_are_asked_for_by_the_hundred(sim: Simulator) -> None:
    """250 symbols are three requests, and each symbol is in one of them."""
    symbols = MANY[:250]
    await sim.send([quote(symbol, 1.0) for symbol in symbols])
    async with Alone.run(sim) as alone:
        alone.loop.want(symbols)
        for symbol in symbols:
            await alone.has(symbol, 1.0)
        assert sorted(map(len, asked(sim))) == [50, MAX_SYMBOLS_PER_CALL, MAX_SYMBOLS_PER_CALL]
        assert sorted(symbol for one in asked(sim) for symbol in one) == symbols


async def test_a_new_symbol_does_not_wait_behind_a_market(sim: Simulator) -> None:
    """While four calls hang, it is wanted last: it is asked for in the fifth."""
    assert len(MANY) > 6 * MAX_SYMBOLS_PER_CALL
    sim.faults.rest_hang = True
    async with Alone.run(sim) as alone:
        alone.loop.want(MANY)
        await until(lambda: len(asked(sim)) == 4, "as many calls as are made at once")
        alone.loop.want(["ZZZ"])
        sim.faults.rest_hang = False
        await until(lambda: sum(map(len, asked(sim))) == len(MANY) + 1, "all to be asked for")
        assert [len(one) for one in asked(sim) if "ZZZ" in one] == [MAX_SYMBOLS_PER_CALL]
        assert sorted(symbol for one in asked(sim) for symbol in one) == [*MANY, "ZZZ"]


async def test_a_server_that_asks_to_wait_is_asked_again_then(sim: Simulator) -> None:
    """A try in its pause would be the second and last one, and bring no price."""
    busy = answering(
        b"HTTP/1.1 429 No\r\nDate: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
        b"Retry-After: Wed, 21 Oct 2026 07:28:01 GMT\r\nConnection: close\r\n\r\n"
    )
    body = b'{"SPY":{"latestQuote":{"t":"2026-01-20T15:00:00Z","bp":1.5,"ap":2.5}}}'
    good = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    asked = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        await (busy if asked == 1 else good)(reader, writer)

    async with (
        tcp_server(serve) as port,
        Alone.run(sim, data_url=f"http://127.0.0.1:{port}") as alone,
    ):
        alone.loop.want(["SPY"])
        await alone.has("SPY", 1.5)
        assert (asked, alone.metrics.snapshots_failed) == (2, 1)


@pytest.mark.parametrize(("told_s", "expected"), [(-60, (2.0, 2.0)), (60, (1.0, 1.0))])
async def test_the_newer_one_of_stream_and_snapshot_stands(
    rig: NewRig, told_s: int, expected: tuple[float, float]
) -> None:
    """A snapshot that comes after the stream's first values replaces older ones only."""
    at = (datetime.now(UTC) + timedelta(seconds=told_s)).isoformat()
    latest = {"latestQuote": {"t": at, "bp": 1, "ap": 2}, "latestTrade": {"t": at, "p": 1}}
    body = json.dumps({"SPY": latest, "QQQ": latest}).encode()
    asked_for, go_on = asyncio.Event(), asyncio.Event()
    answer = answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    async def behave(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked_for.set()
        await go_on.wait()
        await answer(reader, writer)

    async with (
        tcp_server(behave) as port,
        rig(snapshots=True, data_url=f"http://127.0.0.1:{port}") as daemon,
    ):
        await daemon.want("SPY", "QQQ")
        await asked_for.wait()
        await daemon.send(quote("SPY", 2.0), trade("SPY", 2.0))
        await has(daemon, "SPY", 2.0, 2.0)
        go_on.set()
        await has(daemon, "QQQ", 1.0, 1.0)
        await has(daemon, "SPY", *expected)


async def test_what_is_no_price_is_not_made_up(sim: Simulator) -> None:
    """One-sided quotes, missing data, refused symbols and odd lots cost other symbols nothing."""
    sim.faults.rest_null_symbols.add("NULL")
    sim.faults.rest_bad_symbols.add("BAD")
    await sim.send([quote("SIDE", 0.0, 1.0), quote("NULL", 1.0), quote("BAD", 1.0)])
    await sim.send([quote("SPY", 1.0), trade("SPY", 1.0, c=["@", "I"])])
    async with Alone.run(sim) as alone:
        alone.loop.want(["SIDE", "NULL", "BAD", "SPY"])
        await alone.has("SPY", 1.0, None)
        for symbol in ("SIDE", "NULL", "BAD"):
            assert price(alone.prices, symbol) == (None, None)
        assert alone.metrics.snapshots_failed == 0


async def test_a_failure_is_tried_once_more(sim: Simulator) -> None:
    """One failure costs no first price."""
    await sim.send([quote("SPY", 1.0)])
    sim.faults.rest_status = 503
    async with Alone.run(sim, RetryPolicy(retry_s=0.2)) as alone:
        alone.loop.want(["SPY"])
        await until(lambda: alone.metrics.snapshots_failed == 1, "the failure")
        sim.faults.rest_status = 0
        await alone.has("SPY", 1.0)
        assert asked(sim) == [["SPY"], ["SPY"]]


async def test_a_rest_that_is_away_costs_first_prices_only(sim: Simulator) -> None:
    """After two tries a batch is given up, and later symbols are asked for all the same."""
    await sim.send([quote("A", 1.0), quote("B", 1.0)])
    sim.faults.rest_status = 500
    async with Alone.run(sim) as alone:
        alone.loop.want(["A"])
        await until(lambda: alone.metrics.snapshots_failed == 2, "two failures")
        sim.faults.rest_status = 0
        alone.loop.want(["B"])
        await alone.has("B", 1.0)
        assert asked(sim) == [["A"], ["A"], ["B"]]


async def test_a_request_that_hangs_is_given_up(sim: Simulator) -> None:
    """After the deadline it counts as a failure, and is tried again."""
    await sim.send([quote("SPY", 1.0)])
    sim.faults.rest_hang = True
    async with Alone.run(sim, RetryPolicy(deadline_s=0.1, tries=1_000, retry_s=0.2)) as alone:
        alone.loop.want(["SPY"])
        await until(lambda: alone.metrics.snapshots_failed >= 1, "the failure")
        sim.faults.rest_hang = False
        await alone.has("SPY", 1.0)


async def test_a_plan_without_rest_is_asked_once_a_batch(sim: Simulator) -> None:
    """403 is not tried again, and ends nothing: only the stream's refusal is final."""
    sim.faults.rest_status = 403
    async with Alone.run(sim) as alone:
        for failures, symbol in enumerate("AB", 1):
            alone.loop.want([symbol])
            await until(
                lambda failures=failures: alone.metrics.snapshots_failed == failures,  # type: ignore[misc]
                "the refusal",
            )
        sim.faults.rest_status = 0
        alone.loop.want(["C"])
        await until(lambda: asked(sim) == [["A"], ["B"], ["C"]], "C to be asked for")
