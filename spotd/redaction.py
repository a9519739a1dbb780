"""Decides in which forms a secret may appear in a text, and cuts them out.

Must not know any secret itself, or what the text is for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

REDACTED = "***"
_MIN_MASKED_BYTES = 4


def without(secrets: Iterable[str], text: str) -> str:
    """Return the text without the secrets, however they are escaped in it."""
    found = {spelling for secret in secrets if secret for spelling in spellings_of(secret)}
    for spelling in sorted(found, key=len, reverse=True):
        text = text.replace(spelling, REDACTED)
    return text


def spellings_of(secret: str) -> set[str]:
    """Return a secret as it is, and as JSON, repr and URLs escape it, one inside the other too."""
    found = {secret, quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for _ in range(2):
        found |= {
            escaped
            for text in found
            for escaped in (
                json.dumps(text)[1:-1],
                json.dumps(text, ensure_ascii=False)[1:-1],
                repr(text)[1:-1],
            )
        }
    return found


class Mask:
    """Masks secrets in bytes whose lengths are written elsewhere, as MessagePack does.

    As many asterisks take the place of a secret. A secret of fewer than four bytes is not masked:
    it may be part of ordinary data.
    """

    def __init__(self, secrets: Iterable[str]) -> None:
        found = {text.encode() for secret in secrets for text in spellings_of(secret)}
        self._spellings = sorted(
            (text for text in found if len(text) >= _MIN_MASKED_BYTES), key=len, reverse=True
        )

    def over(self, data: bytes) -> bytes:
        """Return the data with all secrets masked, however they are escaped; it is as long."""
        for text in self._spellings:
            data = data.replace(text, b"*" * len(text))
        return data
