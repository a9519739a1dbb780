"""Keys out of the bytes of a terminal."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.cli.screen.keys import Keys


@pytest.mark.parametrize(
    ("data", "keys"),
    [
        (b"qS?/ ", ["q", "S", "?", "/", " "]),
        (b"\x1b[A\x1bOB\x1b[5~\x1b[6~", ["up", "down", "pageup", "pagedown"]),
        (b"\x1b[H\x1bOF\x1b[1~\x1b[4~\x1b[3~", ["home", "end", "home", "end", "delete"]),
        (b"\x1b[1;5A\x1b[3;2~", ["up", "delete"]),  # with Ctrl, with Shift
        (b"\x1b", ["escape"]),
        (b"\r\n\x7f\x08\x15\x0c", ["enter", "enter", "backspace", "backspace", "clear", "redraw"]),
        (b"\x1b[99~\x1b[?1;2c\x01", []),
        ("é日".encode(), ["é", "日"]),
        (b"\xff", ["\ufffd"]),
    ],
)
def test_keys(data: bytes, keys: list[str]) -> None:
    """A character is its own name; sequences have names; what has none is no key."""
    assert Keys().take(data) == keys


def test_sequence_in_parts() -> None:
    """A sequence or a character that comes in two parts is one key."""
    keys = Keys()
    assert keys.take(b"a\x1b[") == ["a"]
    assert keys.take(b"5") == []
    assert keys.take(b"~\xc3") == ["pageup"]
    assert keys.take(b"\xa9") == ["é"]


@given(st.lists(st.binary()))
def test_any_bytes(parts: list[bytes]) -> None:
    """Whatever a terminal sends, keys are printable characters or names."""
    keys = Keys()
    for part in parts:
        for key in keys.take(part):
            assert key
            assert key.isprintable()
