"""Decides what is sent to a terminal, so that it shows lines: only those that changed.

Sources: ECMA-48 and xterm's control sequences. Must not send it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from spotd.cli.screen.styles import Line, sgr

# The alternate screen, no cursor, no wrapping: a line that is too long must not take two.
ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
AGAIN = "\x1b[?25l\x1b[?7l"
LEAVE = "\x1b[?2026l\x1b[0m\x1b[?7h\x1b[?25h\x1b[?1049l"
# Terminals that know it show all of a change at once. Others pass over it.
_BEGIN, _END = "\x1b[?2026h", "\x1b[?2026l"


class Painter:
    """Remembers what a terminal shows. ``colours`` is False where NO_COLOR is set."""

    def __init__(self, *, colours: bool = True) -> None:
        self._colours = colours
        self._size = (0, 0)
        self._shown: list[Line | None] = []

    def forget(self) -> None:
        """Take note that the terminal may show anything."""
        self._size = (0, 0)

    def paint(self, lines: Sequence[Line], width: int, height: int) -> str:
        """Return what makes a terminal of this size show these lines. Empty: it does."""
        parts: list[str] = []
        if self._size != (width, height):
            self._size, self._shown = (width, height), [None] * height
            parts.append("\x1b[0m\x1b[2J")
        for number, line in enumerate(lines[:height]):
            if line != self._shown[number]:
                self._shown[number] = line
                # Erased before: behind the last column, that would take the character in it.
                parts.append(f"\x1b[{number + 1}H\x1b[K{styled(line, colours=self._colours)}")
        return f"{_BEGIN}{''.join(parts)}{_END}" if parts else ""


def styled(line: Line, *, colours: bool) -> str:
    """Return a line with its styles, for a terminal."""
    parts = []
    for text, style in line:
        code = _code(style, colours)
        parts.append(f"{code}{text}\x1b[0m" if code else text)
    return "".join(parts)


@lru_cache(64)
def _code(style: str, colours: bool) -> str:
    parameters = sgr(style, colours=colours)
    return f"\x1b[{parameters}m" if parameters else ""
