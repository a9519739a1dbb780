"""The styles and marks of the screen. Each style is named for what it means."""

from __future__ import annotations

from typing import NamedTuple

Segment = tuple[str, str]  # a text, and the name of its style; no name: as the terminal has it
Line = tuple[Segment, ...]

# ``SGR`` parameters (ECMA-48, 8.3.117) without colour, and the colour.
STYLES: dict[str, tuple[str, str]] = {
    "up": ("", "32"),
    "down": ("", "31"),
    "good": ("", "32"),
    "doubtful": ("", "33"),
    "halted": ("", "35"),
    "bad": ("1", "31"),
    "badge good": ("7", "32"),
    "badge doubtful": ("7", "33"),
    "badge bad": ("7", "31"),
    "dim": ("2", ""),
    "strong": ("1", ""),
    "sorted": ("1;4", ""),
    "selected": ("7", ""),
    "key": ("1", "36"),
}

STATES = {
    "live": "good",
    "streaming": "good",
    "idle": "good",
    "stale": "doubtful",
    "pending": "doubtful",
    "starting": "doubtful",
    "standby": "doubtful",
    "connecting": "doubtful",
    "stopping": "doubtful",
    "halted": "halted",
    "waiting": "bad",
    "refused": "bad",
    "ended": "dim",
}


class Glyphs(NamedTuple):
    """Marks that a terminal can show. ``levels`` go from low to high."""

    levels: str = "▁▂▃▄▅▆▇█"
    up: str = "▲"
    down: str = "▼"
    ascending: str = "▴"
    descending: str = "▾"
    dash: str = "–"


UNICODE = Glyphs()
ASCII = Glyphs("_.,-~=+^", "+", "-", "^", "v", "-")


def sgr(style: str, *, colours: bool) -> str:
    """Return the parameters that turn a style on, empty for none."""
    plain, colour = STYLES.get(style, ("", ""))
    return ";".join(filter(None, (plain, colour if colours else "")))
