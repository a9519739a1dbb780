"""Decides what is desired, from the raw entries of all sources. Must not talk to Redis."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from spotd.core.symbols import Refusal, as_written, symbol_of

MAX_REFUSED_SHOWN = 1_000
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Demand:
    """What somebody wants: ``symbols`` to stream, and the entries that name none.

    ``refused`` holds at most ``MAX_REFUSED_SHOWN`` entries, ``refused_count`` counts all.
    """

    symbols: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    refused_count: int = 0


class DemandReader:
    """Gathers entries in slices of any size, so that a huge demand never holds the loop."""

    def __init__(self, *, allow_wildcard: bool) -> None:
        self._allow_wildcard = allow_wildcard
        self._symbols: set[str] = set()
        self._refused: dict[str, Refusal] = {}
        self._refused_count = 0

    def add(self, entries: Iterable[bytes]) -> None:
        """Entries of the set, or symbols taken from channel names."""
        for entry in entries:
            self._take(entry, entry)

    def add_leases(self, members: Iterable[bytes]) -> None:
        """Members of the form ``SYMBOL@owner``; the owner may be anything, also missing."""
        for member in members:
            self._take(member.partition(b"@")[0], member)

    def result(self) -> Demand:
        """All that was added. The refused entries shown are the first ones in sorted order."""
        shown = self._refused
        if len(shown) > MAX_REFUSED_SHOWN:
            shown = {name: shown[name] for name in heapq.nsmallest(MAX_REFUSED_SHOWN, shown)}
        return Demand(frozenset(self._symbols), shown, self._refused_count)

    def _take(self, entry: bytes, written: bytes) -> None:
        symbol = symbol_of(entry, allow_wildcard=self._allow_wildcard)
        if isinstance(symbol, str):
            self._symbols.add(symbol)
        else:
            self._refused_count += 1
            self._refused[as_written(written)] = symbol


class Subscribers:
    """Which channels are demand: those with a subscriber now, or gone for less than ``linger_s``.

    Gone means found gone: nobody knows how long before the look the last one left, so the time
    counts from there, and is never too short.
    """

    def __init__(self, linger_s: float = 10.0) -> None:
        self._linger_s = linger_s
        self._ends_at: dict[bytes, float] = {}

    def seen(self, symbols: Iterable[bytes], now: float) -> set[bytes]:
        """Note who has subscribers at ``now``; gives all that count as desired."""
        ends_at = dict.fromkeys(symbols, _NEVER)
        for symbol in self._ends_at.keys() - ends_at.keys():
            at = min(self._ends_at[symbol], now + self._linger_s)
            if now < at:
                ends_at[symbol] = at
        self._ends_at = ends_at
        return set(ends_at)
