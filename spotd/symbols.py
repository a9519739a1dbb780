"""Decides whether an entry of the demand is a symbol. Must not talk to anything."""

from __future__ import annotations

import re
from typing import NamedTuple

from spotd.models import MAX_ENTRY_CHARS, SYMBOL_PATTERN, RefusalReason

WILDCARD = "*"

# Alpaca's REST refuses hyphens, digits and lower case; its stream refuses the whole request that
# contains one.
_SYMBOL = re.compile(SYMBOL_PATTERN.encode("ascii"))


class Refusal(NamedTuple):
    """The reason for which an entry is not subscribed, and a sentence for people."""

    reason: RefusalReason
    detail: str


INVALID = Refusal("invalid_symbol", "a symbol is 1 to 8 letters, optionally a dot and 1 to 4 more")
WILDCARD_NOT_ALLOWED = Refusal(
    "wildcard_not_allowed", "the whole market is asked for, but SPOTD_ALLOW_WILDCARD is not true"
)


def symbol_of(entry: bytes, *, allow_wildcard: bool = False) -> str | Refusal:
    """Return the symbol that an entry names, trimmed and upper-cased, or a Refusal."""
    candidate = entry.strip().upper()
    if _SYMBOL.fullmatch(candidate):
        return candidate.decode("ascii")
    if candidate == b"*":
        return WILDCARD if allow_wildcard else WILDCARD_NOT_ALLOWED
    return INVALID


def is_symbol(text: str) -> bool:
    """Return whether a text has the form of a symbol without being changed."""
    return text.isascii() and _SYMBOL.fullmatch(text.encode("ascii")) is not None


def as_written(entry: bytes) -> str:
    """Return an entry as text for people and JSON: bad bytes escaped, cut at 64 characters."""
    # No 64 characters of UTF-8 are longer. As a consequence, the rest need not be decoded.
    head = entry[: MAX_ENTRY_CHARS * 4]
    return head.decode("utf-8", "backslashreplace")[:MAX_ENTRY_CHARS]
