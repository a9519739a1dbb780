"""Decides the form in which a client is told what is wrong with its request.

It is always ``SubscribeSpotPricesResponse`` with ``"error"``. Must not know any framework.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from spotd.relay.protocol import SubscribeSpotPricesResponse

TOO_LARGE = "the body is too large"  # with 413


class RefusedError(Exception):
    """A request is answered with an error: an HTTP status, a sentence, refused entries."""

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

    def body(self) -> bytes:
        """Return the body of the answer."""
        return msgspec.json.encode(
            SubscribeSpotPricesResponse("error", str(self), [], self.refused)
        )
