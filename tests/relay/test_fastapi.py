"""The router in real applications of FastAPI, on a real Redis: HTTP, demand, faults, lifespan."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from fastapi.requests import HTTPConnection
from uvicorn.logging import AccessFormatter

from spotd.errors import SettingsError
from spotd.relay.fastapi import Limits, spot_prices
from spotd.relay.openapi import openapi
from tests.kit.publisher import Publisher, status_of
from tests.kit.servers import Server
from tests.kit.waiting import until
from tests.relay.conftest import websocket
from tests.relay.examples import HANDSHAKE, WRONG_BODIES
from tests.relay.uvicorn_server import SUBSCRIBE, app_of, asked, served

UVICORN_ACCESS = AccessFormatter(
    '%(client_addr)s - "%(request_line)s" %(status_code)s', use_colors=False
)
AWAY = "redis://127.0.0.1:1/0"


def ready(http: httpx.AsyncClient) -> Callable[[], Awaitable[bool]]:
    """Return a condition: the router knows that a daemon runs."""

    async def demanded() -> bool:
        response = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        return response.status_code == 200 and "no daemon" not in response.json()["message"]

    return demanded


async def test_post_demands_and_get_tells(server: Server, daemon: Publisher) -> None:
    """As ``spotd relay`` does: the demand stands when POST is answered; the JSON is Redis's own."""
    await daemon.publish("SPY", 7)
    async with asked(app_of(server.url)) as http:
        await until(ready(http), "the daemon's status")
        response = await http.post(SUBSCRIBE, json={"symbols": ["spy", "QQQ", "9"]})
        assert response.status_code == 200
        assert response.json() == {
            "status": "success",
            "message": "Subscribed to spot prices for 2 symbols",
            "symbols": ["SPY", "QQQ"],
            "refused": {"9": "invalid_symbol"},
        }
        assert {each.partition("@")[0] for each in await daemon.leases()} == {"SPY", "QQQ"}
        found = await http.get("/api/spot-prices?symbols=SPY,QQQ")
        assert found.json()["prices"] == {"SPY": await daemon.last("SPY"), "QQQ": None}
        assert found.headers["Cache-Control"] == "no-store"


async def test_post_says_where_no_daemon_runs(server: Server) -> None:
    """It succeeds: the demand stands when a daemon comes."""
    async with asked(app_of(server.url)) as http:
        response = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        assert response.status_code == 200
        assert response.json()["message"].endswith("no daemon runs, prices come when one does")


async def test_post_without_redis_is_503() -> None:
    """In the form of every error, with Retry-After; so is GET."""
    async with asked(app_of(AWAY)) as http:
        for response in (
            await http.post(SUBSCRIBE, json={"symbols": ["SPY"]}),
            await http.get("/api/spot-prices?symbols=SPY"),
        ):
            assert response.status_code == 503
            assert response.headers["Retry-After"] == "2"
            assert response.json()["status"] == "error"


@pytest.fixture(scope="module")
def app_away() -> FastAPI:
    """An application whose Redis is away."""
    return app_of(AWAY)


@pytest.mark.parametrize(("body", "status", "refused"), WRONG_BODIES)
async def test_a_wrong_body_is_the_error_that_the_relay_makes_of_it(
    app_away: FastAPI, body: bytes, status: int, refused: dict[str, str]
) -> None:
    """FastAPI's own error is not used."""
    headers = {"Content-Type": "application/json"}
    async with asked(app_away, headers=headers) as http:
        response = await http.post(SUBSCRIBE, content=body)
    found = response.json()
    assert response.status_code == status
    assert found.pop("message")
    assert found == {"status": "error", "symbols": [], "refused": refused}


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_is_json_whatever_it_says_of_itself(
    server: Server, content_type: str | None
) -> None:
    """As for ``spotd relay``: not every client names the type."""
    headers = {} if content_type is None else {"Content-Type": content_type}
    async with asked(app_of(server.url)) as http:
        response = await http.post(SUBSCRIBE, content=b'{"symbols":["SPY"]}', headers=headers)
        assert response.status_code == 200
        assert response.json()["symbols"] == ["SPY"]


async def test_a_body_that_is_cut_off_is_no_defect(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody may leave in the middle: no traceback is logged."""
    async with served(app_of(server.url)) as http:
        async with http.get("/api/spot-prices?symbols=") as response:
            port = response.url.port
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            f"POST {SUBSCRIBE} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode()
        )
        writer.close()
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


async def test_a_body_that_comes_in_pieces_is_limited_too(app_away: FastAPI) -> None:
    """A client need not say how long its body is."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1_000

    async with asked(app_away) as http:
        assert (await http.post(SUBSCRIBE, content=pieces())).status_code == 413


async def test_a_body_that_fastapi_refuses_is_told_in_the_same_form(app_away: FastAPI) -> None:
    """Here a header that a dependency of the application asks for."""

    def versioned(version: Annotated[int, Header()]) -> None: ...

    app = app_of(AWAY, dependencies=[Depends(versioned)])
    async with asked(app) as http:
        response = await http.get("/api/spot-prices?symbols=")
    assert response.status_code == 422
    assert response.json()["status"] == "error"
    assert response.json()["message"].startswith("header.version: ")


async def test_every_path_begins_with_the_prefix(server: Server, daemon: Publisher) -> None:
    """So do the paths of the websocket, of the page, and in the document."""
    await daemon.publish("SPY", 1)
    app = FastAPI()
    app.include_router(spot_prices(server.url, prefix="/spot", page=True), prefix="/v1")
    paths = app.openapi()["paths"]
    assert set(paths) == {f"/v1/spot{path}" for path in (SUBSCRIBE, "/api/spot-prices", "/sse")}
    async with served(app) as http:
        async with websocket(http, "SPY", path="/v1/spot/ws") as client:
            await client.price("SPY", 1)
        page = await http.get("/v1/spot/")
        assert page.content_type == "text/html"
        script = await http.get("/v1/spot/spotd.js")
        assert script.content_type == "text/javascript"
        known = {"If-None-Match": script.headers["ETag"]}
        assert (await http.get("/v1/spot/spotd.js", headers=known)).status == 304
        assert (await http.get("/ws")).status == 404


async def test_without_page_there_are_no_files(app_away: FastAPI) -> None:
    """``/`` stays the application's own."""
    async with asked(app_away) as http:
        assert (await http.get("/")).status_code == 404
        assert (await http.get("/spotd.js")).status_code == 404


async def test_the_document_says_what_the_relays_own_says(app_away: FastAPI) -> None:
    """The same routes but the websocket, with the same parameters and answers."""
    found, own = app_away.openapi()["paths"], openapi()["paths"]
    for path, method in ((SUBSCRIBE, "post"), ("/api/spot-prices", "get"), ("/sse", "get")):
        told, expected = found[path][method], own[path][method]
        assert told["summary"] == expected["summary"]
        assert set(told["responses"]) == set(expected["responses"])
        assert [each["name"] for each in told["parameters"]] == [
            each["name"] for each in expected.get("parameters", ())
        ]
    schemas = app_away.openapi()["components"]["schemas"]
    assert {"SpotPriceUpdate", "SubscribeSpotPricesRequest"} <= set(schemas)


# Who may ask


def signed_in(connection: HTTPConnection) -> None:
    """Refuse clients without a session."""
    if connection.cookies.get("session") != "mine":
        raise HTTPException(401, "sign in first")


async def test_dependencies_refuse_requests_and_websockets(
    server: Server, daemon: Publisher
) -> None:
    """With the application's own answer, before anything is demanded; not the page's files."""
    app = app_of(server.url, dependencies=[Depends(signed_in)], page=True)
    async with served(app) as http:
        refused = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
        assert (refused.status, await refused.json()) == (401, {"detail": "sign in first"})
        assert (await http.get("/sse?symbols=SPY")).status == 401
        assert (await http.get("/ws", headers=HANDSHAKE)).status == 401
        assert (await http.get("/spotd.js")).status == 200
        assert await daemon.leases() == {}
        signed = {"Cookie": "session=mine"}
        async with websocket(http, "SPY", headers=signed) as client:
            await client.synced()
        answer = await http.post(SUBSCRIBE, json={"symbols": ["SPY"]}, headers=signed)
        assert answer.status == 200


async def test_tokens_and_origins_are_those_of_the_relay(server: Server) -> None:
    """401 and 403 on every route. Only streams take a token in the address."""
    app = app_of(server.url, tokens=["old", "new"], origins=["https://app.example.com"])
    evil = {"Origin": "https://evil.example", "Authorization": "Bearer new"}
    async with served(app) as http:
        for path, headers in (
            ("/api/spot-prices?symbols=", {}),
            ("/api/spot-prices?symbols=&token=new", {}),
            ("/sse?symbols=SPY", {}),
            ("/sse?symbols=SPY&token=ne", {}),
            ("/ws", HANDSHAKE),
            ("/ws?token=ne", HANDSHAKE),
        ):
            assert (await http.get(path, headers=headers)).status == 401
            assert (await http.get(path, headers={**headers, **evil})).status == 403
        for token in ("old", "new"):
            authorized = {"Authorization": f"Bearer {token}", "Origin": "https://app.example.com"}
            assert (await http.get("/api/spot-prices?symbols=", headers=authorized)).status == 200
        async with websocket(http, protocols=["spotd.v1", "bearer.bmV3"]) as client:
            assert client.connection.protocol == "spotd.v1"
        async with websocket(http, path="/ws?token=new"):
            pass
        async with http.get("/sse?symbols=SPY&token=old") as events:
            assert events.status == 200


@pytest.mark.parametrize("level", ["info", "trace"])
async def test_no_token_reaches_the_logs_of_uvicorn(
    server: Server, caplog: pytest.LogCaptureFixture, level: str
) -> None:
    """Neither in the address of a request or websocket, nor in a header, right or wrong."""
    app = app_of(server.url, tokens=["sesame-1", "sesame-2"], prefix="/v1")
    caplog.set_level(1 if level == "trace" else "INFO")
    encoded = urlsafe_b64encode(b"sesame-2").decode().rstrip("=")
    async with served(app, log_level=level) as http:
        async with websocket(http, path="/v1/ws?token=sesame-1"):
            pass
        async with websocket(http, path="/v1/ws", protocols=["spotd.v1", f"bearer.{encoded}"]):
            pass
        async with http.get("/v1/sse?symbols=SPY&token=sesame-2") as events:
            assert events.status == 200
        authorized = {"Authorization": "Bearer sesame-1"}
        assert (await http.get("/v1/api/spot-prices?symbols=", headers=authorized)).status == 200
        for path in ("/v1/sse?token=sesame-%33", "/v1/api/spot-prices?a=b&token=sesame-3"):
            assert (await http.get(path)).status == 401
    lines = [UVICORN_ACCESS.format(r) for r in caplog.records if r.name == "uvicorn.access"]
    lines += [r.getMessage() for r in caplog.records if r.name != "uvicorn.access"]
    assert any('"GET /v1/sse?symbols=SPY&token=*** HTTP/1.1" 200' in line for line in lines)
    assert any('"WebSocket /v1/ws?token=***" [accepted]' in line for line in lines)
    assert not [line for line in lines if "sesame" in line or encoded in line]


@pytest.mark.parametrize("path", ["/api/spot-prices", "/sse"])
async def test_a_query_that_names_no_symbols_is_wrong(server: Server, path: str) -> None:
    """As with ``spotd relay``: a misspelt parameter does not look like success."""
    async with asked(app_of(server.url)) as http:
        response = await http.get(f"{path}?symbol=SPY")
    assert response.status_code == 400
    assert response.json() == {
        "status": "error",
        "message": "the query parameter symbols is missing: ?symbols=SPY,QQQ",
        "symbols": [],
        "refused": {},
    }


@pytest.mark.parametrize("options", [{"tokens": [""]}, {"origins": ["example.com"]}])
def test_wrong_options_are_refused_at_once(options: dict[str, list[str]]) -> None:
    """An empty token would let everybody in."""
    with pytest.raises(ValueError, match=r"must be|is scheme"):
        spot_prices(AWAY, **options)  # type: ignore[arg-type]


async def test_limits_are_those_of_the_relay(server: Server) -> None:
    """Of connections: 503 with Retry-After, to websockets and event streams. Of symbols: 422."""
    app = app_of(server.url, limits=Limits(clients=1, symbols=1))
    async with served(app) as http:
        async with websocket(http) as client:
            assert client.hello["limits"]["symbols"] == 1
            for path, headers in (("/ws", HANDSHAKE), ("/sse?symbols=SPY", {})):
                full = await http.get(path, headers=headers)
                assert (full.status, full.headers["Retry-After"]) == (503, "5")
                assert (await full.json())["status"] == "error"
        assert (await http.get("/sse?symbols=SPY,QQQ")).status == 422

        async def room() -> bool:
            return (await http.get("/api/spot-prices?symbols=")).status == 200

        await until(room, "room for another")
        async with websocket(http):
            pass


# Streams


async def test_a_websocket_gets_what_is_stored_then_every_change(
    server: Server, daemon: Publisher
) -> None:
    """Prices, states, answers; what is wrong is explained and closes nothing."""
    await daemon.publish("SPY", 1)
    async with served(app_of(server.url)) as http, websocket(http, "SPY", "9") as client:
        assert client.hello["type"] == "hello"
        # How relay, daemon and symbols stand may be told first.
        while (message := await client.next())["type"] in ("relay", "daemon", "symbol"):
            pass
        assert message["code"] == "invalid_symbol"
        assert await client.price("SPY", 1) == [("SPY", 1)]
        await daemon.publish("SPY", 2)
        assert await client.price("SPY", 2) == [("SPY", 2)]
        await daemon.announce("SPY", "halted")
        assert (await client.next_of("symbol"))["state"] == "halted"
        await client.connection.send_bytes(b"what?")
        assert (await client.synced())[-1]["code"] == "not_text"
        await client.say(action="subscribe", symbols=["SPY", "QQQ"], batch=True)
        await daemon.publish("QQQ", 3)
        message = await client.next_of("spot_price_update_batch")
        assert [update["seq"] for update in message["updates"]] == [3]


async def test_events_carry_the_same_objects(server: Server, daemon: Publisher) -> None:
    """``event:`` is the type; the stream ends with its client."""
    await daemon.publish("SPY", 1)
    async with served(app_of(server.url)) as http:
        response = await http.get("/sse?symbols=spy")
        assert response.content_type == "text/event-stream"
        kinds: list[str] = []
        while not kinds or kinds[-1] != "spot_price_update":
            kind, data = (await response.content.readuntil(b"\n\n")).decode().strip().split("\n")
            kinds.append(kind.removeprefix("event: "))
        assert kinds[0] == "hello"
        assert json.loads(data.removeprefix("data: "))["update"]["seq"] == 1
        response.close()

        async def given_up() -> bool:
            return await daemon.leases() == {}

        await until(given_up, "the demand to end with the client")


async def test_two_workers_demand_in_their_own_names(server: Server, daemon: Publisher) -> None:
    """Both get prices. When the demand of one ends, that of the other stands."""

    def demanded_by(number: int) -> Callable[[], Awaitable[bool]]:
        async def demanded() -> bool:
            return len(await daemon.leases()) == number

        return demanded

    async with (
        served(app_of(server.url)) as one,
        served(app_of(server.url)) as other,
        websocket(other, "SPY") as stays,
    ):
        async with websocket(one, "SPY") as leaves:
            await until(demanded_by(2), "two leases")
            await daemon.publish("SPY", 1)
            for client in (leaves, stays):
                await client.price("SPY", 1)
        await until(demanded_by(1), "one lease")
        await daemon.publish("SPY", 2)
        assert await stays.price("SPY", 2) == [("SPY", 2)]


async def test_clients_are_told_that_redis_is_away_and_survive_it(
    server: Server, daemon: Publisher
) -> None:
    """POST is 503 meanwhile; afterwards prices come and the demand is written anew."""
    async with served(app_of(server.url)) as http, websocket(http, "SPY") as client:
        await daemon.publish("SPY", 1)
        await client.price("SPY", 1)
        server.kill()
        assert (await client.next_of("relay"))["state"] == "redis_away"
        assert (await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})).status == 503
        server.restart(lose_data=True)
        await daemon.redis.set(daemon.keys.status, status_of().to_json())
        await daemon.publish("SPY", 2)
        assert (await client.price("SPY", 2))[-1] == ("SPY", 2)

        await until(daemon.leases, "the demand to be written anew")


# Lifespan


async def test_the_lifespan_leaves_nothing_behind(server: Server, daemon: Publisher) -> None:
    """No task, no lease, no subscription; a client is told to try again. It may start anew."""
    app = app_of(server.url)
    for _ in range(2):
        before = asyncio.all_tasks()
        async with asked(app) as http:
            await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})
            assert len(await daemon.leases()) == 1
        assert asyncio.all_tasks() == before
        assert await daemon.leases() == {}

        async def nobody_listens() -> bool:
            return not await daemon.subscribers("spot:SPY")

        # The server sees the end of a connection beside what it is asked on another one.
        await until(nobody_listens, "the subscription to end")


async def test_it_stands_beside_the_applications_own_lifespan(server: Server) -> None:
    """Which begins before it, and ends after."""
    told = []

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, int]]:
        told.append("begun")
        yield {"answer": 42}
        told.append("ended")

    app = FastAPI(lifespan=lifespan)
    app.include_router(spot_prices(server.url))
    async with asked(app) as http:
        assert told == ["begun"]
        assert (await http.post(SUBSCRIBE, json={"symbols": ["SPY"]})).status_code == 200
    assert told == ["begun", "ended"]


async def test_without_the_lifespan_every_request_is_503(app_away: FastAPI) -> None:
    """A mounted application has none: the answer says so."""
    transport = httpx.ASGITransport(app_away)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for path in ("/api/spot-prices", "/sse?symbols=SPY"):
            response = await http.get(path)
            assert response.status_code == 503
            assert "lifespan" in response.json()["message"]


async def test_a_router_serves_one_application_at_a_time(server: Server) -> None:
    """The second is told to make its own."""
    router = spot_prices(server.url)
    one, other = FastAPI(), FastAPI()
    for app in (one, other):
        app.include_router(router)
    async with one.router.lifespan_context(one):
        with pytest.raises(RuntimeError, match="spot_prices"):
            async with other.router.lifespan_context(other):
                pass


async def test_a_wrong_address_of_redis_stops_the_start() -> None:
    """With spotd's own error."""
    app = app_of("http://127.0.0.1")
    with pytest.raises(SettingsError):
        async with app.router.lifespan_context(app):
            pass


@pytest.mark.parametrize("module", ["spotd.client", "spotd.relay.relay", "spotd.relay.server"])
def test_nothing_else_loads_fastapi(module: str) -> None:
    """Only programs with the router load FastAPI and the pydantic models."""
    script = (
        f"import sys, {module}\n"
        "print([name for name in ('fastapi', 'starlette', 'spotd.pydantic_models')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
