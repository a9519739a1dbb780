"""Talks to whoever asks over HTTP before any route does: tokens, origins, and errors in one form.

What is wrong with a request is always told as ``SubscribeSpotPricesResponse`` with ``"error"``.
No token is ever logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec
from aiohttp import hdrs, web

from spotd.relay.access import Origins, Tokens, bearer_of, offered_token
from spotd.relay.protocol import SubscribeSpotPricesResponse

STREAMS = ("/ws", "/sse")  # their clients cannot always set headers

_PREFLIGHT = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_WORDS = {
    404: "there is no such page",
    405: "the method is not allowed here",
    413: "the body is too large",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class RefusedError(Exception):
    """A request is answered with an error."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        refused: dict[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.refused = refused or {}
        self.headers = dict(headers or {})


class Guard:
    """Lets requests through, or refuses them. ``open_paths`` are for everybody.

    ``count`` is called with the status of every error.
    """

    def __init__(
        self,
        tokens: Iterable[str],
        origins: Iterable[str],
        open_paths: Collection[str],
        count: Callable[[str], None],
    ) -> None:
        self._tokens = Tokens(tokens)
        self._origins = Origins(origins)
        self._open_paths = frozenset(open_paths)
        self._count = count

    @web.middleware
    async def let_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, by its handler or with an error."""
        origin = request.headers.get(hdrs.ORIGIN)
        try:
            if request.path in self._open_paths:
                return await handler(request)
            if not self._origins.accept(origin, request.headers.get(hdrs.HOST, "")):
                raise RefusedError(403, "the origin of the page is not allowed")
            if request.method == hdrs.METH_OPTIONS:
                # A browser asks whether the page may ask; it sends no token with this.
                response: web.StreamResponse = web.Response(status=204, headers=_PREFLIGHT)
            else:
                self._require_token(request)
                response = await handler(request)
        except RefusedError as error:
            response = self._error(error)
        except web.HTTPException as error:
            words = _WORDS.get(error.status, error.reason)
            allowed = {"Allow": error.headers["Allow"]} if error.status == 405 else {}
            response = self._error(RefusedError(error.status, words, headers=allowed))
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        if origin is not None and response.status != 403:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        return response

    def _require_token(self, request: web.Request) -> None:
        given = bearer_of(request.headers.get(hdrs.AUTHORIZATION))
        if given is None and request.path in STREAMS:
            given = offered_token(_subprotocols(request)) or request.query.get("token")
        if not self._tokens.accept(given):
            raise RefusedError(
                401, "the token is missing or wrong", headers={hdrs.WWW_AUTHENTICATE: "Bearer"}
            )

    def _error(self, error: RefusedError) -> web.Response:
        self._count(str(error.status))
        body = SubscribeSpotPricesResponse("error", str(error), [], error.refused)
        response = answer(body, error.status)
        response.headers.update(error.headers)
        return response


def answer(value: Any, status: int = 200) -> web.Response:
    """Return a response with this value as JSON, which nobody keeps."""
    return web.Response(
        body=msgspec.json.encode(value),
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def _subprotocols(request: web.Request) -> list[str]:
    headers = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
    return [part.strip() for header in headers for part in header.split(",")]
