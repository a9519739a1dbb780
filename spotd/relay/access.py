"""Decides whether a request may be answered: by its token, and by the origin of its page.

Must not log: no token may stand anywhere.
"""

from __future__ import annotations

import binascii
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from hmac import compare_digest
from urllib.parse import urlsplit

SUBPROTOCOL = "spotd.v1"
_BEARER = "bearer."
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Tokens:
    """The tokens of a relay, none, one, or two during a rotation. Each of them is accepted."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self._tokens = [token.encode() for token in tokens]

    def accept(self, given: str | None) -> bool:
        """Return whether this is one of them, in a time that does not tell which."""
        if not self._tokens:
            return True
        candidate = (given or "").encode("utf-8", "surrogateescape")
        # Each is compared, and compared whole, also behind one that is equal.
        return sum(compare_digest(candidate, token) for token in self._tokens) > 0


class Origins:
    """The origins whose pages may use a relay; without any, only that of the relay itself.

    ``*`` stands for every origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)

    def accept(self, origin: str | None, host: str) -> bool:
        """Return whether a request may come from this Origin header.

        A request without one does not come from a page of another origin. ``host`` is the Host
        header. Behind a proxy the scheme is not known, so the same host and port are enough.
        """
        if origin is None or "*" in self._allowed or origin.lower() in self._allowed:
            return True
        try:
            page = urlsplit(origin)
            own = urlsplit(f"//{host}")
            default = _DEFAULT_PORTS.get(page.scheme)
            return page.hostname is not None and (
                (page.hostname, page.port or default) == (own.hostname, own.port or default)
            )
        except ValueError:  # a port that is not a number
            return False


def bearer_of(authorization: str | None) -> str | None:
    """Return the token of an Authorization header, None where it holds none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def offered_token(subprotocols: Iterable[str]) -> str | None:
    """Return the token among websocket subprotocols (``bearer.<base64url>``), None without one."""
    for offered in subprotocols:
        if offered.startswith(_BEARER):
            encoded = offered.removeprefix(_BEARER)
            try:
                padded = encoded + "=" * (-len(encoded) % 4)
                return urlsafe_b64decode(padded).decode("utf-8", "surrogateescape")
            except (binascii.Error, ValueError):
                return None
    return None
