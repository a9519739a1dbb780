"""The styles and marks of the screen. Each style is named for what it means."""

from __future__ import annotations

from typing import NamedTuple

Segment = tuple[str, str]  # a text, and the name of its style; no name: as the terminal has it
Line = tuple[Segment, ...]

# ``SGR`` parameters (ECMA-48, 8.3.117) without colour, colour, and the same for rich.
_STYLES: dict[str, tuple[str, str, str]] = {
    "up": ("", "32", "green"),
    "down": ("", "31", "red"),
    "good": ("", "32", "green"),
    "doubtful": ("", "33", "yellow"),
    "halted": ("", "35", "magenta"),
    "bad": ("1", "31", "bold red"),
    "badge good": ("7", "32", "reverse green"),
    "badge doubtful": ("7", "33", "reverse yellow"),
    "badge bad": ("7", "31", "reverse bold red"),
    "dim": ("2", "", "dim"),
    "strong": ("1", "", "bold"),
    "sorted": ("1;4", "", "bold underline"),
    "selected": ("7", "", "reverse"),
    "key": ("1", "36", "bold cyan"),
}
RICH = {name: rich for name, (_, _, rich) in _STYLES.items()}

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
    ellipsis: str = "…"


UNICODE = Glyphs()
ASCII = Glyphs("_.,-~=+^", "+", "-", "^", "v", "-", "~")


def sgr(style: str, *, colours: bool) -> str:
    """Return the parameters that turn a style on, empty for none."""
    plain, colour, _ = _STYLES.get(style, ("", "", ""))
    return ";".join(filter(None, (plain, colour if colours else "")))
