"""Talks HTTP: health, status and metrics for operators. Must not decide or change anything.

Each page but ``/tap`` is answered at once. As a consequence, few connections with short lives are
enough.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from spotd.errors import SettingsError
from spotd.ops.http_logs import http_logger
from spotd.ops.listening import AcceptErrors, Refused
from spotd.ops.metrics import PROMETHEUS_TEXT
from spotd.ops.tap import TapPage, Taps

_log = logging.getLogger(__name__)
_JSON = "application/json; charset=utf-8"
_KEEPALIVE_S = 5.0
_BACKLOG = 16


class Views(Protocol):
    """The contents of the pages; each method is called at every request."""

    def not_ready(self) -> list[str]:
        """Return the reasons against being ready, each with its code; empty when ready."""

    def status_json(self) -> bytes:
        """Return the DaemonStatus as JSON."""

    def metrics_text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""


class HttpServer:
    """``/livez``, ``/readyz``, ``/status``, ``/metrics`` and ``/tap`` on one address.

    It holds at most ``max_connections``, each for at most ``connection_s`` seconds, but for those
    of recorders.
    """

    def __init__(
        self,
        views: Views,
        taps: Taps | None = None,
        *,
        max_connections: int = 64,
        connection_s: float = 30.0,
    ) -> None:
        self._views = views
        self._tap_page = TapPage(taps)
        self._max_connections = max_connections
        self._connection_s = connection_s
        self._runner: web.AppRunner | None = None
        self._listening: asyncio.Server | None = None
        self._accept_errors = AcceptErrors(_log)
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raise SettingsError if the address cannot be listened on."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/status", self._answer(self._views.status_json, _JSON)),
                web.get("/metrics", self._answer(self._views.metrics_text, PROMETHEUS_TEXT)),
                web.get("/tap", self._tap_page.answer, allow_head=False),
            ]
        )
        self._runner = web.AppRunner(
            app,
            access_log=None,
            logger=http_logger("spotd.http"),
            shutdown_timeout=0.5,
            keepalive_timeout=_KEEPALIVE_S,
        )
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._listening = await loop.create_server(
                self._connection, host, port, backlog=_BACKLOG
            )
        except OSError as error:
            await self.stop()
            raise SettingsError(
                f"SPOTD_HTTP_HOST, SPOTD_HTTP_PORT: cannot listen on {host}:{port}: "
                f"{error.strerror or error}"
            ) from error
        self.port = int(self._listening.sockets[0].getsockname()[1])
        self._accept_errors.begin()

    async def stop(self) -> None:
        """Stop listening."""
        self._tap_page.stop()
        if self._listening is not None:
            self._listening.close()
            self._listening = None
            self._accept_errors.end()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def _connection(self) -> asyncio.BaseProtocol:
        server = None if self._runner is None else self._runner.server
        if server is None or len(server.connections) >= self._max_connections:
            return Refused()
        handler = server()

        def end() -> None:
            transport = handler.transport
            if isinstance(transport, asyncio.Transport) and not self._tap_page.serves(transport):
                transport.abort()

        asyncio.get_running_loop().call_later(self._connection_s, end)
        return handler

    async def _livez(self, _: web.Request) -> web.Response:
        # This handler runs in the event loop. As a consequence, an answer proves that it turns.
        return web.json_response([])

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._views.not_ready()
        return web.Response(
            text=json.dumps(reasons),
            status=503 if reasons else 200,
            content_type="application/json",
        )

    @staticmethod
    def _answer(
        body: Callable[[], bytes], content_type: str
    ) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(_: web.Request) -> web.StreamResponse:
            return web.Response(body=body(), headers={"Content-Type": content_type})

        return handler
