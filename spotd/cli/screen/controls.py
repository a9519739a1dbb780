"""Decides what keys do: sort, pause, filter, select, ask for symbols to add and remove, help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from spotd.cli.screen.order import SORTS
from spotd.client import symbols_of

HELP = (
    ("q", "quit; Ctrl-C does too"),
    ("s  S", "sort by the next column, by the one before"),
    ("r", "sort backwards"),
    ("1 to 6", f"sort by {', '.join(SORTS)}"),
    ("space  p", "pause: prices stand still, and are taken in meanwhile"),
    ("/", "filter: a part of a symbol, or a state such as stale"),
    ("a", "add symbols; they are demanded while this runs"),
    ("x", "remove symbols from the screen, and end that demand"),
    ("Up Down PgUp PgDn", "select a symbol, and scroll; its reason stands above"),
    ("Home End", "the first and the last symbol"),
    ("Esc", "end what was begun: prompt, filter, selection"),
    ("?", "this help"),
)
_MAX_TYPED = 500


class Action(NamedTuple):
    """What has to be done outside. ``symbols`` to add or remove."""

    what: Literal["quit", "add", "remove", "redraw"]
    symbols: tuple[str, ...] = ()


class Controls:
    """What was chosen so far.

    ``prompt`` is what is asked for, with ``typed`` as the answer so far. ``selected`` is a symbol,
    so that the selection follows its row.
    """

    def __init__(self) -> None:
        self.sort = SORTS[0]
        self.backwards = False
        self.wanted = ""
        self.paused = False
        self.help = False
        self.selected: str | None = None
        self.prompt: Literal["add", "remove", "filter"] | None = None
        self.typed = ""
        self.message = ""
        self._top = 0

    def press(self, key: str, shown: Sequence[str], rows: int) -> Action | None:
        """Take a key. ``shown`` are all symbols in order, of which ``rows`` fit on the screen."""
        self.message = ""
        if self.prompt is not None:
            return self._type(key)
        if key in _MOVES:
            self._move(_MOVES[key](rows), shown)
        elif self.help and key in ("escape", "enter", "?", "h", "q"):
            self.help = False
        elif key == "q":
            return Action("quit")
        elif key == "redraw":
            return Action("redraw")
        else:
            self._choose(key)
        return None

    def window(self, shown: Sequence[str], rows: int) -> tuple[int, Sequence[str]]:
        """Return the first place that is shown, and the symbols that fit from there on.

        The selected one is among them, where it is shown at all.
        """
        top = min(self._top, max(0, len(shown) - rows))
        if self.selected in shown:
            at = shown.index(self.selected)
            top = min(max(top, at - rows + 1), at)
        self._top = max(0, top)
        return self._top, shown[self._top : self._top + max(0, rows)]

    def _choose(self, key: str) -> None:
        if key in ("?", "h"):
            self.help = True
        elif key in ("s", "S"):
            at = SORTS.index(self.sort) + (1 if key == "s" else -1)
            self.sort, self.backwards = SORTS[at % len(SORTS)], False
        elif key in "123456":
            self.sort, self.backwards = SORTS[int(key) - 1], False
        elif key == "r":
            self.backwards = not self.backwards
        elif key in (" ", "p"):
            self.paused = not self.paused
        elif key == "/":
            self.prompt, self.typed = "filter", self.wanted
        elif key == "a":
            self.prompt, self.typed = "add", ""
        elif key in ("x", "delete"):
            self.prompt, self.typed = "remove", self.selected or ""
        elif key == "escape":
            self.wanted, self.selected = "", None

    def _type(self, key: str) -> Action | None:
        if key == "escape":
            if self.prompt == "filter":
                self.wanted = ""
            self.prompt = None
            return None
        if key == "enter":
            return self._answer()
        if key == "backspace":
            self.typed = self.typed[:-1]
        elif key == "clear":
            self.typed = ""
        elif len(key) == 1 and len(self.typed) < _MAX_TYPED:
            self.typed += key
        if self.prompt == "filter":
            self.wanted = self.typed
        return None

    def _answer(self) -> Action | None:
        prompt, self.prompt = self.prompt, None
        entries = self.typed.replace(",", " ").split()
        if prompt == "filter" or not entries:
            return None
        if prompt == "remove":
            if self.typed == self.selected:  # a refused entry may be any text
                return Action("remove", (self.typed,))
            return Action("remove", tuple(dict.fromkeys(entry.upper() for entry in entries)))
        try:
            return Action("add", tuple(symbols_of(entries)))
        except ValueError as error:
            self.message = str(error)
            return None

    def _move(self, steps: int, shown: Sequence[str]) -> None:
        if not shown:
            self.selected = None
            return
        if self.selected in shown:
            at = shown.index(self.selected) + steps
        else:
            # The first key selects a row that is on the screen.
            at = self._top + (0 if abs(steps) == 1 else steps)
        self.selected = shown[min(max(at, 0), len(shown) - 1)]


_FAR = 1_000_000
_MOVES: dict[str, Callable[[int], int]] = {
    "up": lambda _: -1,
    "k": lambda _: -1,
    "down": lambda _: 1,
    "j": lambda _: 1,
    "pageup": lambda rows: -rows,
    "pagedown": lambda rows: rows,
    "home": lambda _: -_FAR,
    "g": lambda _: -_FAR,
    "end": lambda _: _FAR,
    "G": lambda _: _FAR,
}
