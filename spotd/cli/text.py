"""Decides how text that others wrote is shown on a terminal. Must not talk to anything."""

from __future__ import annotations


def printable(text: str, most_chars: int | None = None) -> str:
    """Return a text on one line, cut at ``most_chars``.

    Everybody who writes to Redis may write an entry of the demand, or a status. As a consequence,
    what a terminal would carry out, reorder or break a line at is escaped.
    """
    if most_chars is not None and len(text) > most_chars:
        text = f"{text[: most_chars - 1]}…"
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii")
        for char in text
    )
