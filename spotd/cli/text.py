"""Decides how text, also text that others wrote, is shown on a terminal. Talks to nothing."""

from __future__ import annotations

from functools import lru_cache
from unicodedata import category, east_asian_width

_MOST_CHARS = 1_000


def printable(text: str, most_chars: int | None = _MOST_CHARS) -> str:
    """Return a text on one line, cut at ``most_chars``; None: whole.

    Everybody who writes to Redis may write an entry of the demand, or a status. As a consequence,
    what a terminal would carry out, reorder or break a line at is escaped, and megabytes are cut.
    """
    if most_chars is not None and len(text) > most_chars:
        text = f"{text[: most_chars - 1]}…"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def width_of(text: str) -> int:
    """Return how many cells of a terminal a printable text takes."""
    return len(text) if text.isascii() else sum(map(_cells, text))


def cut(text: str, cells: int) -> str:
    """Return a text that takes at most this number of cells; an ellipsis stands for the rest."""
    if width_of(text) <= cells:
        return text
    taken, kept = 1, ""  # the ellipsis takes one
    for char in text:
        taken += _cells(char)
        if taken > cells:
            break
        kept += char
    return f"{kept}…" if cells else ""


@lru_cache(1024)
def _cells(char: str) -> int:
    if category(char) in ("Mn", "Me"):  # drawn over the character before it
        return 0
    return 2 if east_asian_width(char) in "WF" else 1
