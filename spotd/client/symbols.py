"""Decides which symbols entries mean, by the daemon's own rule. Must not talk to anything."""

from __future__ import annotations

from collections.abc import Iterable

import spotd.symbols


def symbol_of(entry: str, *, allow_wildcard: bool = False) -> str | None:
    """Return the symbol that an entry means, trimmed and upper-cased; None if it means none."""
    # Only ASCII is upper-cased there: "ſpy".upper() would be a symbol that nobody asked for.
    raw = entry.encode("utf-8", "replace")
    symbol = spotd.symbols.symbol_of(raw, allow_wildcard=allow_wildcard)
    return symbol if isinstance(symbol, str) else None


def check_texts(entries: Iterable[object]) -> None:
    """Raise TypeError where an entry is no text: a list, perhaps, that was passed as one symbol."""
    for entry in entries:
        if not isinstance(entry, str):
            raise TypeError(
                f"a symbol must be a text, not a {type(entry).__name__}: write *symbols to pass "
                "the symbols of a list"
            )


def symbols_of(entries: Iterable[str], *, allow_wildcard: bool = False) -> list[str]:
    """Return the symbols that entries mean, each once.

    Raises ValueError with the malformed ones, and TypeError for what is no text, such as a list
    that was given as one symbol.
    """
    if isinstance(entries, str):
        raise TypeError("symbols must be a list or the like, not one text")
    entries = tuple(entries)
    check_texts(entries)
    meaning = {entry: symbol_of(entry, allow_wildcard=allow_wildcard) for entry in entries}
    malformed = [repr(entry[:64]) for entry, symbol in meaning.items() if symbol is None]
    if malformed:
        raise ValueError(f"not a symbol: {', '.join(malformed)}")
    return list(dict.fromkeys(symbol for symbol in meaning.values() if symbol is not None))
