"""Decides what is desired, from the raw entries of all sources, and what follows from a change.

Must not talk to Redis, and must not know how the entries are read.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from spotd.models import SymbolState
from spotd.symbols import (
    INVALID,
    WILDCARD,
    WILDCARD_NOT_ALLOWED,
    Refusal,
    as_written,
    is_symbol,
    symbol_of,
)

MAX_REFUSED_SHOWN = 1_000
PROMPT_UP_TO = 10_000  # refused entries: with more, a change takes longer than the contract says
MAX_NEWCOMERS = 500  # a larger change does not go in front of what waits already
MAX_LEAVERS = 1_000  # in one step: so that no step holds the event loop longer than about 3 ms
_NEVER = float("inf")
_WHOLE_MARKET_OVER_LIMIT = "the whole market is asked for, but SPOTD_MAX_SYMBOLS=%d is the limit"
_USE_UPPER_CASE = Refusal("invalid_symbol", "use upper case")


@dataclass(frozen=True, slots=True)
class Demand:
    """What services want: ``symbols`` to stream, and the entries that name no symbol.

    ``of_set`` and ``of_leases`` are the symbols that entries of the set and leases name. Those that
    only a plain subscriber names are in neither.
    ``refused`` holds at most ``MAX_REFUSED_SHOWN`` entries, ``refused_count`` counts all.
    ``term`` is the term of leadership in which the demand was last read, 0 before the first time.
    ``unreadable`` is a sentence that says why Redis refuses to let a source of it be read, or None.
    What that source said last stands, which is nothing if it was never read.
    """

    symbols: frozenset[str] = frozenset()
    refused: Mapping[str, Refusal] = field(default_factory=dict)
    refused_count: int = 0
    term: int = 0
    unreadable: str | None = None
    of_set: frozenset[str] = frozenset()
    of_leases: frozenset[str] = frozenset()

    @property
    def sources(self) -> tuple[frozenset[str], ...]:
        """The symbols of each source, in the order in which sources get room under a limit.

        Source: the wire contract, section 1. Symbols of plain subscribers come behind both.
        """
        return self.of_set, self.of_leases

    def wants(self, symbol: str) -> bool:
        """Return whether prices of ``symbol`` are to be published."""
        return symbol in self.symbols or (WILDCARD in self.symbols and is_symbol(symbol))

    def unwanted(self, symbols: Set[str]) -> set[str]:
        """Return those of the symbols that ``wants`` denies."""
        others = set(symbols) - self.symbols
        if WILDCARD in self.symbols:
            return {symbol for symbol in others if not is_symbol(symbol)}
        return others


@dataclass(frozen=True, slots=True)
class DemandStep:
    """What follows from a change of the demand. No other module draws conclusions of its own.

    ``subscribe`` and ``unsubscribe`` are the symbols that came and left. ``first`` are those of
    ``subscribe`` that do not wait behind symbols that came earlier. ``drop`` are the symbols whose
    prices leave the cache and Redis. ``fetch`` are the symbols that need a snapshot although
    Alpaca will not acknowledge them by name. Some left and came back before they were
    unsubscribed, so they are still active, but their prices are dropped. The others are active as
    a part of the whole market. ``were_live`` are the symbols that another daemon, which led before,
    left live; None: no other daemon led since the last step.
    """

    subscribe: frozenset[str]
    unsubscribe: frozenset[str]
    first: frozenset[str]
    drop: frozenset[str]
    fetch: frozenset[str]
    were_live: frozenset[str] | None = None


def step_between(
    before: Demand,
    after: Demand,
    *,
    active: frozenset[str],
    priced: Set[str],
    limited: bool,
    were_live: frozenset[str] | None = None,
) -> DemandStep:
    """Return what follows from the demand's change.

    ``active`` are the symbols that Alpaca has acknowledged, ``priced`` those in the price cache.
    ``limited`` says that a symbol limit is known: then no symbol goes first, because room goes to
    symbols in the order of the contract. ``were_live`` is passed on.
    """
    left = before.symbols - after.symbols
    # ``before`` without ``left`` is what stayed. Where that is all of ``after``, nothing came.
    stayed = len(before.symbols) - len(left)
    came = after.symbols - before.symbols if stayed < len(after.symbols) else frozenset[str]()
    drop: frozenset[str] = frozenset()
    # While the whole market is desired, every symbol is, so none is dropped. When the whole market
    # leaves, the symbols that only it brought leave too: they have prices, and nobody names them.
    if left and WILDCARD not in after.symbols:
        drop = left.union(priced) - after.symbols if WILDCARD in left else left
    return DemandStep(
        subscribe=came,
        unsubscribe=left,
        first=frozenset() if limited or len(came) > MAX_NEWCOMERS else came,
        drop=drop - {WILDCARD},
        fetch=(came if WILDCARD in active else came & active) - {WILDCARD},
        were_live=were_live,
    )


def keeps_room(state: SymbolState) -> bool:
    """Return whether a symbol in this state has room under a limit, and keeps it over a fail-over.

    Source: the wire contract, section 1. A symbol is ``stale`` or ``halted`` only after Alpaca
    acknowledged it.
    """
    return state.state in ("live", "stale", "halted")


def demands_between(
    before: Demand, after: Demand, *, active: frozenset[str], at_most: int = MAX_LEAVERS
) -> Iterator[Demand]:
    """Yield the demands that lead from ``before`` to ``after``, which is the last one.

    All symbols that come do so in the first of them. At most ``at_most`` symbols leave in each.
    Symbols that are not ``active`` leave first. As a consequence, none of them is asked for in the
    room that another one left.
    """
    left = before.symbols - after.symbols
    if len(left) > at_most:
        leavers = sorted(left, key=active.__contains__)
        symbols = {*before.symbols, *after.symbols}
        for start in range(0, len(leavers) - at_most, at_most):
            symbols.difference_update(leavers[start : start + at_most])
            yield replace(after, symbols=frozenset(symbols))
    yield after


def to_fetch(acknowledged: frozenset[str], demand: Demand) -> frozenset[str]:
    """Return which symbols need a snapshot after Alpaca acknowledged some that were not active.

    A symbol that left the demand meanwhile needs none. When Alpaca acknowledges the whole market,
    every desired symbol needs one.
    """
    fetch = demand.symbols if WILDCARD in acknowledged else demand.symbols & acknowledged
    return fetch - {WILDCARD}


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
