"""Talks HTTP to clients: every route of the web tier. Decides nothing about prices."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from http import HTTPStatus

from aiohttp import hdrs, web
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.server import ServerProtocol

from spotd.ops.metrics import PROMETHEUS_TEXT
from spotd.relay.access import SUBPROTOCOL, Access, chosen_subprotocol
from spotd.relay.answers import Answers, Prices, request_in
from spotd.relay.connection import EventStream, WebSocket, take_over
from spotd.relay.guard import Guard, Handler, answer
from spotd.relay.openapi import document
from spotd.relay.pages import PageFile, page_files
from spotd.relay.refused import RefusedError
from spotd.relay.relay import Relay

_JSON = "application/json"
_EVENTS_HEAD = (
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-store\r\n"
    "X-Accel-Buffering: no\r\n"  # nginx would hold events back
    "Connection: close\r\n"
)


class Api:
    """The routes of one relay."""

    def __init__(
        self, relay: Relay, prices: Prices, tokens: Iterable[str], origins: Iterable[str]
    ) -> None:
        self._relay = relay
        self._answers = Answers(relay, prices)
        self._openapi = document()
        pages = page_files()
        guard = Guard(Access(tokens, origins), {"/livez", "/readyz", *pages}, self._count_refused)
        self.app = web.Application(
            middlewares=[guard.let_through], client_max_size=relay.limits.message_bytes
        )
        self.app.add_routes(page_routes(pages))
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
        return web.Response(body=body, headers={hdrs.CONTENT_TYPE: PROMETHEUS_TEXT})

    async def _document(self, _: web.Request) -> web.Response:
        return web.Response(body=self._openapi, content_type=_JSON)

    # Prices on request

    async def _spot_prices(self, request: web.Request) -> web.Response:
        return answer(await self._answers.spot_prices(request.query.get("symbols")))

    async def _subscribe(self, request: web.Request) -> web.Response:
        asked = request_in(await _body_of(request))
        return answer(await self._answers.subscribe(asked.symbols))

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
        symbols, max_hz = self._answers.stream_asked(
            request.query.get("symbols"), request.query.get("max_hz")
        )
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
        self._answers.enter()
        taken = take_over(request)
        if taken is None:
            self._relay.turn_back()
        return taken


def page_routes(files: Mapping[str, PageFile]) -> list[web.RouteDef]:
    """Return the routes of the page and its files, by their paths."""
    return [web.get(path, _serving(file)) for path, file in files.items()]


def _serving(file: PageFile) -> Handler:
    async def handler(request: web.Request) -> web.StreamResponse:
        served = file.answer(request.headers.get(hdrs.IF_NONE_MATCH))
        return web.Response(status=served.status, headers=served.headers, body=served.body)

    return handler


async def _body_of(request: web.Request) -> bytes:
    """Return the body. Raises RefusedError for one that is cut off, or not encoded as it says."""
    try:
        return await request.read()
    except (web.RequestPayloadError, OSError) as error:
        raise RefusedError(400, "the body cannot be read") from error


def _select(_: ServerProtocol, offered: list[str]) -> str | None:
    return chosen_subprotocol(offered)


def _unsent() -> web.Response:
    """Return what a handler returns whose connection is taken over: for aiohttp it is lost."""
    return web.Response()
