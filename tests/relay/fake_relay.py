"""A relay that a test drives by hand: prices, states, silence, a cut, a wrong token.

It speaks section 8 of the contract as far as a browser needs it, and serves the page and its files
as the real relay does. It decides nothing: it tells what the test says.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiohttp import WSMsgType, web

from spotd.models import rfc3339, utc
from spotd.relay.api import page_routes
from spotd.relay.pages import page_files
from tests.kit.ports import free_port

Json = dict[str, Any]


def now() -> str:
    """Return the present time as JSON of spotd writes it."""
    return rfc3339(utc(time.time()))


class FakeRelay:
    """Listens on one port, over any number of starts and stops."""

    def __init__(self, *, token: str | None = None) -> None:
        self.port = free_port()
        self.token = token
        self.requests: list[Json] = []  # what clients sent, in order
        self.daemon: Json | None = self.status()
        self.answers_pings = True
        self._prices: dict[str, Json] = {}
        self._states: dict[str, Json] = {}
        self._clients: dict[web.WebSocketResponse, set[str]] = {}
        self._transports: set[asyncio.Transport] = set()
        self._seq = itertools.count(1)
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """The page's address."""
        return f"http://127.0.0.1:{self.port}/"

    @property
    def clients(self) -> int:
        """How many websockets are open."""
        return len(self._clients)

    @property
    def wanted(self) -> set[str]:
        """The symbols that any client follows."""
        return set().union(*self._clients.values())

    async def start(self) -> None:
        """Listen, on the same port each time."""
        app = web.Application()
        app.router.add_get("/ws", self._websocket)
        app.router.add_get("/api/spot-prices", self._spot_prices)
        app.add_routes(page_routes(page_files()))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()

    async def stop(self) -> None:
        """Cut all connections and stop listening. What was told is remembered."""
        self.cut()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def cut(self) -> None:
        """End all websockets without a close frame, as a broken network does."""
        for transport in list(self._transports):
            transport.abort()

    async def close(self, code: int, reason: str) -> None:
        """Close all websockets with a close frame."""
        for client in list(self._clients):
            await client.close(code=code, message=reason.encode())

    # What is told

    async def price(
        self, symbol: str, bid: float, ask: float, last: float | None = None, at: str | None = None
    ) -> None:
        """Tell the newest price of a symbol, as if the exchange had sent it now or ``at``."""
        await self._tell(symbol, _update(self._put(symbol, bid, ask, last, at or now())))

    async def prices(self, quotes: Mapping[str, tuple[float, float]]) -> None:
        """Tell the prices of several symbols in one batch."""
        for symbol, (bid, ask) in quotes.items():
            self._put(symbol, bid, ask, bid, now())
        for client, symbols in list(self._clients.items()):
            updates = [self._prices[symbol] for symbol in quotes if symbol in symbols]
            if updates:
                await _send(client, _batch(updates))

    async def state(self, symbol: str, state: str, **more: str | None) -> None:
        """Tell the state of a symbol; ``reason``, ``code``, ``detail`` and ``since`` as given."""
        told = {"type": "symbol", "symbol": symbol, "state": state, "reason": None, "since": now()}
        self._states[symbol] = {**told, **more}
        await self._tell(symbol, self._states[symbol])

    async def live(self, symbol: str, bid: float, ask: float, last: float | None = None) -> None:
        """Tell that a symbol is live, and its price."""
        await self.state(symbol, "live")
        await self.price(symbol, bid, ask, last)

    def status(self, **more: Any) -> Json:
        """Return a status of the daemon, written now."""
        at = now()
        symbols = {"desired": 0, "live": 0, "refused": 0, "pending": 0, "stale": 0, "halted": 0}
        told = {"type": "daemon", "state": "streaming", "reason": None, "instance": "fake-1"}
        times = {"version": "0", "feed": "iex", "since": at, "at": at, "last_message_at": at}
        counts = {"quotes_received": 0, "updates_published": 0, "reconnects": 0}
        how = {"symbols": symbols, "lag_ms": 1.0, "breaker": "closed", **counts}
        return {**told, **times, **how, **more}

    async def tell_status(self, **more: Any) -> None:
        """Tell a new status of the daemon."""
        self.daemon = self.status(**more)
        await self.tell(self.daemon)

    async def tell_no_daemon(self) -> None:
        """Tell that no daemon runs."""
        self.daemon = None
        reason = "no daemon runs"
        await self.tell(
            {"type": "daemon", "state": "absent", "code": "no_daemon", "reason": reason}
        )

    async def tell(self, message: Json) -> None:
        """Tell every client anything."""
        for client in list(self._clients):
            await _send(client, message)

    # Within

    def _put(self, symbol: str, bid: float, ask: float, last: float | None, at: str) -> Json:
        update = self._prices[symbol] = {
            "symbol": symbol,
            "bid_price": bid,
            "ask_price": ask,
            "mid_price": round((bid + ask) / 2, 6),
            "last_price": last,
            "timestamp": at,
            "seq": next(self._seq),
        }
        return update

    async def _tell(self, symbol: str, message: Json) -> None:
        for client, symbols in list(self._clients.items()):
            if symbol in symbols:
                await _send(client, message)

    def _refuses(self, request: web.Request) -> bool:
        if self.token is None:
            return False
        encoded = base64.urlsafe_b64encode(self.token.encode()).decode().rstrip("=")
        offered = request.headers.get("Sec-WebSocket-Protocol", "").replace(" ", "").split(",")
        bearer = request.headers.get("Authorization")
        return f"bearer.{encoded}" not in offered and bearer != f"Bearer {self.token}"

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        if self._refuses(request):
            return web.json_response({"status": "error", "message": "token"}, status=401)
        client = web.WebSocketResponse(protocols=["spotd.v1"], compress=False)
        await client.prepare(request)
        transport = request.transport
        assert isinstance(transport, asyncio.Transport)
        self._transports.add(transport)
        self._clients[client] = set()
        relay = {"type": "relay", "state": "ready", "reason": None}
        feed = None if self.daemon is None else self.daemon["feed"]
        hello = {"type": "hello", "version": 1, "limits": {"symbols": 200}, "feed": feed}
        await _send(client, {**hello, "delay_s": 0, "daemon": self.daemon, "relay": relay})
        try:
            async for message in client:
                if message.type is WSMsgType.TEXT:
                    await self._asked(client, json.loads(message.data))
        finally:
            del self._clients[client]
            self._transports.discard(transport)
        return client

    async def _asked(self, client: web.WebSocketResponse, request: Json) -> None:
        self.requests.append(request)
        symbols = request.get("symbols", [])
        if request["action"] == "unsubscribe":
            self._clients[client].difference_update(symbols)
        elif request["action"] == "subscribe":
            self._clients[client].update(symbols)
            for symbol in symbols:
                if symbol in self._states:
                    await _send(client, self._states[symbol])
                if symbol in self._prices:
                    await _send(client, _update(self._prices[symbol]))
        elif self.answers_pings:
            await _send(client, {"type": "pong"})

    async def _spot_prices(self, request: web.Request) -> web.StreamResponse:
        status = 401 if self._refuses(request) else 200
        return web.json_response({"prices": {}}, status=status)


def _update(update: Json) -> Json:
    return {"type": "spot_price_update", "update": update, "timestamp": now()}


def _batch(updates: list[Json]) -> Json:
    return {"type": "spot_price_update_batch", "updates": updates, "timestamp": now()}


async def _send(client: web.WebSocketResponse, message: Json) -> None:
    with suppress(ConnectionError):  # it has left; its handler forgets it
        await client.send_str(json.dumps(message))
