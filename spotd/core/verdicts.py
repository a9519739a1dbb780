"""Decides the verdict on each symbol: its state with reason and detail, without its time.

The verdicts of a whole market are brought up to date by the difference of two ``Facts``, and in
groups: whole sets are compared, because a look at each symbol would hold the event loop for
several times as long.

Must not write anything, and must not read a clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from heapq import nsmallest
from typing import NamedTuple

from spotd.core.demand import MAX_REFUSED_SHOWN
from spotd.core.states import Facts
from spotd.models import SymbolCounts, SymbolStateName
from spotd.reasons import Code, Reason
from spotd.symbols import WILDCARD, Refusal


class Verdict(NamedTuple):
    """The state of one symbol or refused entry, without its time."""

    state: SymbolStateName
    reason: str | None = None
    detail: str | None = None
    code: Code | None = None


def _because(state: SymbolStateName, reason: Reason) -> Verdict:
    return Verdict(state, reason.text, code=reason.code)


_LIVE = Verdict("live")
_NO_QUOTE_YET = Verdict("live", "waiting for its first quote", code="no_quote_yet")
_HALTED = Verdict("halted")
_PENDING = Verdict("pending")


def shown_refusals(
    refused: Mapping[str, Refusal], entries: Mapping[str, Refusal]
) -> dict[str, Refusal]:
    """Return the refusals that are shown, at most 1,000.

    Symbols come before entries that name none, and each of both in sorted order.
    """
    symbols: Iterable[str] = refused
    if len(refused) > MAX_REFUSED_SHOWN:
        symbols = nsmallest(MAX_REFUSED_SHOWN, refused)
    shown = {symbol: refused[symbol] for symbol in symbols}
    for entry in sorted(entries):
        if len(shown) >= MAX_REFUSED_SHOWN:
            break
        shown.setdefault(entry, entries[entry])
    return shown


class Verdicts:
    """The verdict on every desired symbol and on refused entries, each with its time.

    ``since_unix_s`` is when each name got its present state.
    """

    def __init__(self) -> None:
        self.verdicts: dict[str, Verdict] = {}
        self.since_unix_s: dict[str, float] = {}
        self.counts = SymbolCounts()
        self._facts = Facts()
        self._shown: dict[str, Refusal] = {}
        self._tally: Counter[SymbolStateName] = Counter()

    def update(self, facts: Facts, unix_s: float) -> list[str]:
        """Take in the facts as they are at ``unix_s``. Return the names that got another verdict.

        A name without a verdict has none any more.
        """
        before, self._facts = self._facts, facts
        names = self._concerned(before, facts)
        changed: list[str] = []
        for name in names & self._shown.keys():
            refusal = self._shown[name]
            changed += self._set(
                (name,), Verdict("refused", refusal.reason, refusal.detail, refusal.reason), unix_s
            )
        names -= self._shown.keys()
        judged = (names & facts.demand.symbols) - facts.stream.subscriptions.refused.keys()
        for verdict, group in _groups(judged, facts):
            changed += self._set(group, verdict, unix_s)
        changed += self._end(names - judged)
        self.counts = self._counts(facts)
        return changed

    def _counts(self, facts: Facts) -> SymbolCounts:
        """Count the verdicts, unless another daemon leads: its verdicts count, and ours are old."""
        if facts.leadership.another:
            return SymbolCounts()
        tally = self._tally
        return SymbolCounts(
            desired=len(facts.demand.symbols),
            refused=len(facts.stream.subscriptions.refused) + facts.demand.refused_count,
            live=tally["live"],
            pending=tally["pending"],
            stale=tally["stale"],
            halted=tally["halted"],
        )

    def _concerned(self, before: Facts, after: Facts) -> set[str]:
        """Return every name whose verdict may differ. The same object as before costs nothing.

        ``update`` looks a name up in the parts that are compared here, and asks whether ``*`` is
        active. As a consequence, any other name keeps its verdict.
        """
        old, new = before.stream.subscriptions, after.stream.subscriptions
        names = _differing(before.demand.symbols, after.demand.symbols)
        names |= _differing(before.halted, after.halted)
        names |= _differing(before.quoted, after.quoted)
        if before.stream.stale != after.stream.stale:
            names |= new.served
        if old is not new:
            names |= _differing(old.active, new.active)
            names |= _differing(old.served, new.served)
            if old.refused is not new.refused:
                names |= old.refused.keys() ^ new.refused.keys()
            if WILDCARD in old.active or WILDCARD in new.active:
                names |= after.demand.symbols
        if old.refused is not new.refused or before.demand.refused is not after.demand.refused:
            shown, self._shown = self._shown, shown_refusals(new.refused, after.demand.refused)
            names |= {
                name
                for name in shown.keys() | self._shown.keys()
                if shown.get(name) != self._shown.get(name)
            }
        return names

    def _set(self, names: Iterable[str], verdict: Verdict, unix_s: float) -> list[str]:
        """Give names a verdict. Return those that had another one, or none."""
        verdicts = self.verdicts
        changed = [name for name in names if verdicts.get(name) != verdict]
        had = [name for name in changed if name in verdicts]
        kept = {name for name in had if verdicts[name].state == verdict.state}
        self._tally.subtract([verdicts[name].state for name in had])
        self._tally[verdict.state] += len(changed)
        verdicts.update(dict.fromkeys(changed, verdict))
        began = [name for name in changed if name not in kept] if kept else changed
        self.since_unix_s.update(dict.fromkeys(began, unix_s))
        return changed

    def _end(self, names: Iterable[str]) -> list[str]:
        """Take the verdicts of names away. Return those that had one."""
        gone = [name for name in names if name in self.verdicts]
        self._tally.subtract([self.verdicts.pop(name).state for name in gone])
        for name in gone:
            del self.since_unix_s[name]
        return gone


def _groups(symbols: AbstractSet[str], facts: Facts) -> Iterator[tuple[Verdict, AbstractSet[str]]]:
    """Yield each verdict with those of the symbols, desired and not refused, that it is on."""
    subscriptions = facts.stream.subscriptions
    whole_market = WILDCARD in subscriptions.active
    active = symbols if whole_market else symbols & subscriptions.active
    # A halt stands over an interruption of the stream.
    halted = (active | (symbols & subscriptions.served)) & facts.halted
    yield _HALTED, halted
    live = active - halted
    waiting = live - facts.quoted - {WILDCARD}
    yield _LIVE, live - waiting
    yield _NO_QUOTE_YET, waiting
    others = symbols - active - halted
    served = others & subscriptions.served
    yield _because("stale", facts.stream.stale), served
    yield _PENDING, others - served


def _differing(before: frozenset[str], after: frozenset[str]) -> set[str]:
    return set() if before is after else set(before ^ after)
