"""Decides whether an entry of the demand is a symbol. Must not know where entries come from."""

from __future__ import annotations

import re
from typing import NamedTuple

from spotd.models import RefusalReason

WILDCARD = "*"
MAX_ENTRY_CHARS = 64

# Alpaca's own form, e.g. SPY or BRK.B: hyphens, digits and lower case are rejected by its REST
# and make its stream reject the whole request they are in.
_SYMBOL = re.compile(rb"[A-Z]{1,8}(?:\.[A-Z]{1,4})?")


class Refusal(NamedTuple):
    """Why an entry is not subscribed: a word for programs, a sentence for people."""

    reason: RefusalReason
    detail: str


INVALID = Refusal("invalid_symbol", "a symbol is 1 to 8 letters, optionally a dot and 1 to 4 more")
WILDCARD_NOT_ALLOWED = Refusal(
    "wildcard_not_allowed", "the whole market is asked for, but SPOTD_ALLOW_WILDCARD is not true"
)


def symbol_of(entry: bytes, *, allow_wildcard: bool = False) -> str | Refusal:
    """The symbol that an entry means, trimmed and upper-cased, or why it means none."""
    candidate = entry.strip().upper()
    if _SYMBOL.fullmatch(candidate):
        return candidate.decode("ascii")
    if candidate == b"*":
        return WILDCARD if allow_wildcard else WILDCARD_NOT_ALLOWED
    return INVALID


def is_symbol(text: str) -> bool:
    """Whether a text, as it stands, has the form of a symbol."""
    return text.isascii() and _SYMBOL.fullmatch(text.encode("ascii")) is not None


def as_written(entry: bytes) -> str:
    """An entry as a text for people and JSON: undecodable bytes escaped, cut at 64 characters."""
    # Longer than any 64 characters of UTF-8, so a megabyte entry costs no megabyte of decoding.
    head = entry[: MAX_ENTRY_CHARS * 4]
    return head.decode("utf-8", "backslashreplace")[:MAX_ENTRY_CHARS]
