"""Decides how the page and its files, which lie in ``static/``, are served. They need no token.

They are read once, at the start, and served with an ETag: a browser asks each time and gets
nothing new until a newer relay runs.
"""

from __future__ import annotations

import mimetypes
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

STATIC = Path(__file__).parent / "static"
HEADERS = {
    # Nothing from elsewhere, nothing inline. connect-src 'self' includes our own websocket.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # kept, but asked for each time
    # Pages of any origin may load spotd.js: it is the same for everybody.
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
_TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".ts": "text/plain"}


class Served(NamedTuple):
    """The answer to a browser that asks for a file."""

    status: int
    headers: dict[str, str]
    body: bytes


class PageFile:
    """One file, in memory."""

    def __init__(self, body: bytes, content_type: str) -> None:
        self._body = body
        self._content_type = content_type
        self._etag = f'"{sha256(body).hexdigest()[:32]}"'

    def answer(self, if_none_match: str | None) -> Served:
        """Return the answer to a request with this header: 304 where the browser has the file."""
        headers = {**HEADERS, "ETag": self._etag}
        known = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
        if self._etag in known or "*" in known:
            return Served(304, headers, b"")
        return Served(200, {**headers, "Content-Type": self._content_type}, self._body)


def page_files(folder: Path = STATIC) -> dict[str, PageFile]:
    """Return the file of each path; ``/`` is ``index.html``."""
    files = {}
    for file in sorted(folder.rglob("*")):
        if file.is_file() and not file.name.startswith("."):
            path = f"/{file.relative_to(folder).as_posix()}"
            files[path] = PageFile(file.read_bytes(), _type_of(file))
            if path == "/index.html":
                files["/"] = files[path]
    return files


def _type_of(file: Path) -> str:
    guessed = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0]
    kind = guessed or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind
