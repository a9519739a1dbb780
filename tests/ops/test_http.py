"""Health, status and metrics as an operator's tools read them."""

from __future__ import annotations

import asyncio
import errno
import json
from collections.abc import AsyncIterator
from contextlib import suppress

import aiohttp
import pytest

from spotd.errors import SettingsError
from spotd.ops.http import HttpServer
from tests.kit.ports import free_port
from tests.kit.waiting import GUARD_S, until


class Pages:
    """Pages whose contents the test sets."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def not_ready(self) -> list[str]:
        """Return the reasons."""
        return self.reasons

    def status_json(self) -> bytes:
        """Return a status."""
        return '{"type":"daemon","reason":"größer"}'.encode()

    def metrics_text(self) -> bytes:
        """Return a metric."""
        return b"# TYPE up gauge\nup 1.0\n"


@pytest.fixture
def pages() -> Pages:
    """Return the pages that the server shows."""
    return Pages()


@pytest.fixture
async def server(pages: Pages, request: pytest.FixtureRequest) -> AsyncIterator[HttpServer]:
    """Yield a server on a port of its own, with limits that a test may set."""
    running = HttpServer(pages, **getattr(request, "param", {}))
    await running.start("127.0.0.1", 0)
    yield running
    await running.stop()


async def get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Return status, content type and body of one page."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{server.port}{path}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_alive_while_the_loop_turns(server: HttpServer, pages: Pages) -> None:
    """``/livez`` says 200 whatever is wrong elsewhere, since a restart would not repair it."""
    pages.reasons = ["redis_away: no answer"]
    assert (await get(server, "/livez"))[0] == 200


async def test_ready_or_the_reasons_why_not(server: HttpServer, pages: Pages) -> None:
    """``/readyz`` says 200 and an empty list, or 503 and what is missing."""
    assert await get(server, "/readyz") == (200, "application/json; charset=utf-8", "[]")
    pages.reasons = ["redis_away: no answer", "connecting: opening the stream"]
    status, _, body = await get(server, "/readyz")
    assert status == 503
    assert json.loads(body) == pages.reasons


async def test_the_status_is_the_daemons(server: HttpServer, pages: Pages) -> None:
    """``/status`` is the DaemonStatus, as it is in Redis."""
    assert await get(server, "/status") == (
        200,
        "application/json; charset=utf-8",
        pages.status_json().decode(),
    )


async def test_metrics_name_their_format(server: HttpServer, pages: Pages) -> None:
    """``/metrics`` has the content type from which Prometheus reads the version."""
    status, content_type, body = await get(server, "/metrics")
    assert status == 200
    assert content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert body == pages.metrics_text().decode()


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/", 404), ("POST", "/livez", 405), ("HEAD", "/readyz", 200), ("GET", "/livez/", 404)],
)
async def test_nothing_else_is_served(
    server: HttpServer, method: str, path: str, status: int
) -> None:
    """These pages are served, for reading only, and no others."""
    assert (await get(server, path, method))[0] == status


async def _connected(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def _ends(reader: asyncio.StreamReader) -> None:
    """Wait until the server ends the connection."""
    async with asyncio.timeout(GUARD_S):
        with suppress(ConnectionError):
            await reader.read(-1)


@pytest.mark.parametrize("server", [{"max_connections": 3}], indirect=True)
async def test_connections_are_limited(server: HttpServer) -> None:
    """Connections beyond the limit are closed; when one ends there is room again."""
    held = []
    for _ in range(3):
        held.append(await _connected(server))
        held[-1][1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await held[-1][0].readline()
    reader, writer = await _connected(server)
    await _ends(reader)
    writer.close()
    for _, each in held:
        each.close()

    async def served() -> bool:
        with suppress(aiohttp.ClientError):
            return (await get(server, "/livez"))[0] == 200
        return False

    await until(served, "room for a connection")


@pytest.mark.parametrize("said", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
@pytest.mark.parametrize("server", [{"connection_s": 0.2}], indirect=True)
async def test_a_connection_ends_after_its_time(server: HttpServer, said: bytes) -> None:
    """A connection has a limited life, whatever was said on it."""
    reader, writer = await _connected(server)
    writer.write(said)
    await _ends(reader)
    writer.close()


async def test_a_lack_of_descriptors_is_told_once_a_minute(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A lack of descriptors, reported at each try, is logged once; other errors are all logged."""
    loop = asyncio.get_running_loop()
    for _ in range(50):
        loop.call_exception_handler(
            {
                "message": "socket.accept() out of system resource",
                "exception": OSError(errno.EMFILE, "Too many open files"),
                "socket": None,
            }
        )
    assert len(caplog.records) == 1
    loop.call_exception_handler({"message": "something else"})
    assert len(caplog.records) == 2
    await server.stop()
    assert loop.get_exception_handler() is None


async def test_a_taken_port_is_a_wrong_setting(server: HttpServer, pages: Pages) -> None:
    """A port that is taken is a SettingsError that names the variables and the address."""
    second = HttpServer(pages)
    with pytest.raises(SettingsError, match=f"SPOTD_HTTP_PORT.*127.0.0.1:{server.port}") as caught:
        await second.start("127.0.0.1", server.port)
    assert caught.value.exit_code == 2
    await second.stop()  # there is nothing to stop, and that is no error


async def test_an_address_of_another_machine_is_a_wrong_setting(pages: Pages) -> None:
    """A host that is not ours, or does not exist, is a SettingsError."""
    for host in ("192.0.2.1", "no.such.invalid"):
        with pytest.raises(SettingsError, match="SPOTD_HTTP_HOST"):
            await HttpServer(pages).start(host, free_port())
