"""Decides what ``/openapi.json`` says: OpenAPI 3.1, its schemas made from the models."""

from __future__ import annotations

from typing import Any

import msgspec

from spotd import __version__
from spotd.json_schema import components, encoded
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState
from spotd.relay import close_codes
from spotd.relay.messages import (
    DaemonAbsent,
    Error,
    Hello,
    Pong,
    RelayState,
    SpotPriceUpdateBatch,
    SpotPriceUpdateMessage,
)
from spotd.relay.protocol import (
    MaxHz,
    Ping,
    SpotPricesResponse,
    Subscribe,
    SubscribeSpotPricesRequest,
    SubscribeSpotPricesResponse,
    Unsubscribe,
)

_MODELS = (
    SpotPriceUpdate,
    SymbolState,
    DaemonStatus,
    Gap,
    SubscribeSpotPricesRequest,
    SubscribeSpotPricesResponse,
    SpotPricesResponse,
    Subscribe,
    Unsubscribe,
    Ping,
    Hello,
    SpotPriceUpdateMessage,
    SpotPriceUpdateBatch,
    DaemonAbsent,
    RelayState,
    Error,
    Pong,
)
_ERROR = SubscribeSpotPricesResponse
_SYMBOLS = {
    "name": "symbols",
    "in": "query",
    "required": True,
    "description": "Symbols, separated by commas.",
    "schema": {"type": "string", "examples": ["SPY,QQQ"]},
}
_MAX_HZ = {
    "name": "max_hz",
    "in": "query",
    "required": False,
    "schema": msgspec.json.schema(MaxHz),
}
_TOKEN_PARAMETER = {
    "name": "token",
    "in": "query",
    "required": False,
    "description": "The token, for clients that cannot set headers. Prefer the header.",
    "schema": {"type": "string"},
}


def document() -> bytes:
    """Return the document as ``/openapi.json`` and ``spotd schema openapi`` hold it."""
    return encoded(openapi())


def openapi() -> dict[str, Any]:
    """Return the document as builtins."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "spotd relay",
            "version": __version__,
            "description": "Live spot prices from Redis for browsers and other programs.",
        },
        "paths": _paths(),
        "components": {
            "schemas": components(_MODELS, "#/components/schemas/{name}"),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


def operation(method: str, path: str) -> dict[str, Any]:
    """Return what the document says of one route, as builtins."""
    found: dict[str, Any] = _paths()[path][method]
    return found


def _paths() -> dict[str, Any]:
    return {
        "/api/positions/subscribe-spot-prices": {
            "post": {
                "operationId": "subscribeSpotPrices",
                "summary": "Have symbols streamed.",
                "description": "Each symbol is demanded for 60 s, and as long after that as a "
                "websocket or an event stream for it is open.",
                "requestBody": {"required": True, "content": _json(SubscribeSpotPricesRequest)},
                "responses": {
                    "200": _answer("The symbols are demanded.", SubscribeSpotPricesResponse),
                    **_errors("400", "401", "403", "413", "422", "503"),
                },
            }
        },
        "/api/spot-prices": {
            "get": {
                "operationId": "spotPrices",
                "summary": "The newest known price of symbols.",
                "parameters": [_SYMBOLS],
                "responses": {
                    "200": _answer("The prices, null where none is known.", SpotPricesResponse),
                    **_errors("400", "401", "403", "422", "503"),
                },
            }
        },
        "/ws": {
            "get": {
                "operationId": "websocket",
                "summary": "A websocket with prices, states and status.",
                "description": _WEBSOCKET_TEXT,
                "parameters": [_TOKEN_PARAMETER],
                "responses": {
                    "101": {"description": "The websocket is open."},
                    **_errors("400", "401", "403", "426", "503"),
                },
            }
        },
        "/sse": {
            "get": {
                "operationId": "events",
                "summary": "The same messages as server-sent events.",
                "parameters": [_SYMBOLS, _MAX_HZ, _TOKEN_PARAMETER],
                "responses": {
                    "200": {
                        "description": "`event:` is the type of the message, `data:` its JSON.",
                        "content": {"text/event-stream": {"schema": {"type": "string"}}},
                    },
                    **_errors("400", "401", "403", "422", "503"),
                },
            }
        },
        "/livez": {"get": _probe("live", "200 while the relay runs.", {"200": "Yes."})},
        "/readyz": {
            "get": _probe(
                "ready",
                "503 with reasons when Redis or the daemon is away.",
                {"200": "Yes.", "503": "No; the reasons."},
            )
        },
    }


_WEBSOCKET_TEXT = f"""\
The client sends `Subscribe`, `Unsubscribe` and `Ping` objects. The server sends `Hello` first, then
`SpotPriceUpdateMessage` or `SpotPriceUpdateBatch`, `SymbolState`, `DaemonStatus` or `DaemonAbsent`,
`Gap`, `RelayState`, `Error` and `Pong` objects, told apart by `type`. A gap is sent once, to the
clients that are connected then. `spotd schema asyncapi` describes them all.

{close_codes.table()}
"""


def _probe(operation: str, summary: str, answers: dict[str, str]) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "array", "items": {"type": "string"}}}}
    return {
        "operationId": operation,
        "summary": summary,
        "security": [{}],
        "responses": {
            status: {"description": meaning, "content": content}
            for status, meaning in answers.items()
        },
    }


def _json(model: type) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def _answer(description: str, model: type) -> dict[str, Any]:
    return {"description": description, "content": _json(model)}


_MEANINGS = {
    "400": "The body is not JSON, `symbols` is missing in the query, or the handshake is wrong.",
    "401": "The token is missing or wrong.",
    "403": "The origin is not allowed.",
    "413": "The body is too large.",
    "422": "The body or query has another shape, no symbol of the body can be streamed, or one of "
    "the query cannot.",
    "426": "The request is not that of a websocket.",
    "503": "Redis is away, or the relay is full or stops; `Retry-After` says when to try again.",
}


def _errors(*statuses: str) -> dict[str, Any]:
    return {status: _answer(_MEANINGS[status], _ERROR) for status in statuses}
