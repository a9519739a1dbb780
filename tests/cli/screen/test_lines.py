"""How lines are put together and broken."""

from __future__ import annotations

import pytest

from spotd.cli.screen.lines import line_width, wrapped
from spotd.cli.screen.styles import Line


def texts(lines: list[Line]) -> list[str]:
    """Return the lines without their styles."""
    return ["".join(text for text, _ in line) for line in lines]


@pytest.mark.parametrize(
    ("told", "width", "lines"),
    [
        ("one two three", 20, ["name one two three"]),
        ("one two three", 12, ["name one two", "     three"]),
        ("one two three", 11, ["name one", "     two", "     three"]),
        ("one 二二 three", 13, ["name one 二二", "     three"]),
        ("much_too_long", 12, ["name much_t…"]),
        ("one much_too_long", 12, ["name one", "     much_t…"]),
        ("one two", 4, ["nam…"]),
        ("one two", 0, [""]),
    ],
)
def test_wrapped(told: str, width: int, lines: list[str]) -> None:
    """A line breaks at the last space that leaves it short enough; the rest is indented."""
    found = wrapped((("name ", "dim"), (told, "bad")), width, 5)
    assert texts(found) == lines
    assert all(line_width(line) <= width for line in found)


def test_styles_stay() -> None:
    """What goes on in the next line keeps its style."""
    line: Line = (("name ", "dim"), ("one two", "bad"))
    assert wrapped(line, 8, 5) == [
        (("name ", "dim"), ("one", "bad")),
        (("     ", ""), ("two", "bad")),
    ]
