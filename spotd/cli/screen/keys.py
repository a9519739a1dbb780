"""Decides which keys the bytes of a terminal are. Must not read them itself.

A key is its character, or a name: ``up``, ``enter``, ``escape`` and so on.
"""

from __future__ import annotations

import codecs
import re

_NAMES = {
    "\r": "enter",
    "\n": "enter",
    "\x7f": "backspace",
    "\x08": "backspace",
    "\x15": "clear",  # Ctrl-U
    "\x0c": "redraw",  # Ctrl-L
    "\x1b": "escape",
}
# What follows ESC [ or ESC O, without numbers that tell of Shift and the like.
_SEQUENCES = {
    "A": "up", "B": "down", "H": "home", "F": "end", "1~": "home", "7~": "home", "4~": "end",
    "8~": "end", "5~": "pageup", "6~": "pagedown", "3~": "delete",
}  # fmt: skip
_SEQUENCE = re.compile(r"\x1b(?:\[|O)([0-?]*)([ -/]*)([@-~])")
_UNFINISHED = re.compile(r"\x1b(?:\[|O)[0-?]*[ -/]*\Z")


class Keys:
    """Takes the bytes that a terminal sends, and returns keys.

    A sequence may come in parts, but for its first two bytes: a lone ESC is the key.
    """

    def __init__(self) -> None:
        self._text = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""

    def take(self, data: bytes) -> list[str]:
        """Return the keys that these bytes complete. Unknown sequences are no keys."""
        text, self._rest = self._rest + self._text.decode(data), ""
        keys: list[str] = []
        at = 0
        while at < len(text):
            if found := _SEQUENCE.match(text, at):
                numbers, _, final = found.groups()
                sequence = numbers.partition(";")[0] + final if final == "~" else final
                keys += filter(None, [_SEQUENCES.get(sequence)])
                at = found.end()
            elif _UNFINISHED.match(text, at):
                self._rest = text[at:]
                break
            else:
                char = text[at]
                key = _NAMES.get(char) or (char if char.isprintable() else None)
                keys += filter(None, [key])
                at += 1
        return keys
