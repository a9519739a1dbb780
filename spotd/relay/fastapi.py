"""Talks HTTP to clients within an application of FastAPI: the web tier as a router.

It decides nothing: ``access``, ``answers``, ``session`` and the hub do, as for ``spotd relay``. The
only module that imports fastapi.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from typing import Any, TypeAlias

from fastapi import APIRouter, Request, Response, WebSocket, params
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.types import Message, Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from spotd.pydantic_models import (
    SpotPricesResponse,
    SubscribeSpotPricesRequest,
    SubscribeSpotPricesResponse,
)
from spotd.relay import asgi
from spotd.relay.access import STREAM_PATHS, Access, chosen_subprotocol
from spotd.relay.answers import request_in
from spotd.relay.lifespan import Lifespan, Running
from spotd.relay.limits import Limits
from spotd.relay.openapi import operation
from spotd.relay.pages import PageFile, page_files
from spotd.relay.refused import TOO_LARGE, RefusedError
from spotd.relay.tokens_in_logs import TokensHidden, hidden_in_server_logs
from spotd.relay.wiring import wired

__all__ = ["Limits", "TokensHidden", "spot_prices"]

SUBSCRIBE = "/api/positions/subscribe-spot-prices"
SPOT_PRICES = "/api/spot-prices"
EVENTS = "/sse"
WEBSOCKET = "/ws"
_EVENTS_TYPE = "text/event-stream"

Handler: TypeAlias = Callable[[Request], Coroutine[Any, Any, Response]]


def spot_prices(
    redis_url: str,
    *,
    prefix: str = "",
    dependencies: Sequence[params.Depends] = (),
    tokens: Iterable[str] = (),
    origins: Iterable[str] = (),
    limits: Limits | None = None,
    demand: bool = True,
    page: bool = False,
    key_prefix: str = "spotd:",
    channel_prefix: str = "spot:",
) -> APIRouter:
    """Return a router with live prices, for one application::

        app.include_router(spot_prices("redis://127.0.0.1:6379/0"))

    It connects to Redis in the application's lifespan, and joins again by itself. Every path begins
    with ``prefix``. ``dependencies`` guard every route, also the websocket, for which they take an
    ``HTTPConnection`` and not a ``Request``; but not the files of the page, which ``page`` adds.

    ``tokens``, ``origins``, ``limits`` and ``demand`` are what SPOTD_RELAY_TOKEN,
    SPOTD_RELAY_ORIGINS, SPOTD_RELAY_MAX_… and SPOTD_RELAY_DEMAND are for ``spotd relay``. Pages of
    other ``origins`` need FastAPI's CORSMiddleware, too. Servers log addresses, in which a token
    may stand: while the application runs, tokens are hidden in the logs of uvicorn. For the logs of
    another server there is the filter ``TokensHidden``. The prefixes are the daemon's.

    Raises ValueError for a token or an origin that is not valid. The lifespan raises SettingsError
    for an address of Redis that is not valid.
    """
    known = tuple(tokens)
    access = Access(known, origins)
    lifespan = Lifespan(
        partial(
            wired,
            redis_url,
            limits or Limits(),
            demand=demand,
            key_prefix=key_prefix,
            channel_prefix=channel_prefix,
        ),
        partial(hidden_in_server_logs, known) if known else nullcontext,
    )
    edge = _Edge(lifespan, access)
    guarded = APIRouter(
        dependencies=list(dependencies), route_class=_route_class(edge), tags=["spot prices"]
    )
    _add_routes(guarded, edge)
    router = APIRouter(prefix=prefix, lifespan=lifespan.serve)
    router.include_router(guarded)
    if page:
        for path, file in page_files().items():
            router.add_api_route(path, _serving(file), include_in_schema=False)
    return router


class _Edge:
    """What the routes of one router stand on."""

    def __init__(self, lifespan: Lifespan, access: Access) -> None:
        self._lifespan = lifespan
        self._access = access

    @property
    def running(self) -> Running:
        """What the lifespan has made. Raises RefusedError outside of it."""
        return self._lifespan.running

    def require(self, connection: HTTPConnection, path: str) -> None:
        """Raise RefusedError where a request may not be answered. ``path`` is without a prefix."""
        headers = connection.headers
        self._access.require_origin(headers.get("Origin"), headers.get("Host", ""))
        self._access.require_token(
            headers.get("Authorization"),
            connection.scope.get("subprotocols", ()),
            connection.query_params.get("token") if path in STREAM_PATHS else None,
        )


# Routes


def _add_routes(router: APIRouter, edge: _Edge) -> None:
    @router.post(
        SUBSCRIBE, response_model=SubscribeSpotPricesResponse, **_described("post", SUBSCRIBE)
    )
    async def subscribe_spot_prices(asked: SubscribeSpotPricesRequest) -> Response:
        return _json(await edge.running.answers.subscribe(asked.symbols))

    @router.get(SPOT_PRICES, response_model=SpotPricesResponse, **_described("get", SPOT_PRICES))
    async def spot_prices_now(request: Request) -> Response:
        symbols = request.query_params.get("symbols")
        return _json(await edge.running.answers.spot_prices(symbols))

    @router.get(EVENTS, response_class=Response, **_described("get", EVENTS))
    async def events(request: Request) -> Response:
        asked = edge.running.answers.stream_asked(
            request.query_params.get("symbols"), request.query_params.get("max_hz")
        )
        return _Events(edge, *asked)

    @router.websocket(WEBSOCKET)
    async def websocket(websocket: WebSocket) -> None:
        await _serve_websocket(edge, websocket)


async def _serve_websocket(edge: _Edge, websocket: WebSocket) -> None:
    try:
        edge.require(websocket, WEBSOCKET)
        running = edge.running
        running.answers.enter()
    except RefusedError as error:
        await websocket.send_denial_response(_refusal(error))
        return
    try:
        await websocket.accept(chosen_subprotocol(websocket.scope["subprotocols"]))
        stream = asgi.WebSocket(running.relay, websocket.receive, websocket.send)
    except BaseException:  # the client has left, or the server stops
        running.relay.turn_back()
        raise
    with suppress(WebSocketDisconnect):  # Starlette raises it where the client has left
        await stream.run()


class _Events(StreamingResponse):
    """An event stream. The client comes in when the response begins, not before."""

    media_type = _EVENTS_TYPE

    def __init__(self, edge: _Edge, symbols: list[str], max_hz: float | None) -> None:
        super().__init__((), headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        self._edge = edge
        self._asked = symbols, max_hz

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            running = self._edge.running
            running.answers.enter()
        except RefusedError as error:
            await _refusal(error)(scope, receive, send)
            return
        head: Message = {
            "type": "http.response.start",
            "status": 200,
            "headers": self.raw_headers,
        }
        try:
            await send(head)
        except BaseException:  # the client has left, or the server stops
            running.relay.turn_back()
            raise
        stream = asgi.EventStream(running.relay, receive, send)
        stream.subscribe(*self._asked)
        await stream.run()


def _route_class(edge: _Edge) -> type[APIRoute]:
    class Route(APIRoute):
        """Refuses what the relay refuses, in its form, before FastAPI looks at a request."""

        def get_route_handler(self) -> Handler:
            handle = super().get_route_handler()
            path = self.path

            async def handler(request: Request) -> Response:
                try:
                    edge.require(request, path)
                    if request.method == "POST":
                        most_bytes = edge.running.relay.limits.message_bytes
                        receive = _limited(request.receive, most_bytes)
                        request = Request(_as_json(request.scope), receive)
                        request_in(await request.body())
                    return await handle(request)
                except RefusedError as error:
                    return _refusal(error)
                except ClientDisconnect:  # nobody reads the answer
                    return _refusal(RefusedError(400, "the body cannot be read"))
                except RequestValidationError as error:
                    return _refusal(RefusedError(422, _words_for(error)))

            return handler

    return Route


def _as_json(scope: Scope) -> Scope:
    """Return the scope of a request whose body is read as JSON, whatever it says of itself."""
    headers = [each for each in scope["headers"] if each[0] != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _limited(receive: Receive, most_bytes: int) -> Receive:
    """Return ``receive``, but it raises RefusedError where a body is too large."""
    received_bytes = 0

    async def limited() -> Message:
        nonlocal received_bytes
        message = await receive()
        received_bytes += len(message.get("body", b""))
        if received_bytes > most_bytes:
            raise RefusedError(413, TOO_LARGE)
        return message

    return limited


def _words_for(error: RequestValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"


def _json(body: bytes, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(
        body, status, {"Cache-Control": "no-store", **(headers or {})}, "application/json"
    )


def _refusal(error: RefusedError) -> Response:
    return _json(error.body(), error.status, error.headers)


def _serving(file: PageFile) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        served = file.answer(request.headers.get("If-None-Match"))
        return Response(served.body, served.status, served.headers)

    return serve


def _described(method: str, path: str) -> dict[str, Any]:
    """Return what ``/openapi.json`` says of a route, as the relay's own document has it."""
    told = operation(method, path)
    error = {"model": SubscribeSpotPricesResponse}
    responses: dict[int, dict[str, Any]] = {
        int(status): {"description": said["description"], **error}
        for status, said in told["responses"].items()
        if status != "200"
    }
    success = told["responses"]["200"]
    if _EVENTS_TYPE in success["content"]:
        responses[200] = {"content": success["content"]}
    return {
        "status_code": 200,
        "summary": told["summary"],
        "description": told.get("description"),
        "response_description": success["description"],
        "responses": responses,
        "openapi_extra": {"parameters": told.get("parameters", [])},
    }
