"""Decides how parts of a line are put together and cut. Must not know what they mean."""

from __future__ import annotations

from collections.abc import Iterable

from spotd.cli.screen.styles import Line, Segment
from spotd.cli.text import cut, width_of


def line_width(line: Iterable[Segment]) -> int:
    """Return how many cells a line takes."""
    return sum(width_of(text) for text, _ in line)


def cut_line(line: Iterable[Segment], width: int) -> Line:
    """Return a line that takes at most this number of cells."""
    cut_off: list[Segment] = []
    for text, style in line:
        kept = cut(text, width)
        if kept:
            cut_off.append((kept, style))
        width -= width_of(kept)
        if kept != text or width <= 0:
            break
    return tuple(cut_off)


def joined(parts: Iterable[Line], width: int, space: str = "  ") -> Line:
    """Return the parts beside each other, without those at the end that do not fit.

    The first one is cut where it alone does not fit.
    """
    line: list[Segment] = []
    for part in parts:
        more = [(space, ""), *part] if line else list(part)
        if line and line_width(line) + line_width(more) > width:
            break
        line += more
    return cut_line(line, width)


def spread_out(left: Line, right: Line, width: int) -> Line:
    """Return both ends of a line, the right one only where it fits."""
    space = width - line_width(left) - line_width(right)
    return (*left, (" " * space, ""), *right) if right and space > 0 else left
