"""Talks HTTP: health, status and metrics for operators. Decides nothing, changes nothing."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import web

from spotd.errors import SettingsError

_JSON = "application/json; charset=utf-8"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"


class Views(Protocol):
    """What the pages show; each is asked at every request."""

    def not_ready(self) -> list[str]:
        """Reasons against being ready."""

    def status_json(self) -> bytes:
        """DaemonStatus."""

    def metrics_text(self) -> bytes:
        """Prometheus text."""


class HttpServer:
    """``/livez``, ``/readyz``, ``/status`` and ``/metrics`` on one address."""

    def __init__(self, views: Views) -> None:
        self._views = views
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Listen. Raises SettingsError where the address cannot be had."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/status", self._answer(self._views.status_json, _JSON)),
                web.get("/metrics", self._answer(self._views.metrics_text, _PROMETHEUS)),
            ]
        )
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            raise SettingsError(
                f"SPOTD_HTTP_HOST, SPOTD_HTTP_PORT: cannot listen on {host}:{port}: "
                f"{error.strerror or error}"
            ) from error
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _livez(self, _: web.Request) -> web.Response:
        # That this runs at all says that the event loop turns.
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
