"""Stands before every route of HTTP: asks for tokens and origins, gives all errors one form.

``access`` decides, ``refused`` has the form of errors. No token is ever logged.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection

from aiohttp import hdrs, web

from spotd.relay.access import STREAM_PATHS, Access
from spotd.relay.refused import TOO_LARGE, RefusedError

_PREFLIGHT = {
    hdrs.ACCESS_CONTROL_ALLOW_METHODS: "GET, POST",
    hdrs.ACCESS_CONTROL_ALLOW_HEADERS: "Authorization, Content-Type",
    hdrs.ACCESS_CONTROL_MAX_AGE: "600",
}
_WORDS = {
    404: "there is no such page",
    405: "the method is not allowed here",
    413: TOO_LARGE,
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

log = logging.getLogger("spotd.relay.http")


class Guard:
    """Lets requests through, or refuses them. ``open_paths`` are for everybody.

    ``count`` is called with the status of every error.
    """

    def __init__(
        self, access: Access, open_paths: Collection[str], count: Callable[[str], None]
    ) -> None:
        self._access = access
        self._open_paths = frozenset(open_paths)
        self._count = count

    @web.middleware
    async def let_through(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Answer a request, by its handler or with an error."""
        origin = request.headers.get(hdrs.ORIGIN)
        try:
            if request.path in self._open_paths:
                return await handler(request)
            self._access.require_origin(origin, request.headers.get(hdrs.HOST, ""))
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
        except Exception:
            log.exception("a defect in the answer to %s %s", request.method, request.path)
            response = self._error(RefusedError(500, "a defect of the relay; its log says more"))
        response.headers[hdrs.VARY] = hdrs.ORIGIN
        if origin is not None and response.status != 403:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = hdrs.RETRY_AFTER
        return response

    def _require_token(self, request: web.Request) -> None:
        authorization = request.headers.get(hdrs.AUTHORIZATION)
        if request.path in STREAM_PATHS:
            self._access.require_token(
                authorization, _subprotocols(request), request.query.get("token")
            )
        else:
            self._access.require_token(authorization)

    def _error(self, error: RefusedError) -> web.Response:
        self._count(str(error.status))
        response = answer(error.body(), error.status)
        response.headers.update(error.headers)
        return response


def answer(body: bytes, status: int = 200) -> web.Response:
    """Return a response with this JSON, which nobody keeps."""
    return web.Response(
        body=body,
        status=status,
        content_type="application/json",
        headers={hdrs.CACHE_CONTROL: "no-store"},
    )


def _subprotocols(request: web.Request) -> list[str]:
    headers = request.headers.getall(hdrs.SEC_WEBSOCKET_PROTOCOL, [])
    return [part.strip() for header in headers for part in header.split(",")]
