"""Decides when the stored status and states are read next. Must not talk to anything.

Their end is not announced where a daemon was killed, or Redis has lost what it held.
"""

from __future__ import annotations

CHECK_EVERY_S = 5.0
_AFTER_LAPSE_S = 0.02  # a lapsed key is surely gone by then


def next_check_in_s(every_s: float, lapses_in_ms: int | None) -> float:
    """Return the seconds until the next check, at most ``every_s``.

    ``lapses_in_ms`` is what PTTL answers for the status: its milliseconds to live, negative where
    there is no status, or one that does not lapse. None: it was not asked for.
    """
    if lapses_in_ms is None or lapses_in_ms < 0:
        return every_s
    return min(every_s, lapses_in_ms / 1000 + _AFTER_LAPSE_S)
