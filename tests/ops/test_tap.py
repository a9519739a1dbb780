"""``GET /tap``: for programs of this machine alone, bounded, and ended from either side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from spotd.core.recording import Lines
from spotd.core.states import StreamState
from spotd.core.tap import Kind, Record, RecordReader
from spotd.daemon.tap import MOST_RECORDERS, Taps
from spotd.daemon.value import Value
from spotd.errors import StreamError
from spotd.ops.http import HttpServer
from spotd.ops.tap import TapPage, why_refused
from spotd.ops.tap import Taps as AnyTaps
from tests.kit.stream import stream_to
from tests.kit.waiting import until
from tests.ops.test_http import Pages

HOST = {"Host": "localhost"}
SECRET = 'secr"et/word'


def taps_of(queue_bytes: int = 1 << 20) -> Taps:
    """Return the taps of a stream that is not open."""
    return Taps(
        stream_to("ws://127.0.0.1:1/"),
        stream=Value(StreamState()),
        secrets=[SECRET],
        about={"instance": "host-1", "version": "1", "feed": "iex"},
        queue_bytes=queue_bytes,
    )


@asynccontextmanager
async def serving(taps: AnyTaps | None, **limits: float) -> AsyncIterator[HttpServer]:
    """Serve taps on a port of their own."""
    server = HttpServer(Pages(), taps, **limits)  # type: ignore[arg-type]  # numbers of two kinds
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.stop()


@asynccontextmanager
async def tapped(server: HttpServer) -> AsyncIterator[aiohttp.ClientResponse]:
    """Open a recording."""
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{server.port}/tap", headers=HOST) as answer,
    ):
        yield answer


async def records_of(answer: aiohttp.ClientResponse, count: int) -> list[Record]:
    """Return as many records, or fewer if the answer ends."""
    reader, records = RecordReader(), list[Record]()
    async for data in answer.content.iter_any():
        records += reader.feed(data)
        if len(records) >= count:
            break
    return records


async def test_what_comes_goes_to_each_recorder() -> None:
    """A recording begins with a note, holds what came since, and costs nobody else anything."""
    taps = taps_of()
    async with serving(taps) as server, tapped(server) as one:
        taps.frame(b"first")
        async with tapped(server) as two:
            taps.frame(b"second")
            taps.ended(StreamError("closed with 1001", reason="close_1001"))
            told = [await records_of(one, 4), await records_of(two, 3)]
    for records, frames in zip(told, ([b"first", b"second"], [b"second"]), strict=True):
        assert [each.payload for each in records if each.kind is Kind.FRAME] == frames
        begins, *_, ended = (each for each in records if each.kind is Kind.NOTE)
        assert b'"recording":"begins","instance":"host-1"' in begins.payload
        assert b'"stream":"closed"' in begins.payload
        assert b'"session":"ended","why":"closed with 1001","reason":"close_1001"' in ended.payload


async def test_no_secret_goes_out() -> None:
    """A secret is masked in frames and in notes, and a frame can still be decoded."""
    taps = taps_of()
    async with serving(taps) as server, tapped(server) as answer:
        text = f"auth failed: {SECRET}".encode()
        taps.frame(b"\x91\x82\xa1T\xa5error\xa3msg" + bytes([0xA0 + len(text)]) + text)
        taps.ended(StreamError(f"closed: {SECRET}", reason="close_1001"))
        records = await records_of(answer, 3)
    stars = "*" * len(SECRET)
    lines = [Lines().of(record).decode() for record in records]
    assert f'"msg":"auth failed: {stars}"' in lines[1]
    assert '"why":"closed: *' in lines[2]
    assert SECRET[:4] not in "".join(lines)


async def test_a_recorder_that_leaves_is_forgotten() -> None:
    """The place of a recorder that left is free for another, also where nothing comes."""
    taps = taps_of()
    async with serving(taps) as server:
        for _ in range(2 * MOST_RECORDERS):
            async with tapped(server) as answer:
                assert len(await records_of(answer, 1)) == 1
            await until(lambda: _opens(taps), "the place of the one that left")


def _opens(taps: Taps) -> bool:
    opened = [taps.open() for _ in range(MOST_RECORDERS)]
    for recorder in filter(None, opened):
        recorder.close()
    return None not in opened


async def test_recorders_are_limited() -> None:
    """One too many is told so, and the others go on."""
    taps = taps_of()
    opened = [taps.open() for _ in range(MOST_RECORDERS - 1)]
    async with serving(taps) as server, tapped(server) as last:
        async with tapped(server) as refused:
            assert refused.status == 503
        taps.frame(b"goes on")
        assert (await records_of(last, 2))[1].payload == b"goes on"
    assert None not in opened


async def test_a_server_without_taps() -> None:
    """A server without taps answers with 503."""
    async with serving(None) as server, tapped(server) as answer:
        assert answer.status == 503


async def test_a_recording_outlives_other_connections() -> None:
    """The time after which a connection is cut holds for no recorder."""
    taps = taps_of()
    async with serving(taps, connection_s=0.05) as server, AsyncExitStack() as stack:

        async def begun() -> aiohttp.ClientResponse | None:
            # On a busy machine the connection is cut before its request is read.
            with suppress(aiohttp.ClientError):
                return await stack.enter_async_context(tapped(server))
            return None

        answer: aiohttp.ClientResponse = await until(begun, "a recording")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        assert await reader.read() == b""  # another connection was cut meanwhile
        writer.close()
        taps.frame(b"goes on")
        assert (await records_of(answer, 2))[1].payload == b"goes on"


async def test_a_stop_ends_recordings_with_all_that_came() -> None:
    """The end is a regular one, so the recorder knows that nothing is missing."""
    taps = taps_of()
    async with serving(taps) as server, tapped(server) as answer:
        assert len(await records_of(answer, 1)) == 1
        taps.frame(b"last")
        await server.stop()
        assert [each.payload for each in await records_of(answer, 9)] == [b"last"]


class Flood:
    """A tap whose one recording holds more than any socket takes."""

    def __init__(self) -> None:
        self.is_taken = self.is_closed = False

    def open(self) -> Flood:
        return self

    def take(self, most_bytes: int) -> bytes:
        self.is_taken = True
        return bytes(32 << 20)

    def close(self) -> None:
        self.is_closed = True


async def _cut(answer: aiohttp.ClientResponse) -> bool:
    """Return whether an answer ends without its regular end."""
    try:
        while await answer.content.readany():
            pass
    except aiohttp.ClientPayloadError:
        return True
    return False


async def test_a_stop_does_not_wait_for_a_recorder_that_does_not_read() -> None:
    """Its connection is cut, and its recording is over."""
    flood = Flood()
    async with serving(flood) as server, tapped(server) as answer:
        await until(lambda: flood.is_taken, "more than a socket takes")
        await server.stop()
        assert flood.is_closed
        assert await _cut(answer)


async def test_a_recorder_that_does_not_read_is_cut_off() -> None:
    """Its memory is free again, although it never leaves by itself."""
    flood = Flood()
    app = web.Application()
    app.router.add_get("/tap", TapPage(flood, stalled_s=0.05).answer)
    async with (
        TestServer(app) as server,
        aiohttp.ClientSession() as http,
        http.get(server.make_url("/tap"), headers=HOST) as answer,
    ):
        await until(lambda: flood.is_closed, "the recorder to be cut off")
        assert await _cut(answer)


class Connection(asyncio.Transport):
    """A connection from an address."""

    def __init__(self, peer: str | None) -> None:
        super().__init__({"peername": (peer, 1) if peer else None})


@pytest.mark.parametrize(
    ("peer", "headers", "why"),
    [
        ("127.0.0.1", {"Host": "localhost:9810"}, ""),
        ("127.0.0.1", {"Host": "127.0.0.1:9810"}, ""),
        ("127.0.3.4", HOST, ""),
        ("::1", {"Host": "[::1]:9810"}, ""),
        ("::ffff:127.0.0.1", HOST, ""),
        ("::ffff:10.0.0.7", HOST, "only over loopback"),
        ("172.17.0.1", HOST, "only over loopback"),
        ("fe80::1%eth0", HOST, "only over loopback"),
        (None, HOST, "only over loopback"),
        ("127.0.0.1", {**HOST, "X-Forwarded-For": "10.0.0.7"}, "not through a proxy"),
        ("127.0.0.1", {**HOST, "Via": "1.1 x"}, "not through a proxy"),
        ("127.0.0.1", {"Host": "evil.example:9810"}, "only by the name localhost"),
        ("127.0.0.1", {"Host": "spotd:9810"}, "only by the name localhost"),
        ("127.0.0.1", {"Host": "10.0.0.7"}, "only by the name localhost"),
        ("127.0.0.1", {}, "only by the name localhost"),
    ],
)
def test_who_may_record(peer: str | None, headers: dict[str, str], why: str) -> None:
    """A program of this machine, that no proxy and no page of the Web stands behind."""
    refused = why_refused(Connection(peer), headers)
    assert refused.startswith(why)
    assert bool(refused) == bool(why)


async def test_whoever_may_not_record_is_told_why() -> None:
    """The answer is 403 with a sentence, and no recording begins."""
    taps = taps_of()
    async with (
        serving(taps) as server,
        aiohttp.ClientSession() as http,
        http.get(
            f"http://127.0.0.1:{server.port}/tap", headers={**HOST, "X-Real-IP": "10.0.0.7"}
        ) as answer,
    ):
        assert answer.status == 403
        assert await answer.text() == "not through a proxy\n"
        assert _opens(taps)
