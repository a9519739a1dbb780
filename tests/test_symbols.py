"""Which entries of the demand are symbols."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.models import MAX_ENTRY_CHARS
from spotd.symbols import (
    INVALID,
    WILDCARD_NOT_ALLOWED,
    as_written,
    is_symbol,
    symbol_of,
)

SYMBOL = re.compile(r"[A-Z]{1,8}(\.[A-Z]{1,4})?")  # the contract's rule


@pytest.mark.parametrize(
    ("entry", "symbol"),
    [
        (b"SPY", "SPY"),
        (b"spy ", "SPY"),
        (b"\t brk.b\r\n", "BRK.B"),
        (b"ABCDEFGH", "ABCDEFGH"),
        (b"ABCDEFGH.WXYZ", "ABCDEFGH.WXYZ"),
        (b"A", "A"),
    ],
)
def test_a_symbol_is_trimmed_and_upper_cased(entry: bytes, symbol: str) -> None:
    """An entry such as `spy ` is trimmed and upper-cased."""
    assert symbol_of(entry) == symbol
    assert is_symbol(symbol)


@pytest.mark.parametrize(
    "entry",
    [
        b"",
        b" ",
        b"ABCDEFGHI",
        b"A.ABCDE",
        b"A.",
        b".A",
        b"A.B.C",
        b"BRK-B",
        b"BRK/B",
        b"UI2T",
        b"SP Y",
        b"SPY,QQQ",
        b"SPY\nQQQ",
        b"SPY\x00",
        b"SPY@owner",
        b"**",
        "ＳＰＹ".encode(),
        "ſpy".encode(),
        b"\xff\xfe",
        b"A" * 1_000_000,
    ],
)
def test_anything_else_is_invalid(entry: bytes) -> None:
    """An entry with digits, hyphens or other alphabets, or of any other form, is refused."""
    assert symbol_of(entry) is INVALID
    assert symbol_of(entry, allow_wildcard=True) is INVALID
    assert INVALID.reason == "invalid_symbol"


def test_the_wildcard_is_allowed_or_refused_by_its_own_reason() -> None:
    """The entry `*` names the whole market, and is refused unless the setting allows it."""
    assert symbol_of(b" * ", allow_wildcard=True) == "*"
    assert symbol_of(b"*") is WILDCARD_NOT_ALLOWED
    assert WILDCARD_NOT_ALLOWED.reason == "wildcard_not_allowed"
    assert not is_symbol("*")


@pytest.mark.parametrize("text", ["spy", " SPY", "SPY\n", "", "ＳＰＹ", "SPY.", "A1"])
def test_a_text_is_a_symbol_only_as_it_stands(text: str) -> None:
    """A name that Alpaca sends is neither trimmed nor upper-cased."""
    assert not is_symbol(text)


@given(st.binary(max_size=20) | st.from_regex(SYMBOL, fullmatch=True).map(str.encode))
def test_any_entry_is_a_symbol_or_refused(entry: bytes) -> None:
    """No entry raises, and each that is taken for a symbol has the form of one."""
    symbol = symbol_of(entry)
    if isinstance(symbol, str):
        assert SYMBOL.fullmatch(symbol)
        assert is_symbol(symbol)
        assert symbol.encode() == entry.strip().upper()
    else:
        # Bytes upper-case ASCII alone. As text, "ß" would become "SS", which is a symbol.
        assert not SYMBOL.fullmatch(entry.strip().upper().decode("latin-1"))


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        (b" brk-b ", " brk-b "),
        (b"A" * 100, "A" * MAX_ENTRY_CHARS),
        ("€".encode() * 100, "€" * MAX_ENTRY_CHARS),
        ("🦙".encode() * 100, "🦙" * MAX_ENTRY_CHARS),
        (b"\xff!", "\\xff!"),
    ],
)
def test_a_refused_entry_is_shown_as_it_was_written(entry: bytes, text: str) -> None:
    """A refused entry is cut at 64 characters, and readable whatever its bytes are."""
    assert as_written(entry) == text


@given(st.text())
def test_a_readable_entry_is_cut_and_nothing_else(text: str) -> None:
    """Of a readable entry the first 64 characters are shown unchanged."""
    assert (
        as_written(text.encode("utf-8", "ignore")) == text.encode("utf-8", "ignore").decode()[:64]
    )
