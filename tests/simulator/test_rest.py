"""REST: latest quotes, snapshots, the clock, and what is refused."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pytest

from spotd.simulator import Limits, MarketModel, Simulator
from tests.kit.waiting import until
from tests.simulator.dialogue import dial, exchange

KEYS = {"APCA-API-KEY-ID": "demo-key", "APCA-API-SECRET-KEY": "demo-secret"}
WHEN = "2022-08-17T10:07:40.286587431Z"


class Rest:
    """A client that sends the right keys."""

    def __init__(self, http: aiohttp.ClientSession, sim: Simulator) -> None:
        self.http, self.sim = http, sim

    async def get(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Return status and body of an answer."""
        headers = KEYS if headers is None else headers
        async with self.http.get(self.sim.data_url + path, headers=headers) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def rest(sim: Simulator) -> AsyncIterator[Rest]:
    """Yield a REST client of the quiet simulator."""
    async with aiohttp.ClientSession() as http:
        yield Rest(http, sim)


async def fill(sim: Simulator) -> None:
    """Send a quote, a trade and bars of AAPL."""
    await sim.send(
        [{"T": kind, "S": "AAPL", "t": WHEN} for kind in "tbd"]
        + [{"T": "q", "S": "AAPL", "bp": 172.62, "ap": 172.7, "t": WHEN}]
    )


QUOTE = {
    "t": WHEN,
    "ax": "V",
    "ap": 172.7,
    "as": 100,
    "bx": "V",
    "bp": 172.62,
    "bs": 100,
    "c": ["R"],
    "z": "C",
}


async def test_latest_quotes_are_those_sent(sim: Simulator, rest: Rest) -> None:
    """They have REST's key order; symbols without data are absent."""
    await fill(sim)
    status, body = await rest.get("/v2/stocks/quotes/latest?symbols=AAPL,TSLA,AAPL&feed=iex")
    assert (status, body) == (200, {"quotes": {"AAPL": QUOTE}})
    assert list(body["quotes"]["AAPL"]) == list(QUOTE)


async def test_snapshots_have_no_wrapper_and_null_for_no_data(sim: Simulator, rest: Rest) -> None:
    """The keys of each part are in REST's order."""
    await fill(sim)
    status, body = await rest.get("/v2/stocks/snapshots?symbols=AAPL,KUBTY")
    assert status == 200
    assert body["KUBTY"] is None
    assert set(body["AAPL"]) == {"latestTrade", "latestQuote", "minuteBar", "dailyBar"}
    assert body["AAPL"]["latestQuote"] == QUOTE
    assert list(body["AAPL"]["latestTrade"]) == ["t", "x", "p", "s", "c", "i", "z"]


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("quotes/latest", 400, {"message": "code=400, message=symbols is required"}),
        (
            "quotes/latest?symbols=AAPL,BRK-B,x",
            400,
            {"message": "code=400, message=invalid symbol: BRK-B"},
        ),
        ("snapshots?symbols=spy", 400, {"message": "code=400, message=invalid symbol: spy"}),
        (
            "quotes/latest?symbols=AAPL&feed=nyse",
            400,
            {"message": "code=400, message=invalid feed: nyse"},
        ),
    ],
)
async def test_what_is_refused(rest: Rest, path: str, status: int, body: object) -> None:
    """The first malformed symbol refuses the whole request, and the answer names it."""
    assert await rest.get(f"/v2/stocks/{path}") == (status, body)


async def test_sip_needs_its_plan() -> None:
    """Without its plan `sip` is 403 with a code; without `feed` the plan's best one is taken."""
    async with Simulator(feeds=["iex"]) as sim, aiohttp.ClientSession() as http:
        rest = Rest(http, sim)
        await fill(sim)
        assert await rest.get("/v2/stocks/quotes/latest?symbols=AAPL&feed=sip") == (
            403,
            {
                "code": 42210000,
                "message": "subscription does not permit querying recent SIP data",
            },
        )
        status, _ = await rest.get("/v2/stocks/quotes/latest?symbols=AAPL&feed=otc")
        assert status == 403
        status, _ = await rest.get("/v2/stocks/quotes/latest?symbols=AAPL")
        assert status == 200


@pytest.mark.parametrize(
    "headers", [{}, KEYS | {"APCA-API-SECRET-KEY": "wrong"}, KEYS | {"APCA-API-KEY-ID": "x"}]
)
async def test_wrong_keys_are_forbidden(rest: Rest, headers: dict[str, str]) -> None:
    """The key is checked before all else."""
    assert await rest.get("/v2/clock", headers) == (403, {"message": "forbidden."})


async def test_the_clock_says_whether_the_market_is_open(sim: Simulator, rest: Rest) -> None:
    """It is open unless the fault closes it."""
    status, body = await rest.get("/v2/clock")
    assert status == 200
    assert body["is_open"] is True
    assert set(body) == {"timestamp", "is_open", "next_open", "next_close"}
    sim.faults.market_closed = True
    assert (await rest.get("/v2/clock"))[1]["is_open"] is False


async def test_alpacas_clock_may_be_behind(sim: Simulator, rest: Rest) -> None:
    """By its fault all new times are older: of data and halts, of REST's clock and `Date`."""
    sim.faults.clock_behind_s = 2 * 86_400.0
    async with dial(sim) as talk:
        await talk.subscribe(quotes=["SPY"], statuses=["*"])
        await sim.send([{"T": "q", "S": "SPY"}])
        await sim.halt("SPY")
        times = [(await talk.hear_one())["t"] / 1e9 for _ in range(2)]
    async with rest.http.get(f"{sim.data_url}/v2/clock", headers=KEYS) as answer:
        times.append(parsedate_to_datetime(answer.headers["Date"]).timestamp())
        times.append(datetime.fromisoformat((await answer.json())["timestamp"]).timestamp())
    assert max(times) < time.time() - 86_400.0


async def test_too_many_requests_are_429() -> None:
    """All answers have the headers of the rate limit."""
    async with Simulator(limits=Limits(rest_per_min=0)) as sim, aiohttp.ClientSession() as http:
        for limit, status in ((0, 429), (100, 200)):
            sim.limits.rest_per_min = limit
            async with http.get(f"{sim.data_url}/v2/clock", headers=KEYS) as answer:
                assert answer.status == status
                assert answer.headers["X-RateLimit-Limit"] == str(limit)
                assert int(answer.headers["X-RateLimit-Remaining"]) <= limit
                assert int(answer.headers["X-RateLimit-Reset"]) > 1_700_000_000


@pytest.mark.parametrize("status", [429, 403, 500, 502, 418])
async def test_rest_may_answer_with_any_status(sim: Simulator, rest: Rest, status: int) -> None:
    """The fault answers every request."""
    sim.faults.rest_status = status
    assert (await rest.get("/v2/clock"))[0] == status


async def test_rest_may_hang(sim: Simulator, rest: Rest) -> None:
    """A hanging request is answered when the fault is over."""
    sim.faults.rest_hang = True
    asking = asyncio.create_task(rest.get("/v2/clock"))
    await until(lambda: sim.received.of("rest"), "the request")
    await exchange(sim)
    assert not asking.done()
    sim.faults.rest_hang = False
    assert (await asking)[0] == 200


async def test_rest_may_be_late(sim: Simulator, rest: Rest) -> None:
    """Other requests are answered in between; after a short delay the answer comes."""
    sim.faults.rest_delay_s = 600.0
    asking = asyncio.create_task(rest.get("/v2/clock"))
    await until(lambda: sim.received.of("rest"), "the request")
    sim.faults.rest_delay_s = 0.01
    assert (await rest.get("/v2/clock"))[0] == 200
    assert not asking.done()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)


async def test_rest_may_answer_with_a_page(sim: Simulator, rest: Rest) -> None:
    """With the fault REST answers as some proxies do, with status 200 and without JSON."""
    sim.faults.rest_garbage = True
    with pytest.raises(aiohttp.ContentTypeError):
        await rest.get("/v2/clock")


async def test_rest_may_have_no_data(sim: Simulator, rest: Rest) -> None:
    """It may have none for all symbols or for some, and call others invalid."""
    await fill(sim)
    sim.faults.rest_null_symbols = {"AAPL"}
    assert (await rest.get("/v2/stocks/snapshots?symbols=AAPL"))[1] == {"AAPL": None}
    sim.faults.rest_null_symbols = set()
    sim.faults.rest_null = True
    assert (await rest.get("/v2/stocks/quotes/latest?symbols=AAPL"))[1] == {"quotes": {}}
    sim.faults.rest_bad_symbols = {"AAPL"}
    assert (await rest.get("/v2/stocks/quotes/latest?symbols=AAPL"))[0] == 400


async def test_the_market_answers_for_any_symbol() -> None:
    """It has plausible prices before anything was sent; malformed symbols are refused."""
    async with Simulator(market=MarketModel(seed=1)) as sim, aiohttp.ClientSession() as http:
        rest = Rest(http, sim)
        status, body = await rest.get("/v2/stocks/snapshots?symbols=SPY,ZZZQ&feed=iex")
        assert status == 200
        for symbol, low, high in (("SPY", 500, 900), ("ZZZQ", 2, 1000)):
            assert set(body[symbol]) == {"latestTrade", "latestQuote", "minuteBar", "dailyBar",
                                         "prevDailyBar"}  # fmt: skip
            assert (
                low < body[symbol]["latestQuote"]["bp"] < body[symbol]["latestQuote"]["ap"] < high
            )
            assert body[symbol]["latestQuote"]["bx"] == "V"
        assert (await rest.get("/v2/stocks/snapshots?symbols=spy.x"))[0] == 400
