"""Applications of FastAPI: served by uvicorn in the test's process, or asked without a server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import httpx
import uvicorn
from fastapi import FastAPI

from spotd.relay.fastapi import spot_prices
from tests.kit.waiting import GUARD_S, until

SUBSCRIBE = "/api/positions/subscribe-spot-prices"


def app_of(redis_url: str, **options: Any) -> FastAPI:
    """Return an application with the router alone."""
    app = FastAPI()
    app.include_router(spot_prices(redis_url, **options))
    return app


@asynccontextmanager
async def served(app: FastAPI, **options: Any) -> AsyncIterator[aiohttp.ClientSession]:
    """Serve an application on a free port. Yield a client of its HTTP."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="on", **options)
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started or running.done(), "uvicorn to listen")
        port = server.servers[0].sockets[0].getsockname()[1]
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            yield http
    finally:
        server.should_exit = True
        async with asyncio.timeout(GUARD_S):
            await running


@asynccontextmanager
async def asked(app: FastAPI, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """Run the lifespan of an application, without a server. Yield a client of its HTTP."""
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", **options) as http,
    ):
        yield http
