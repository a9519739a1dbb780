"""Decides what follows from a change of the demand. ``core.demand_reader`` says what is desired.

Must not talk to Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace

from spotd.models import SymbolState
from spotd.symbols import WILDCARD, Refusal, is_symbol

MAX_REFUSED_SHOWN = 1_000
PROMPT_UP_TO = 10_000  # refused entries: with more, a change takes longer than the contract says
MAX_NEWCOMERS = 500  # a larger change does not go in front of what waits already
MAX_LEAVERS = 1_000  # in one step: so that no step holds the event loop longer than about 3 ms


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
