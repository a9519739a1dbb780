"""Talks to browsers: the page and its files, which lie in ``static/``. They need no token.

They are read once, at the start, and served with an ETag: a browser asks each time and gets
nothing new until a newer relay runs.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Awaitable, Callable
from hashlib import sha256
from pathlib import Path

from aiohttp import web

STATIC = Path(__file__).parent / "static"
HEADERS = {
    # Nothing from elsewhere, nothing inline. connect-src 'self' includes our own websocket.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; manifest-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for each time
    # Pages of any origin may load spotd.js: it is the same for everybody.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".ts": "text/plain"}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def page_handlers(folder: Path = STATIC) -> dict[str, Handler]:
    """Return a handler for the path of each file; ``/`` is ``index.html``."""
    handlers = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            handler = _serving(file.read_bytes(), _type_of(file))
            path = f"/{file.relative_to(folder).as_posix()}"
            handlers[path] = handler
            if path == "/index.html":
                handlers["/"] = handler
    return handlers


def _type_of(file: Path) -> str:
    guessed = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    kind = guessed or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


def _serving(body: bytes, content_type: str) -> Handler:
    etag = sha256(body).hexdigest()[:32]

    async def handler(request: web.Request) -> web.StreamResponse:
        known = request.if_none_match or ()
        if any(tag.value in (etag, "*") for tag in known):
            response = web.Response(status=304, headers=HEADERS)
        else:
            response = web.Response(body=body, headers={**HEADERS, "Content-Type": content_type})
        response.etag = etag
        return response

    return handler
