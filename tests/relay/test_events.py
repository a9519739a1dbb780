"""What a client of server-sent events sees."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from tests.kit.waiting import GUARD_S, until
from tests.relay.conftest import NewSetup, Setup


async def event(response: aiohttp.ClientResponse) -> tuple[str, Any]:
    """Return the next event: its type, and its data decoded."""
    async with asyncio.timeout(GUARD_S):
        raw = await response.content.readuntil(b"\n\n")
    kind, data = raw.decode().rstrip().split("\n")
    return kind.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_the_same_objects_come_as_events(setup: Setup) -> None:
    """Hello, the newest of every symbol, then every change; ``event:`` is the type."""
    setup.source.price("SPY", 1)
    response = await setup.http.get("/sse?symbols=spy,QQQ")
    assert response.content_type == "text/event-stream"
    kind, hello = await event(response)
    assert (kind, hello["type"]) == ("hello", "hello")
    kind, message = await event(response)
    assert (kind, message["update"]["seq"]) == ("spot_price_update", 1)
    setup.source.state("QQQ", "halted")
    kind, message = await event(response)
    assert (kind, message["state"]) == ("symbol", "halted")
    response.close()
    await until(lambda: setup.relay.hub.clients == 0, "the relay to forget the client")


async def test_max_hz_holds_for_events_too(setup: Setup) -> None:
    """A slow stream gets the first price, and is not told the second at once."""
    slow = await setup.http.get("/sse?symbols=SPY&max_hz=0.01")
    fast = await setup.http.get("/sse?symbols=SPY")
    for response in (slow, fast):
        await event(response)
    for seq in (1, 2):
        setup.source.price("SPY", seq)
        assert (await event(fast))[1]["update"]["seq"] == seq
    setup.source.state("SPY", "halted")
    assert (await event(slow))[1]["update"]["seq"] == 1
    assert (await event(slow))[1]["state"] == "halted"
    slow.close()
    fast.close()


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("", 400, "the query parameter symbols is missing"),
        ("?symbol=SPY", 400, "the query parameter symbols is missing"),
        ("?symbols=", 422, "symbols is empty"),
        ("?symbols=SPY,9", 422, "not a symbol: '9'"),
        ("?symbols=SPY&max_hz=0", 422, "max_hz: "),
        ("?symbols=SPY&max_hz=often", 422, "max_hz: "),
        ("?symbols=A,B,C", 422, "no room for more symbols: 'C'"),
    ],
)
async def test_a_wrong_query_is_refused(
    new_setup: NewSetup, query: str, status: int, message: str
) -> None:
    """As any wrong request, before the stream begins."""
    async with new_setup(relay_max_symbols=2) as setup:
        response = await setup.http.get(f"/sse{query}")
        assert response.status == status
        body = await response.json()
        assert body["status"] == "error"
        assert body["message"].startswith(message)


async def test_symbols_without_room_are_told_as_refused(new_setup: NewSetup) -> None:
    """The stream goes on with the others."""
    async with new_setup(relay_max_total_symbols=1) as setup:
        response = await setup.http.get("/sse?symbols=SPY,QQQ")
        await event(response)
        kind, message = await event(response)
        assert (kind, message["symbol"], message["state"]) == ("symbol", "QQQ", "refused")
        response.close()


async def test_a_page_of_an_allowed_origin_may_read(new_setup: NewSetup) -> None:
    """With the header that its browser wants."""
    async with new_setup(relay_origins="https://app.example.com") as setup:
        headers = {"Origin": "https://app.example.com"}
        response = await setup.http.get("/sse?symbols=SPY", headers=headers)
        assert response.headers["Access-Control-Allow-Origin"] == "https://app.example.com"
        response.close()


async def test_what_a_client_sends_behind_its_request_is_ignored(setup: Setup) -> None:
    """An event stream has no answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", setup.server.port)
    writer.write(b"GET /sse?symbols=SPY HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
    async with asyncio.timeout(GUARD_S):
        await reader.readuntil(b"\n\n")
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        setup.source.price("SPY", 1)
        assert b'"seq":1' in await reader.readuntil(b"\n\n")
    writer.close()


async def test_a_comment_shows_that_the_stream_lives(setup: Setup) -> None:
    """Every 15 s, so that no proxy takes the stream for dead."""
    response = await setup.http.get("/sse?symbols=SPY")
    await event(response)
    setup.clock.ahead_s += 15
    async with asyncio.timeout(GUARD_S):
        assert (await response.content.readuntil(b"\n\n")).startswith(b":")
    response.close()
