"""Decides which symbols a first price is fetched for next. Must not fetch anything.

What was wanted last is fetched first. As a consequence, one new symbol never waits behind a market
that came before it.
"""

from __future__ import annotations

from collections.abc import Iterable


class SnapshotQueue:
    """Symbols that wait for a snapshot, each once."""

    def __init__(self) -> None:
        self._waiting: dict[str, None] = {}  # the next one last

    def __bool__(self) -> bool:
        """Return whether any symbol waits."""
        return bool(self._waiting)

    def want(self, symbols: Iterable[str]) -> None:
        """Put these in front of all that wait already, in the order of their names."""
        for symbol in sorted(symbols, reverse=True):
            self._waiting.pop(symbol, None)
            self._waiting[symbol] = None

    def take(self, count: int) -> list[str]:
        """Take out the next symbols, at most ``count``."""
        waiting = self._waiting
        return [waiting.popitem()[0] for _ in range(min(len(waiting), count))]
