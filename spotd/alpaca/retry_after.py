"""Reads how long a server asks to wait. Must not decide how long is too long."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after_s(value: str, date: str = "", unix_s: float | None = None) -> float | None:
    """Return the seconds that the header ``Retry-After`` names; None where it names none.

    It is a number of seconds or a time (RFC 9110, 10.2.3). A time is compared with ``date``, the
    header ``Date`` of the same answer, so that our own clock may be wrong. Without one it is
    compared with ``unix_s``, by default the present time. A time that is over means 0.
    """
    value = value.strip()
    if value.isascii() and value.isdecimal():
        return float(value)
    until = _time(value)
    if until is None:
        return None
    now = _time(date)
    if now is not None:
        return max(0.0, (until - now).total_seconds())
    return max(0.0, until.timestamp() - (time.time() if unix_s is None else unix_s))


def _time(text: str) -> datetime | None:
    try:
        found = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
