"""Decides what is desired, from the raw entries of all sources.

Must not talk to Redis, and must not know how the entries are read.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable

from spotd.core.demand import MAX_REFUSED_SHOWN, Demand
from spotd.symbols import (
    INVALID,
    WILDCARD,
    WILDCARD_NOT_ALLOWED,
    Refusal,
    as_written,
    symbol_of,
)

_NEVER = float("inf")
_WHOLE_MARKET_OVER_LIMIT = "the whole market is asked for, but SPOTD_MAX_SYMBOLS=%d is the limit"
_USE_UPPER_CASE = Refusal("invalid_symbol", "use upper case")


class DemandReader:
    """What all entries together mean, kept up to date by the entries that came and left.

    A slice of entries may have any size, so a huge demand need not hold the event loop. A small
    change costs little. With ``max_symbols``, the setting, the whole market is refused.
    """

    def __init__(self, *, allow_wildcard: bool, max_symbols: int | None = None) -> None:
        self._whole_market: str | Refusal = WILDCARD if allow_wildcard else WILDCARD_NOT_ALLOWED
        if allow_wildcard and max_symbols is not None:
            self._whole_market = Refusal("symbol_limit", _WHOLE_MARKET_OVER_LIMIT % max_symbols)
        self._set, self._leases, self._channels = _Source(), _Source(), _Source()
        self._refusals: dict[str, Refusal] = {}
        self._refused: Counter[str] = Counter()  # as written, by how many entries
        self._refused_count = 0
        # Parts of the result, None where they have to be found anew.
        self._symbols: frozenset[str] | None = frozenset()
        self._shown: dict[str, Refusal] | None = {}

    def add(self, entries: Iterable[bytes]) -> None:
        """Add entries of the set."""
        for entry in entries:
            self._take(self._set, self._meaning(entry), entry)

    def add_leases(self, members: Iterable[bytes]) -> None:
        """Add members of the form ``SYMBOL@owner``. The owner may be any bytes, or missing."""
        for member in members:
            self._take(self._leases, self._meaning(member.partition(b"@")[0]), member)

    def add_channels(self, names: Iterable[bytes]) -> None:
        """Add what follows the prefix in names of channels that somebody subscribed to."""
        for name in names:
            self._take(self._channels, self._meaning_of_channel(name), name)

    def remove(self, entries: Iterable[bytes]) -> None:
        """Remove entries that were added before."""
        for entry in entries:
            self._give_back(self._set, self._meaning(entry), entry)

    def remove_leases(self, members: Iterable[bytes]) -> None:
        """Remove members that were added before."""
        for member in members:
            self._give_back(self._leases, self._meaning(member.partition(b"@")[0]), member)

    def remove_channels(self, names: Iterable[bytes]) -> None:
        """Remove names that were added before."""
        for name in names:
            self._give_back(self._channels, self._meaning_of_channel(name), name)

    def result(self, term: int) -> Demand:
        """Return the demand. The refused entries in it are the first ones in sorted order."""
        if self._shown is None:
            names: Iterable[str] = self._refusals
            if len(self._refusals) > MAX_REFUSED_SHOWN:
                names = heapq.nsmallest(MAX_REFUSED_SHOWN, names)
            self._shown = {name: self._refusals[name] for name in names}
        of_set, of_leases = self._set.symbols(), self._leases.symbols()
        if self._symbols is None:
            self._symbols = _union(of_set, of_leases, self._channels.symbols())
        return Demand(
            self._symbols,
            self._shown,
            self._refused_count,
            term,
            of_set=of_set,
            of_leases=of_leases,
        )

    def _meaning(self, entry: bytes) -> str | Refusal:
        symbol = symbol_of(entry, allow_wildcard=True)
        return self._whole_market if symbol == WILDCARD else symbol

    def _meaning_of_channel(self, name: bytes) -> str | Refusal:
        # Prices are published on the channel of the symbol. A channel that is written otherwise
        # stays silent, so its subscriber is told.
        symbol = self._meaning(name)
        if isinstance(symbol, Refusal) or symbol.encode() == name:
            return symbol
        return _USE_UPPER_CASE if symbol.encode() == name.upper() else INVALID

    def _take(self, source: _Source, symbol: str | Refusal, written: bytes) -> None:
        if isinstance(symbol, str):
            source.take(symbol)
            self._symbols = None
        else:
            name = as_written(written)
            self._refusals[name] = symbol
            self._refused[name] += 1
            self._refused_count += 1
            self._shown = None

    def _give_back(self, source: _Source, symbol: str | Refusal, written: bytes) -> None:
        # The meaning of an entry depends on the entry alone, so each branch undoes ``_take``'s.
        if isinstance(symbol, str):
            source.give_back(symbol)
            self._symbols = None
        else:
            name = as_written(written)
            self._refused[name] -= 1
            if not self._refused[name]:
                del self._refused[name], self._refusals[name]
            self._refused_count -= 1
            self._shown = None


class _Source:
    """The symbols that one source names, each with the number of its entries that mean it."""

    def __init__(self) -> None:
        self._entries: Counter[str] = Counter()
        self._symbols: frozenset[str] | None = frozenset()  # None: to be found anew

    def symbols(self) -> frozenset[str]:
        """Return the symbols: the same object until they change."""
        if self._symbols is None:
            self._symbols = frozenset(self._entries)
        return self._symbols

    def take(self, symbol: str) -> None:
        """Add an entry that means this symbol."""
        self._entries[symbol] += 1
        if self._entries[symbol] == 1:
            self._symbols = None

    def give_back(self, symbol: str) -> None:
        """Remove an entry that means this symbol."""
        self._entries[symbol] -= 1
        if not self._entries[symbol]:
            del self._entries[symbol]
            self._symbols = None


def _union(*sets: frozenset[str]) -> frozenset[str]:
    """Return the union: one of the sets itself where the others add nothing."""
    largest = max(sets, key=len)
    others = [each for each in sets if not each <= largest]
    return largest.union(*others) if others else largest


class Subscribers:
    """Which channels are demand: those with a subscriber now, or less than ``linger_s`` ago.

    A check does not tell when the last subscriber left. Since the time counts from the first check
    that finds no subscriber, it is never too short.
    """

    def __init__(self, linger_s: float = 10.0) -> None:
        self._linger_s = linger_s
        self._ends_at: dict[bytes, float] = {}

    def seen(self, symbols: Iterable[bytes], now: float) -> set[bytes]:
        """Note which channels have subscribers at ``now``. Return all that count as desired."""
        ends_at = dict.fromkeys(symbols, _NEVER)
        for symbol in self._ends_at.keys() - ends_at.keys():
            at = min(self._ends_at[symbol], now + self._linger_s)
            if now < at:
                ends_at[symbol] = at
        self._ends_at = ends_at
        return set(ends_at)
