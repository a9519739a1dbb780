"""How long a server asks to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.alpaca.retry_after import retry_after_s

DATE = "Wed, 21 Oct 2026 07:28:00 GMT"
DATE_UNIX_S = 1_792_567_680.0


@pytest.mark.parametrize(
    ("value", "date", "expected"),
    [
        ("7", "", 7.0),
        (" 7 ", DATE, 7.0),
        ("0", "", 0.0),
        ("", DATE, None),
        ("-1", "", None),
        ("1.5", "", None),
        ("\u0663", "", None),
        ("soon", DATE, None),
        ("Wed, 21 Oct 2026 07:28:30 GMT", DATE, 30.0),
        ("Wed, 21 Oct 2026 09:28:30 +0200", DATE, 30.0),
        ("Wed, 21 Oct 2026 07:28:30 -0000", DATE, 30.0),
        ("Wednesday, 21-Oct-26 07:28:30 GMT", DATE, 30.0),  # the obsolete form of RFC 850
        ("Wed Oct 21 07:28:30 2026", DATE, 30.0),  # C's asctime
        ("Wed, 21 Oct 2026 07:27:00 GMT", DATE, 0.0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "", 20.0),  # by our own clock
        ("Wed, 21 Oct 2026 07:28:30 GMT", "today", 20.0),
        ("Wed, 21 Oct 2026 07:27:00 GMT", "", 0.0),
        ("Wed, 99 Oct 2026 07:28:30 GMT", DATE, None),
        ("Wed, 21 Oct 99999 07:28:30 GMT", DATE, None),
    ],
)
def test_seconds_or_a_time(value: str, date: str, expected: float | None) -> None:
    """Both forms of the RFC count; a time is compared with the server's own clock if it tells."""
    assert retry_after_s(value, date, DATE_UNIX_S + 10.0) == expected


@given(st.text(), st.text())
def test_any_text(value: str, date: str) -> None:
    """Headers are foreign data: nothing but no number, or one that is not negative."""
    found = retry_after_s(value, date)
    assert found is None or found >= 0.0
