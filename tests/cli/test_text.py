"""Text that others wrote is harmless on a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.cli.text import cut, printable, width_of


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("BRK.B é 日本", "BRK.B é 日本"),
        ("a\r\nb", r"a\r\nb"),
        ("\x1b[2J\x07\x00", r"\x1b[2J\x07\x00"),
        ("\x9b2J\u202e\u2028", r"\x9b2J\u202e\u2028"),
        ("\udc80", r"\udc80"),
    ],
)
def test_what_a_terminal_would_carry_out_is_escaped(written: str, shown: str) -> None:
    """Controls, line breaks and marks of direction are escaped, and nothing else."""
    assert printable(written) == shown


def test_a_long_text_is_cut() -> None:
    """An ellipsis stands for what is cut, and counts."""
    assert printable("A" * 9, 8) == "A" * 7 + "…"
    assert printable("A" * 8, 8) == "A" * 8
    assert printable("A" * 1_001) == "A" * 999 + "…"
    assert printable("A" * 1_001, None) == "A" * 1_001


@given(st.text())
def test_every_text_becomes_printable(text: str) -> None:
    """Whatever is written, one line is shown."""
    assert printable(text).isprintable()


@pytest.mark.parametrize(
    ("text", "cells", "kept"),
    [("SPY", 3, "SPY"), ("SPY", 2, "S…"), ("SPY", 0, ""), ("日本", 4, "日本"), ("日本", 3, "日…"),
     ("e\u0301té", 3, "e\u0301té"), ("▁▇█", 2, "▁…")],
)  # fmt: skip
def test_text_is_cut_by_cells(text: str, cells: int, kept: str) -> None:
    """A wide character takes two cells, an accent over the one before it takes none."""
    assert cut(text, cells) == kept
    assert width_of(kept) <= cells


@given(st.text(), st.integers(0, 20))
def test_what_is_cut_fits(text: str, cells: int) -> None:
    """Whatever the text is, at most that many cells are left."""
    assert width_of(cut(printable(text), cells)) <= cells
