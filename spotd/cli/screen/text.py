"""Shows a text on the terminal in place of the one before, until the user quits.

Talks to the terminal. Must not decide what is shown.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from spotd.cli.screen.escapes import Painter, styled
from spotd.cli.screen.keys import Keys
from spotd.cli.screen.lines import wrapped
from spotd.cli.screen.styles import Line
from spotd.cli.screen.terminal import Terminal, colours_wanted, stderr_afterwards

_AGAIN_S = 0.2  # after which a slow terminal is tried again


@contextmanager
def text_screen(quit_: Callable[[], object], indent: int) -> Iterator[Callable[[list[Line]], None]]:
    """Yield a function that shows lines. Those that are too long go on in the next, indented.

    ``quit_`` is called when the user presses q, and when the terminal is gone. When the context
    ends, the screen is given back, and the last text is written below the prompt.
    """
    shown = _Shown(quit_, indent)
    with stderr_afterwards():
        try:
            with Terminal(shown.pressed, shown.changed, shown.lose) as terminal:
                shown.terminal = terminal
                yield shown.show
        finally:
            shown.leave()


class _Shown:
    """The text that is shown, and the terminal that shows it."""

    terminal: Terminal

    def __init__(self, quit_: Callable[[], object], indent: int) -> None:
        self._quit = quit_
        self._indent = indent
        self._keys = Keys()
        self._colours = colours_wanted()
        self._painter = Painter(colours=self._colours)
        self._lines: Sequence[Line] = ()
        self._timer: asyncio.TimerHandle | None = None
        self._lost = False

    def show(self, lines: Sequence[Line]) -> None:
        """Show lines from now on."""
        self._lines = lines
        self._draw()

    def pressed(self, data: bytes) -> None:
        """Take what was typed."""
        keys = self._keys.take(data)
        if "q" in keys:
            self._quit()
        elif "redraw" in keys:
            self.changed()

    def changed(self) -> None:
        """Show everything anew."""
        self._painter.forget()
        self._draw()

    def lose(self) -> None:
        """Take note that the terminal is gone."""
        self._lost = True
        self._quit()

    def leave(self) -> None:
        """Write the last text where the prompt stands."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._lost:
            text = "".join(f"{styled(line, colours=self._colours)}\n" for line in self._lines)
            with suppress(OSError):  # the terminal hung up
                os.write(sys.stdout.fileno(), text.encode(sys.stdout.encoding, "replace"))

    def _draw(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self.terminal.ready:  # it gets the newest text when it is
            self._timer = asyncio.get_running_loop().call_later(_AGAIN_S, self._draw)
            return
        width, height = self.terminal.size
        lines = [part for line in self._lines for part in wrapped(line, width, self._indent)]
        lines += [()] * (height - len(lines))
        self.terminal.show(self._painter.paint(lines, width, height))
