"""A screen with a clock of its own, and its lines as plain text."""

from __future__ import annotations

from spotd.cli.screen.controls import Action
from spotd.cli.screen.lines import line_width
from spotd.cli.screen.screen import Screen
from spotd.cli.screen.styles import STYLES, Line
from tests.kit.publisher import AT, update_of


class Drawn:
    """A screen whose prices are ``age_s`` old at first."""

    def __init__(self, screen: Screen | None = None, *, age_s: float = 2.0) -> None:
        self.screen = Screen() if screen is None else screen
        self.now = 1000.0
        self._unix_s = AT.timestamp() + age_s - self.now

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    def price(self, symbol: str, bid: float = 421.35, seq: int = 1) -> None:
        """Tell a price."""
        self.screen.price(update_of(symbol, seq, bid), self.now)

    def press(self, *keys: str) -> list[Action]:
        """Press keys."""
        return self.screen.press(keys, self.now, self.now + self._unix_s)

    def styled(self, width: int = 80, height: int = 24) -> list[Line]:
        """Return the lines. They fit, and their styles are known."""
        lines = self.screen.draw(width, height, self.now, self.now + self._unix_s)
        assert len(lines) == height
        for line in lines:
            assert line_width(line) <= width
            assert all(style in STYLES or not style for _, style in line)
        return lines

    def lines(self, width: int = 80, height: int = 24) -> list[str]:
        """Return the lines as text."""
        found = self.styled(width, height)
        return ["".join(text for text, _ in line).rstrip() for line in found]

    def symbols(self, width: int = 80, height: int = 24) -> list[str]:
        """Return the symbols of the rows, from top to bottom."""
        table = self.lines(width, height)[3:-1]
        return [line.split()[0] for line in table if line and not line.startswith(" ")]
