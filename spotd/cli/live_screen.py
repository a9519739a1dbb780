"""A screen of its own on a terminal, which shows one text after the other. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text


@contextmanager
def live_screen() -> Iterator[Callable[[str], None]]:
    """Yield a function that shows a text with ANSI colors in place of the one before.

    It follows the size of the terminal. When the context ends, the last text is written below the
    prompt as it stood before.
    """
    last = Text()

    def show(text: str) -> None:
        nonlocal last
        last = Text.from_ansi(text)
        live.update(last, refresh=True)

    console = Console()
    try:
        with Live(last, console=console, screen=True, auto_refresh=False) as live:
            yield show
    finally:
        console.print(last)
