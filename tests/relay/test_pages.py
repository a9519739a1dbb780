"""The page and its files: what is there is served, to everybody, and nothing from elsewhere."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from spotd.relay.api import page_routes
from spotd.relay.pages import page_files


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve a folder with a page, a module in a folder of its own, and other files."""
    (tmp_path / "page").mkdir()
    for name in ("index.html", "spotd.js", "spotd.d.ts", "page/table.js", "icon.svg", ".hidden"):
        (tmp_path / name).write_text(f"this is {name}")
    (tmp_path / "data.unknown").write_bytes(b"\0")
    app = web.Application()
    app.add_routes(page_routes(page_files(tmp_path)))
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    [address] = runner.addresses
    async with aiohttp.ClientSession(f"http://127.0.0.1:{address[1]}") as session:
        yield session
    await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "name", "content_type"),
    [
        ("/", "index.html", "text/html"),
        ("/index.html", "index.html", "text/html"),
        ("/spotd.js", "spotd.js", "text/javascript"),
        ("/spotd.d.ts", "spotd.d.ts", "text/plain"),
        ("/page/table.js", "page/table.js", "text/javascript"),
        ("/icon.svg", "icon.svg", "image/svg+xml"),
        ("/data.unknown", None, "application/octet-stream"),
    ],
)
async def test_each_file_has_its_path_and_type(
    http: aiohttp.ClientSession, path: str, name: str | None, content_type: str
) -> None:
    """So have files in folders. Pages of any origin may load the modules."""
    response = await http.get(path)
    assert response.status == 200
    assert response.content_type == content_type
    if name is not None:
        assert await response.text() == f"this is {name}"
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


async def test_pages_load_nothing_from_elsewhere(http: aiohttp.ClientSession) -> None:
    """A strict policy: nothing inline, no other host, no frame around it."""
    policy = (await http.get("/")).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy


@pytest.mark.parametrize("path", ["/.hidden", "/page/", "/../pages.py", "/page/%2e%2e/.hidden"])
async def test_nothing_else_is_served(http: aiohttp.ClientSession, path: str) -> None:
    """Only what was listed at the start."""
    assert (await http.get(path)).status == 404


async def test_an_unchanged_file_is_not_sent_again(http: aiohttp.ClientSession) -> None:
    """A browser asks with the ETag that it has."""
    first = await http.get("/spotd.js")
    assert first.headers["Cache-Control"] == "no-cache"
    again = await http.get("/spotd.js", headers={"If-None-Match": first.headers["ETag"]})
    assert again.status == 304
    assert again.headers["ETag"] == first.headers["ETag"]
    other = await http.get("/spotd.js", headers={"If-None-Match": '"another"'})
    assert other.status == 200
