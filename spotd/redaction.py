"""Decides in which forms a secret may appear in a text, and cuts them out.

Every text that leaves passes a ``Redactor``: where words of others enter (``spotd.alpaca``, and
``spotd.redis.errors``, which knows the passwords of each connection), and again where texts leave
(``ops.logs``, ``daemon.states`` for status, states, gaps and HTTP, ``spotd check``).

Must not know any secret itself, or what the text is for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from urllib.parse import quote, quote_plus

REDACTED = "***"

_MIN_SECRET_CHARS = 4  # shorter ones occur inside ordinary words
_MIN_MASKED_BYTES = 4
_MIN_BEGINNING_CHARS = 6
_TEXTS_KEPT = 256  # thousands of states have the same reason

# Passwords that are not among the known secrets: in a URL's authority, or in its query. Each part
# is bounded and no match can begin inside another. As a consequence, the time of a search grows
# linearly with the text.
_IN_AUTHORITY = re.compile(r"""(://[^\s/@:"']{0,256}:)[^\s/"']{1,512}(@)""")
_IN_QUERY = re.compile(
    r"""([?&](?:\w{1,40}_)?(?:password|secret|token|key)=)[^&\s"']+""", re.IGNORECASE
)


class Redactor:
    """Returns texts without the secrets that it was given, and without any password in a URL."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._longest_first = _spellings(each for each in secrets if len(each) >= _MIN_SECRET_CHARS)
        self._known = (
            re.compile("|".join(map(re.escape, self._longest_first)))
            if self._longest_first
            else None
        )
        self.longest_chars = max(map(len, self._longest_first), default=0)
        self.kept = lru_cache(maxsize=_TEXTS_KEPT)(self.__call__)
        """The same, for texts that come again and again."""

    def __call__(self, text: str) -> str:
        """Return the text without secrets."""
        if self._known is not None:
            text = self._known.sub(REDACTED, text)
        if "://" in text:
            text = _IN_AUTHORITY.sub(rf"\1{REDACTED}\2", text)
        if "=" in text:
            text = _IN_QUERY.sub(rf"\1{REDACTED}", text)
        return text

    def words(self, text: str, most_chars: int) -> str:
        """Return the words of others fit to be told: on one line, cut, and without secrets.

        Others may have cut their words within a secret, so its beginning is no end of a text.
        """
        text = self(text)
        longest = max(self._beginnings_at_end(text), default=0)
        if longest:
            text = text[:-longest] + REDACTED
        return "".join(c if c.isprintable() else " " for c in text[:most_chars])

    def _beginnings_at_end(self, text: str) -> Iterator[int]:
        """Yield the length of each beginning of a secret with which the text ends."""
        for secret in self._longest_first:
            for length in range(_MIN_BEGINNING_CHARS, len(secret)):
                if text.endswith(secret[:length]):
                    yield length


def without(secrets: Iterable[str], text: str) -> str:
    """Return the text without the secrets, however they are escaped in it."""
    for spelling in _spellings(filter(None, secrets)):
        text = text.replace(spelling, REDACTED)
    return text


def _spellings(secrets: Iterable[str]) -> list[str]:
    """Return the spellings of all secrets, the longest first, since one may hold another."""
    found = {spelling for secret in secrets for spelling in _spellings_of(secret)}
    return sorted(found, key=len, reverse=True)


def _spellings_of(secret: str) -> set[str]:
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
        spellings = map(str.encode, _spellings(secrets))
        self._spellings = [each for each in spellings if len(each) >= _MIN_MASKED_BYTES]

    def over(self, data: bytes) -> bytes:
        """Return the data with all secrets masked, however they are escaped; it is as long."""
        for text in self._spellings:
            data = data.replace(text, b"*" * len(text))
        return data
