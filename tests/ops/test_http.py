"""Health, status and metrics as an operator's tools read them."""

from __future__ import annotations

import asyncio
import errno
import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import aiohttp
import pytest

from spotd.errors import SettingsError
from spotd.ops import http
from spotd.ops.http import HttpServer
from tests.kit.servers import free_port


class Pages:
    """Something to show."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def not_ready(self) -> list[str]:
        """Reasons."""
        return self.reasons

    def status_json(self) -> bytes:
        """A status."""
        return '{"type":"daemon","reason":"größer"}'.encode()

    def metrics_text(self) -> bytes:
        """A metric."""
        return b"# TYPE up gauge\nup 1.0\n"


@pytest.fixture
def pages() -> Pages:
    """What the server shows."""
    return Pages()


@pytest.fixture
async def server(pages: Pages) -> AsyncIterator[HttpServer]:
    """A server on a port of its own."""
    running = HttpServer(pages)
    await running.start("127.0.0.1", 0)
    yield running
    await running.stop()


async def get(server: HttpServer, path: str, method: str = "GET") -> tuple[int, str, str]:
    """Status, content type and body of one page."""
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{server.port}{path}") as answer,
    ):
        return answer.status, answer.headers["Content-Type"], await answer.text()


async def test_alive_while_the_loop_turns(server: HttpServer, pages: Pages) -> None:
    """Whatever is wrong elsewhere: a restart would not mend it."""
    pages.reasons = ["redis: away"]
    assert (await get(server, "/livez"))[0] == 200


async def test_ready_or_the_reasons_why_not(server: HttpServer, pages: Pages) -> None:
    """200 and an empty list, or 503 and what is missing."""
    assert await get(server, "/readyz") == (200, "application/json; charset=utf-8", "[]")
    pages.reasons = ["redis: away", "stream: connecting"]
    status, _, body = await get(server, "/readyz")
    assert status == 503
    assert json.loads(body) == pages.reasons


async def test_the_status_is_the_daemons(server: HttpServer, pages: Pages) -> None:
    """As it is in Redis."""
    assert await get(server, "/status") == (
        200,
        "application/json; charset=utf-8",
        pages.status_json().decode(),
    )


async def test_metrics_name_their_format(server: HttpServer, pages: Pages) -> None:
    """Prometheus reads the version from the content type."""
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
    """Read only, and these pages only."""
    assert (await get(server, path, method))[0] == status


async def _connected(server: HttpServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", server.port)


async def _over(reader: asyncio.StreamReader, within_s: float) -> bool:
    """Whether the connection ends in time."""
    try:
        async with asyncio.timeout(within_s):
            with suppress(ConnectionError):
                await reader.read(-1)
    except TimeoutError:
        return False
    return True


async def test_connections_are_limited(server: HttpServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Further ones are closed at once; when one ends there is room again."""
    monkeypatch.setattr(http, "MAX_CONNECTIONS", 3)
    held = []
    for _ in range(3):
        held.append(await _connected(server))
        held[-1][1].write(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await held[-1][0].readline()
    reader, writer = await _connected(server)
    assert await _over(reader, 2.0)
    writer.close()
    for _, each in held:
        each.close()
    await asyncio.sleep(0.1)
    assert (await get(server, "/livez"))[0] == 200


@pytest.mark.parametrize("said", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"])
async def test_who_says_nothing_more_is_cut_off(
    pages: Pages, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No connection lasts for long, whatever was said on it."""
    monkeypatch.setattr(http, "CONNECTION_S", 0.3)
    server = HttpServer(pages)
    await server.start("127.0.0.1", 0)
    reader, writer = await _connected(server)
    writer.write(said)
    assert await _over(reader, 2.0)
    writer.close()
    await server.stop()


async def test_a_lack_of_descriptors_is_told_once_a_minute(
    server: HttpServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Asyncio tells of it at each try, many times a second; other errors are told as ever."""
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
    """The message names the variables and the address."""
    second = HttpServer(pages)
    with pytest.raises(SettingsError, match=f"SPOTD_HTTP_PORT.*127.0.0.1:{server.port}") as caught:
        await second.start("127.0.0.1", server.port)
    assert caught.value.exit_code == 2
    await second.stop()  # there is nothing to stop, and that is no error


async def test_an_address_that_is_none_is_a_wrong_setting(pages: Pages) -> None:
    """A host that is not ours, or does not exist."""
    for host in ("192.0.2.1", "no.such.invalid"):
        with pytest.raises(SettingsError, match="SPOTD_HTTP_HOST"):
            await HttpServer(pages).start(host, free_port())


def test_the_daemon_ends_with_2_where_its_port_is_taken(tmp_path: Path) -> None:
    """One line on stderr, no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [sys.executable, "-m", "spotd", "run"],
            cwd=tmp_path,
            env={
                "ALPACA_API_KEY": "k",
                "ALPACA_SECRET_KEY": "s",
                "SPOTD_HTTP_PORT": str(taken.getsockname()[1]),
                "SPOTD_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
                "SPOTD_STREAM_URL": f"ws://127.0.0.1:{free_port()}",
            },
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert "SPOTD_HTTP_PORT" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
