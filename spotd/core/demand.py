"""Decides what is desired, from the raw entries of all sources. Must not talk to Redis."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from spotd.symbols import WILDCARD, Refusal, as_written, symbol_of

MAX_REFUSED_SHOWN = 1_000
MAX_SYMBOLS_PER_STEP = 500  # of a change, so that no part of spotd ever sees a larger one
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Demand:
    """What somebody wants: ``symbols`` to stream, and the entries that name none.

    ``refused`` holds at most ``MAX_REFUSED_SHOWN`` entries, ``refused_count`` counts all.
    """

    symbols: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    refused_count: int = 0


def steps(
    before: frozenset[str],
    after: frozenset[str],
    size: int = MAX_SYMBOLS_PER_STEP,
    *,
    first: frozenset[str] = frozenset(),
) -> Iterator[frozenset[str]]:
    """The demands on the way from one to another, the last one included, the first one not.

    Each differs from the one before it by at most ``size`` symbols that come, those of ``first``
    before all others, in sorted order, as they get room at Alpaca, and as many that leave. None is
    empty on the way to one that is not. The whole market leaves last: until then it covers those
    that come.
    """
    coming = sorted(after - before)
    if first:
        coming.sort(key=lambda symbol: symbol not in first)
    leaving = sorted(before - after - {WILDCARD})
    now = before
    for start in range(0, max(len(coming), len(leaving)), size):
        now = now.union(coming[start : start + size]).difference(leaving[start : start + size])
        yield now
    if now != after:
        yield after


class DemandReader:
    """Keeps what all entries mean, and takes in what changed.

    In slices of any size, so that a huge demand never holds the loop, and a small change of it
    costs little.
    """

    def __init__(self, *, allow_wildcard: bool) -> None:
        self._allow_wildcard = allow_wildcard
        self._wanted: Counter[str] = Counter()  # symbols, by how many entries mean them
        self._refusals: dict[str, Refusal] = {}
        self._refused: Counter[str] = Counter()  # as written, by how many entries
        self._refused_count = 0
        self._shown: dict[str, Refusal] | None = {}

    def add(self, entries: Iterable[bytes]) -> None:
        """Entries of the set, or symbols taken from channel names."""
        for entry in entries:
            self._take(entry, entry)

    def add_leases(self, members: Iterable[bytes]) -> None:
        """Members of the form ``SYMBOL@owner``; the owner may be anything, also missing."""
        for member in members:
            self._take(member.partition(b"@")[0], member)

    def remove(self, entries: Iterable[bytes]) -> None:
        """Entries that were added before and are there no more."""
        for entry in entries:
            self._give_back(entry, entry)

    def remove_leases(self, members: Iterable[bytes]) -> None:
        """Members that were added before and are there no more."""
        for member in members:
            self._give_back(member.partition(b"@")[0], member)

    def result(self) -> Demand:
        """All that is there. The refused entries shown are the first ones in sorted order."""
        if self._shown is None:
            names: Iterable[str] = self._refusals
            if len(self._refusals) > MAX_REFUSED_SHOWN:
                names = heapq.nsmallest(MAX_REFUSED_SHOWN, names)
            self._shown = {name: self._refusals[name] for name in names}
        return Demand(frozenset(self._wanted), self._shown, self._refused_count)

    def _take(self, entry: bytes, written: bytes) -> None:
        symbol = symbol_of(entry, allow_wildcard=self._allow_wildcard)
        if isinstance(symbol, str):
            self._wanted[symbol] += 1
        else:
            name = as_written(written)
            self._refusals[name] = symbol
            self._refused[name] += 1
            self._refused_count += 1
            self._shown = None

    def _give_back(self, entry: bytes, written: bytes) -> None:
        symbol = symbol_of(entry, allow_wildcard=self._allow_wildcard)
        if isinstance(symbol, str):
            self._wanted[symbol] -= 1
            if not self._wanted[symbol]:
                del self._wanted[symbol]
        else:
            name = as_written(written)
            self._refused[name] -= 1
            if not self._refused[name]:
                del self._refused[name], self._refusals[name]
            self._refused_count -= 1
            self._shown = None


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
