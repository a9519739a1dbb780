"""HTTP: prices on request, demand by POST, probes, metrics, tokens, origins, errors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from spotd.ops.http_logs import NotHttp, http_logger
from spotd.relay import openapi
from tests.kit.publisher import update_of
from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import NewSetup, Setup
from tests.relay.examples import WEBSOCKET_REQUEST, WRONG_BODIES

SUBSCRIBE = "/api/positions/subscribe-spot-prices"


async def test_post_demands_symbols(setup: Setup) -> None:
    """The answer comes when the demand is written; malformed symbols come back with a reason."""
    response = await setup.http.post(SUBSCRIBE, json={"symbols": ["spy", "QQQ", "9", "SPY"]})
    assert response.status == 200
    assert await response.json() == {
        "status": "success",
        "message": "Subscribed to spot prices for 2 symbols",
        "symbols": ["SPY", "QQQ"],
        "refused": {"9": "invalid_symbol"},
    }
    assert setup.source.followed == {"SPY", "QQQ"}
    assert setup.source.confirmed == ["SPY", "QQQ"]


async def test_what_post_demanded_lapses_unless_somebody_listens(setup: Setup) -> None:
    """The demand lapses after 60 s, except for the symbols of a websocket."""
    await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY", "QQQ"]})
    async with setup.websocket("SPY") as client:
        await client.synced()
        setup.clock.ahead_s += 60
        await until(lambda: setup.source.followed == {"SPY"}, "the demand for QQQ to lapse")


async def test_post_says_where_no_daemon_runs(new_setup: NewSetup) -> None:
    """It succeeds: the demand stands when a daemon comes."""
    async with new_setup() as setup:
        setup.relay.connection(True, "")
        response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        assert response.status == 200
        words = "Subscribed to spot prices for 1 symbol; no daemon runs, prices come when one does"
        assert (await response.json())["message"] == words


async def test_post_says_where_the_relay_demands_nothing(new_setup: NewSetup) -> None:
    """The answer says so, and does not wait for Redis."""
    async with new_setup(relay_demand=False) as setup:
        setup.source.ready()
        setup.source.away = True
        response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        assert response.status == 200
        assert "demands nothing" in (await response.json())["message"]


async def test_post_without_redis_is_503(setup: Setup) -> None:
    """The answer has Retry-After and the reason."""
    setup.source.away = True
    response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
    assert response.status == 503
    assert response.headers["Retry-After"] == "2"
    body = await response.json()
    assert (body["status"], body["symbols"]) == ("error", [])
    assert "does not answer" in body["message"]


async def test_post_is_503_while_redis_is_away_though_the_demand_was_written(setup: Setup) -> None:
    """What Redis had may be lost when it comes back."""
    for expected in (200, 503, 200):
        setup.relay.connection(expected == 200, "Redis at 127.0.0.1:6379 is away")
        response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        assert response.status == expected


async def test_post_without_redis_is_503_also_where_nothing_is_demanded(
    new_setup: NewSetup,
) -> None:
    """No price would come. What is malformed is told first."""
    async with new_setup(relay_demand=False) as setup:
        setup.relay.connection(False, "Redis at 127.0.0.1:6379 is away")
        for entry, status in (("SPY", 503), ("9", 422)):
            response = await setup.http.post(SUBSCRIBE, json={"symbols": [entry]})
            assert response.status == status


@pytest.mark.parametrize(("body", "status", "refused"), WRONG_BODIES)
async def test_a_wrong_body_is_an_error(
    setup: Setup, body: bytes, status: int, refused: dict[str, str]
) -> None:
    """Each answer has the same form, and the 4xx that fits."""
    response = await setup.http.post(SUBSCRIBE, data=body)
    found = await response.json()
    assert response.status == status
    assert found.pop("message")
    assert found == {"status": "error", "symbols": [], "refused": refused}
    assert not setup.source.followed


async def test_post_keeps_the_limits(new_setup: NewSetup) -> None:
    """Those of one client and of all together; what has no room is refused."""
    async with new_setup(relay_max_symbols=2, relay_max_total_symbols=3) as setup:
        setup.source.ready()
        first = await setup.http.post(SUBSCRIBE, json={"symbols": ["A", "B", "C"]})
        assert (await first.json())["refused"] == {"C": "symbol_limit"}
        second = await setup.http.post(SUBSCRIBE, json={"symbols": ["C", "D"]})
        assert (await second.json())["symbols"] == ["C"]
        third = await setup.http.post(SUBSCRIBE, json={"symbols": ["D"]})
        assert third.status == 422
        assert (await third.json())["refused"] == {"D": "symbol_limit"}


async def test_get_returns_the_newest_prices(setup: Setup) -> None:
    """A symbol without a price is null, and nothing is demanded."""
    setup.source.stored["SPY"] = update_of("SPY", 7)
    response = await setup.http.get("/api/spot-prices?symbols=spy,QQQ")
    assert response.status == 200
    prices = (await response.json())["prices"]
    assert prices["SPY"]["timestamp"] == "2026-01-20T05:12:00.000000Z"
    assert (prices["SPY"]["seq"], prices["QQQ"]) == (7, None)
    assert not setup.source.followed
    nothing = await setup.http.get("/api/spot-prices?symbols=")
    assert await nothing.json() == {"prices": {}}
    wrong = await setup.http.get("/api/spot-prices?symbols=9")
    assert wrong.status == 422
    setup.source.away = True
    refused = await setup.http.get("/api/spot-prices?symbols=SPY")
    assert refused.status == 503
    assert (await refused.json())["message"] == "Redis does not answer, or answers with an error"


@pytest.mark.parametrize("query", ["", "?symbol=SPY", "?SYMBOLS=SPY"])
async def test_a_query_that_names_no_symbols_is_wrong(setup: Setup, query: str) -> None:
    """A misspelt parameter does not look like success: the answer names the right one."""
    response = await setup.http.get(f"/api/spot-prices{query}")
    assert response.status == 400
    assert await response.json() == {
        "status": "error",
        "message": "the query parameter symbols is missing: ?symbols=SPY,QQQ",
        "symbols": [],
        "refused": {},
    }


async def test_readiness_says_what_is_missing(new_setup: NewSetup) -> None:
    """Redis first, then the daemon; each reason begins with a code. Liveness needs neither."""
    async with new_setup() as setup:

        async def ready() -> tuple[int, Any]:
            response = await setup.http.get("/readyz")
            return response.status, await response.json()

        assert await ready() == (503, ["redis_away: not connected yet"])
        assert (await setup.http.get("/livez")).status == 200
        setup.relay.connection(True, "")
        assert await ready() == (503, ["no_daemon: no daemon runs"])
        setup.source.status()
        assert await ready() == (200, [])


async def test_metrics_are_those_of_the_relay(setup: Setup) -> None:
    """Clients, messages, bytes, skipped values, delivery latency, what was refused."""
    async with setup.websocket("SPY") as client:
        await client.synced()
        setup.source.price("SPY", 1)
        await client.price("SPY", 1)
        await setup.http.get("/nowhere")
        text = await (await setup.http.get("/metrics")).text()
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert samples["spotd_relay_clients", "websocket"] == 1
    assert samples["spotd_relay_clients", "events"] == 0
    assert samples["spotd_relay_clients_blocked",] == 0
    assert samples["spotd_relay_symbols",] == 1
    assert samples["spotd_relay_updates_total",] == 1
    assert samples["spotd_relay_skipped_total",] == 0
    assert samples["spotd_relay_ready",] == 1
    assert samples["spotd_relay_bytes_total",] > 0
    assert samples["spotd_relay_delivery_latency_seconds_count",] >= 1
    assert samples["spotd_relay_refused_total", "404"] == 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("DELETE", "/api/spot-prices", 405),
        ("GET", SUBSCRIBE, 405),
        ("GET", "/ws", 426),
    ],
)
async def test_what_does_not_exist_is_an_error_too(
    setup: Setup, method: str, path: str, status: int
) -> None:
    """The answer has the form of all errors."""
    response = await setup.http.request(method, path)
    assert response.status == status
    assert (await response.json())["status"] == "error"
    if status == 405:
        assert response.headers["Allow"]


async def test_requests_that_are_not_http_make_one_line(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may send them. A defect of the relay is logged all the same, and answered by 500."""
    http_logger("spotd.relay.http").filters = [NotHttp()]
    for nonsense in (b"\0\1\2\r\n\r\n", *[b"GET /ws?token=secret HTTP/9\r\n\r\n"] * 2):
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.server.port)
        writer.write(nonsense)
        async with asyncio.timeout(GUARD_S):
            assert b" 400 " in await reader.readline()
        writer.close()
    [line] = caplog.records
    assert line.exc_info is None
    assert "secret" not in line.getMessage()
    caplog.clear()
    setup.source.stored["SPY"] = "no price"  # type: ignore[assignment]
    defect = await setup.http.get("/api/spot-prices?symbols=SPY")
    assert defect.status == 500
    assert (await defect.json())["status"] == "error"
    assert [record.name for record in caplog.records] == ["spotd.relay.http"]


async def test_a_body_that_cannot_be_read_is_an_error_and_fills_no_log(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    """A body with a wrong encoding, or one that is cut off, is the fault of the client."""
    asked = {"data": b"no gzip", "headers": {"Content-Encoding": "gzip"}}
    response = await setup.http.post(SUBSCRIBE, **asked)  # type: ignore[arg-type]
    assert response.status == 400
    assert await response.json() == {
        "status": "error",
        "message": "the body cannot be read",
        "symbols": [],
        "refused": {},
    }
    _, writer = await asyncio.open_connection("127.0.0.1", setup.server.port)
    writer.write(f"POST {SUBSCRIBE} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
    writer.close()
    await until(lambda: setup.relay.metrics.refused["400"] == 2, "the relay to see the end")
    assert not caplog.records


# Tokens


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": "Bearer old"}, 200),
        ({"Authorization": "bearer new"}, 200),
    ],
)
async def test_every_request_needs_one_of_the_tokens(
    new_setup: NewSetup, headers: dict[str, str], status: int
) -> None:
    """The page, its files and the probes need none. A token in the query does not count here."""
    async with new_setup(relay_token="old, new") as setup:
        setup.source.ready()
        for path in ("/api/spot-prices?symbols=&token=old", "/metrics", "/openapi.json"):
            response = await setup.http.get(path, headers=headers)
            assert response.status == status
            if status == 401:
                assert response.headers["WWW-Authenticate"] == "Bearer"
        response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]}, headers=headers)
        assert response.status == status
        for path in ("/livez", "/readyz"):
            assert (await setup.http.get(path)).status == 200
        assert (await setup.http.get("/sse?symbols=SPY")).status == 401
        stream = await setup.http.get("/sse?symbols=SPY&token=new")
        assert stream.status == 200
        stream.close()


# Origins


async def test_pages_of_other_origins_are_refused(setup: Setup) -> None:
    """403 without a header that would let the page read it; their POST demands nothing."""
    headers = {"Origin": "https://evil.example"}
    response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]}, headers=headers)
    assert response.status == 403
    assert "Access-Control-Allow-Origin" not in response.headers
    assert not setup.source.followed


async def test_the_own_page_may_ask(setup: Setup) -> None:
    """Its browser sends an origin with a POST."""
    headers = {"Origin": f"http://127.0.0.1:{setup.server.port}"}
    response = await setup.http.post(SUBSCRIBE, json={"symbols": ["SPY"]}, headers=headers)
    assert response.status == 200


async def test_pages_of_allowed_origins_may_ask(new_setup: NewSetup) -> None:
    """A preflight, which carries no token, allows it. Such a page may read errors too."""
    origin = {"Origin": "https://app.example.com"}
    async with new_setup(relay_origins="https://app.example.com", relay_token="secret") as setup:
        asked = {"Access-Control-Request-Method": "POST", **origin}
        preflight = await setup.http.options(SUBSCRIBE, headers=asked)
        assert preflight.status == 204
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
        assert preflight.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        refused = await setup.http.get("/api/spot-prices", headers=origin)
        assert refused.status == 401
        assert refused.headers["Access-Control-Allow-Origin"] == origin["Origin"]
        assert refused.headers["Vary"] == "Origin"
        evil = {**asked, "Origin": "https://evil.example"}
        assert (await setup.http.options(SUBSCRIBE, headers=evil)).status == 403


async def test_the_document_is_served(setup: Setup) -> None:
    """OpenAPI 3.1 with every route of the contract, as ``spotd schema`` prints it."""
    served = await (await setup.http.get("/openapi.json")).read()
    assert served == openapi.document()
    document = json.loads(served)
    assert {SUBSCRIBE, "/api/spot-prices", "/ws", "/sse", "/readyz"} <= set(document["paths"])


async def test_pipelined_requests_before_a_websocket_are_answered(setup: Setup) -> None:
    """The connection is taken over when it is the websocket's turn, not before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.server.port)
    writer.write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + WEBSOCKET_REQUEST)
    async with asyncio.timeout(GUARD_S):
        found = await reader.readuntil(b'"hello"')
    assert found.index(b"200 OK") < found.index(b"101 Switching Protocols")
    writer.close()
    await until(lambda: setup.relay.hub.clients == 0, "the relay to forget the client")
