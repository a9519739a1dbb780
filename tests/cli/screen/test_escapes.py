"""What is sent to a terminal: only lines that changed, and no colours where none are wanted."""

from __future__ import annotations

from spotd.cli.screen.escapes import Painter
from spotd.cli.screen.styles import Line

TOP: Line = (("spotd", "strong"),)
ROW: Line = (("SPY", ""), (" 1.00", "up"))


def test_only_changes() -> None:
    """At first all is sent, then only the line that changed, then nothing."""
    painter = Painter()
    first = painter.paint([TOP, ROW], 80, 2)
    assert "\x1b[2J" in first
    assert "\x1b[1H\x1b[K\x1b[1mspotd\x1b[0m" in first
    assert "\x1b[2H\x1b[KSPY\x1b[32m 1.00\x1b[0m" in first
    changed = painter.paint([TOP, (("QQQ", ""),)], 80, 2)
    assert changed == "\x1b[?2026h\x1b[2H\x1b[KQQQ\x1b[?2026l"
    assert painter.paint([TOP, (("QQQ", ""),)], 80, 2) == ""


def test_everything_anew() -> None:
    """After a resize, and where the terminal may show anything, all is sent."""
    painter = Painter()
    first = painter.paint([TOP], 80, 1)
    assert painter.paint([TOP], 40, 1) == first
    painter.forget()
    assert painter.paint([TOP], 40, 1) == first


def test_no_colour() -> None:
    """Without colours, bold and reverse remain."""
    sent = Painter(colours=False).paint([TOP, ROW, (("x", "bad"), ("y", "badge bad"))], 80, 3)
    assert "\x1b[1mspotd\x1b[0m" in sent
    assert "SPY 1.00" in sent
    assert "\x1b[1mx\x1b[0m\x1b[7my\x1b[0m" in sent
