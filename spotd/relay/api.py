"""Talks HTTP to clients: every route of the web tier. Decides nothing about prices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Protocol

import msgspec
from aiohttp import hdrs, web
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate
from spotd.relay import protocol
from spotd.relay.access import SUBPROTOCOL
from spotd.relay.connection import EventStream, WebSocket, take_over
from spotd.relay.guard import Guard, RefusedError, answer
from spotd.relay.limits import Full
from spotd.relay.openapi import openapi
from spotd.relay.pages import page_handlers
from spotd.relay.protocol import (
    SubscribeSpotPricesRequest,
    SubscribeSpotPricesResponse,
)
from spotd.relay.relay import Relay
from spotd.relay.session import refusal

_JSON = "application/json"
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_EVENTS_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    "X-Accel-Buffering: no\r\n"  # nginx would hold events back
    "Connection: close\r\n"
)
_RETRY_AFTER_S = 2  # where Redis is away


class Prices(Protocol):
    """What answers ``GET /api/spot-prices``: ``spotd.client.SpotClient``."""

    async def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """Return the newest price of each. Raises RedisUnavailableError."""


class Api:
    """The routes of one relay."""

    def __init__(
        self, relay: Relay, prices: Prices, tokens: Iterable[str], origins: Iterable[str]
    ) -> None:
        self._relay = relay
        self._prices = prices
        self._openapi = msgspec.json.encode(openapi())
        pages = page_handlers()
        guard = Guard(tokens, origins, {"/livez", "/readyz", *pages}, self._count_refused)
        self.app = web.Application(
            middlewares=[guard.let_through], client_max_size=relay.limits.message_bytes
        )
        self.app.add_routes([web.get(path, handler) for path, handler in pages.items()])
        self.app.add_routes(
            [
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                web.get("/metrics", self._metrics),
                web.get("/openapi.json", self._document),
                web.get("/api/spot-prices", self._spot_prices),
                web.post("/api/positions/subscribe-spot-prices", self._subscribe),
                web.get("/ws", self._websocket, allow_head=False),
                web.get("/sse", self._events, allow_head=False),
            ]
        )

    def _count_refused(self, code: str) -> None:
        self._relay.metrics.refused[code] += 1

    # For operators

    async def _livez(self, _: web.Request) -> web.Response:
        # That this runs at all says that the event loop turns.
        return web.json_response([])

    async def _readyz(self, _: web.Request) -> web.Response:
        reasons = self._relay.not_ready()
        return web.json_response(reasons, status=503 if reasons else 200)

    async def _metrics(self, _: web.Request) -> web.Response:
        body = self._relay.metrics.text()
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: _PROMETHEUS})

    async def _document(self, _: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type=_JSON)

    # Prices on request

    async def _spot_prices(self, request: web.Request) -> web.Response:
        """Answer with the newest prices. Without symbols it tells whether a client may come in."""
        symbols = self._symbols_asked(request)
        if not symbols and not self._relay.has_room:
            raise _full(Full("too_many_clients", "the relay is full", _RETRY_AFTER_S))
        try:
            # Without a symbol, it would be the whole market.
            prices = await self._prices.latest(*symbols) if symbols else {}
        except RedisUnavailableError as error:
            raise _redis_away(error) from error
        # By the models, whose JSON has the microseconds that the contract wants.
        raw = {
            symbol: None if price is None else msgspec.Raw(price.to_json())
            for symbol, price in prices.items()
        }
        return answer({"prices": raw})

    async def _subscribe(self, request: web.Request) -> web.Response:
        body = await request.read()
        try:
            asked = _REQUESTS.decode(body)
        except msgspec.ValidationError as error:
            raise RefusedError(422, str(error)) from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise RefusedError(400, "the body is not JSON") from error
        symbols, refused = protocol.symbols_of(asked.symbols)
        most = self._relay.limits.symbols
        refused |= dict.fromkeys(symbols[most:], "symbol_limit")
        try:
            wanted = await self._relay.reserve(symbols[:most])
        except RedisUnavailableError as error:
            raise _redis_away(error) from error
        refused |= wanted.refused
        if not wanted.accepted:
            raise RefusedError(422, refusal(refused) or "symbols is empty", refused=refused)
        return answer(
            SubscribeSpotPricesResponse(
                "success", self._words_for(wanted.accepted), wanted.accepted, refused
            )
        )

    def _words_for(self, symbols: list[str]) -> str:
        number = "1 symbol" if len(symbols) == 1 else f"{len(symbols)} symbols"
        words = f"Subscribed to spot prices for {number}"
        if not self._relay.has_daemon:
            words += "; no daemon runs, prices come when one does"
        if not self._relay.demands:
            words += "; this relay demands nothing and shows what is streamed anyway"
        return words

    # Streams

    async def _websocket(self, request: web.Request) -> web.StreamResponse:
        handshake = ServerProtocol(
            # Of what is offered, only this is answered: the token must not come back.
            subprotocols=[SUBPROTOCOL],  # type: ignore[list-item]  # a NewType of str
            select_subprotocol=_select,  # type: ignore[arg-type]  # the same
        )
        response = handshake.accept(
            Request(request.path_qs, Headers(list(request.headers.items())))
        )
        if response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            raise RefusedError(
                response.status_code,
                "the request is not the handshake of a websocket",
                headers={
                    name: value
                    for name, value in response.headers.raw_items()
                    if name in ("Upgrade", "Sec-WebSocket-Version")
                },
            )
        taken = self._enter(request)
        if taken is None:
            return _unsent()
        transport, behind = taken
        transport.write(response.serialize())
        connection = WebSocket(self._relay, transport)
        connection.start()
        if behind:
            connection.data_received(behind)
        return _unsent()

    async def _events(self, request: web.Request) -> web.StreamResponse:
        symbols = self._symbols_asked(request)
        if not symbols:
            raise RefusedError(422, "symbols is missing")
        try:
            max_hz = msgspec.convert(
                request.query.get("max_hz"), protocol.MaxHz | None, strict=False
            )
        except msgspec.ValidationError as error:
            raise RefusedError(422, f"max_hz: {error}") from error
        taken = self._enter(request)
        if taken is None:
            return _unsent()
        transport, _ = taken
        head = _EVENTS_HEAD
        if (origin := request.headers.get(hdrs.ORIGIN)) is not None:
            head += f"Access-Control-Allow-Origin: {origin}\r\nVary: Origin\r\n"
        transport.write(f"{head}\r\n".encode("utf-8", "surrogateescape"))
        connection = EventStream(self._relay, transport)
        connection.start()
        connection.subscribe(symbols, max_hz)
        return _unsent()

    def _enter(self, request: web.Request) -> tuple[asyncio.Transport, bytes] | None:
        """Take over the connection of a client that is let in; None where it has left."""
        full = self._relay.enter()
        if full is not None:
            raise _full(full)
        taken = take_over(request)
        if taken is None:
            self._relay.turn_back()
        return taken

    def _symbols_asked(self, request: web.Request) -> list[str]:
        """Return the symbols of a query. Raises RefusedError for malformed and for too many."""
        asked = request.query.get("symbols", "")
        symbols, refused = protocol.symbols_of(filter(None, asked.split(",")))
        most = self._relay.limits.symbols
        refused |= dict.fromkeys(symbols[most:], "symbol_limit")
        if refused:
            raise RefusedError(422, refusal(refused), refused=refused)
        return symbols


_REQUESTS = msgspec.json.Decoder(SubscribeSpotPricesRequest)


def _select(_: ServerProtocol, offered: list[str]) -> str | None:
    return SUBPROTOCOL if SUBPROTOCOL in offered else None


def _unsent() -> web.Response:
    """Return what a handler returns whose connection is taken over: for aiohttp it is lost."""
    return web.Response()


def _full(full: Full) -> RefusedError:
    return RefusedError(503, full.message, headers={hdrs.RETRY_AFTER: str(full.retry_after_s)})


def _redis_away(error: RedisUnavailableError) -> RefusedError:
    return RefusedError(503, str(error), headers={hdrs.RETRY_AFTER: str(_RETRY_AFTER_S)})
