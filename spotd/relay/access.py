"""Decides whether a request may be answered: by its token, and by the origin of its page.

Must not log: no token may stand anywhere.
"""

from __future__ import annotations

import binascii
import re
from base64 import urlsafe_b64decode
from collections.abc import Iterable
from hmac import compare_digest
from urllib.parse import urlsplit

from spotd.relay.refused import RefusedError

SUBPROTOCOL = "spotd.v1"
STREAM_PATHS = ("/ws", "/sse")  # their clients cannot always set headers
_BEARER = "bearer."
_DEFAULT_PORTS = {"http": 80, "https": 443}


class Access:
    """Whose requests a relay answers."""

    def __init__(self, tokens: Iterable[str], origins: Iterable[str]) -> None:
        self._tokens = Tokens(tokens)
        self._origins = Origins(origins)

    def require_origin(self, origin: str | None, host: str) -> None:
        """Raise RefusedError for a page of another origin. The arguments are the two headers."""
        if not self._origins.accept(origin, host):
            raise RefusedError(403, "the origin of the page is not allowed")

    def require_token(
        self, authorization: str | None, subprotocols: Iterable[str] = (), query: str | None = None
    ) -> None:
        """Raise RefusedError for a request without one of the tokens.

        The others are looked at where there is no Authorization header: not every client can set
        it. ``query`` is a token in the address.
        """
        given = bearer_of(authorization)
        if given is None:
            given = offered_token(subprotocols) or query
        if not self._tokens.accept(given):
            raise RefusedError(
                401, "the token is missing or wrong", headers={"WWW-Authenticate": "Bearer"}
            )


class Tokens:
    """The tokens of a relay, each of which is accepted. Without any, none is needed.

    Raises ValueError for a token that no header could carry, such as an empty one.
    """

    def __init__(self, tokens: Iterable[str]) -> None:
        given = tuple(tokens)
        if not all(re.fullmatch(r"[!-~]+", token) for token in given):
            raise ValueError("a token must be printable ASCII without spaces")
        self._tokens = [token.encode() for token in given]

    def accept(self, given: str | None) -> bool:
        """Return whether this is one of them, in a time that does not tell which."""
        if not self._tokens:
            return True
        candidate = (given or "").encode("utf-8", "surrogateescape")
        # Each is compared, and compared whole, also behind one that is equal.
        return sum(compare_digest(candidate, token) for token in self._tokens) > 0


class Origins:
    """The origins whose pages may use a relay; without any, only that of the relay itself.

    ``*`` stands for every origin. Raises ValueError for an entry that is not an origin.
    """

    def __init__(self, allowed: Iterable[str]) -> None:
        self._allowed = frozenset(origin.rstrip("/").lower() for origin in allowed)
        for origin in self._allowed - {"*"}:
            scheme, found, rest = origin.partition("://")
            if not (found and scheme and rest and "/" not in rest):
                raise ValueError("an origin is scheme://host or scheme://host:port")

    def accept(self, origin: str | None, host: str) -> bool:
        """Return whether a request may come from this Origin header.

        A request without one does not come from a page of another origin. ``host`` is the Host
        header. Behind a proxy the scheme is not known, so the same host and port are enough.

        ``host`` is compared with no list, since behind a proxy it may be any name. As a
        consequence, a name that leads to the relay's address is its own origin, whoever owns the
        name (DNS rebinding). A token keeps such a page out.
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
    """Return the token of an Authorization header, None where it holds no token."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def offered_token(subprotocols: Iterable[str]) -> str | None:
    """Return the token among subprotocols (``bearer.<base64url>``), or None."""
    for offered in subprotocols:
        if offered.startswith(_BEARER):
            encoded = offered.removeprefix(_BEARER)
            try:
                padded = encoded + "=" * (-len(encoded) % 4)
                return urlsafe_b64decode(padded).decode("utf-8", "surrogateescape")
            except (binascii.Error, ValueError):
                return None
    return None


def chosen_subprotocol(offered: Iterable[str]) -> str | None:
    """Return what is answered to websocket subprotocols: never the token among them."""
    return SUBPROTOCOL if SUBPROTOCOL in offered else None
