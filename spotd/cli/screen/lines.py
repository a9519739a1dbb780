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


def wrapped(line: Line, width: int, indent: int) -> list[Line]:
    """Return a line as several that fit, broken at spaces. All but the first are indented.

    What has no space to break at is cut.
    """
    lines: list[Line] = []
    while line_width(line) > width:
        text = "".join(text for text, _ in line)
        fits = len(cut(text, width + 1)) - 1  # without the ellipsis, which takes a cell
        at = text.rfind(" ", indent + 1, fits + 1)
        if at < 0:
            break
        lines.append(_split(line, at)[0])
        line = ((" " * indent, ""), *_split(line, at + 1)[1])
    return [*lines, cut_line(line, width)]


def _split(line: Line, at: int) -> tuple[Line, Line]:
    """Return what stands before a character of a line, and from it on."""
    before, after = [], []
    for text, style in line:
        before.append((text[: max(0, at)], style))
        after.append((text[max(0, at) :], style))
        at -= len(text)
    return tuple(part for part in before if part[0]), tuple(part for part in after if part[0])


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
