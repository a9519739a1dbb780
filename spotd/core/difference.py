"""Decides which symbols to subscribe and which to unsubscribe, in which order. Must not ask Alpaca.

*Desired* symbols are those that services want, *active* symbols those that Alpaca acknowledged
last. Symbols that are desired, not active and not refused *wait*. Symbols that are active and not
desired are *surplus*. The symbols that wait have three ranks. Room goes to one rank after the
other, and to the symbols of a rank by name:

1. Symbols that had room in the last session and are still desired. As a consequence, no symbol
   loses its room to another by a reconnect. Symbols that are *renewed* have this rank too: they
   are unsubscribed, and subscribed again, because Alpaca seems to have lost them.
2. Newcomers that the caller lets in front.
3. All others.

The whole market, ``*``, changes what is to be active:

======= ================================== ====================================================
state   when                               to be active
======= ================================== ====================================================
off     ``*`` is not desired, or refused   the desired symbols
waits   ``*`` is desired and not active    ``*`` and the desired symbols that are active already
granted ``*`` is active                    ``*`` alone; if it is not desired any more, the
                                           desired symbols
======= ================================== ====================================================

A symbol is *served* if it was active at any time since it became desired. Being served is not
enough for rank 1: when Alpaca refuses a served symbol for an hour, another symbol takes its room.
That other symbol is live now, and must not lose the room by the next reconnect.

Ranks and surplus are kept sorted, and each event changes only what it is about, so that an
acknowledgement of 500 symbols costs no loop over 11,500. Where ``*`` matters they are found anew.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice
from typing import Literal

from spotd.core.refusals import Refusals
from spotd.symbols import WILDCARD


class SortedSymbols:
    """Symbols in sorted order."""

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._symbols = sorted(symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def first(self, count: int | None = None) -> list[str]:
        """Return the first ``count`` symbols, or all."""
        return self._symbols[:count]

    def add(self, symbols: Iterable[str]) -> None:
        """Add symbols, none of which is in it."""
        if more := sorted(symbols):
            self._symbols += more
            self._symbols.sort()  # timsort merges two sorted runs in linear time

    def remove(self, symbols: frozenset[str]) -> None:
        """Remove symbols, of which some may not be in it."""
        count = len(symbols)
        if symbols.issuperset(self._symbols[:count]):
            # The common case: the first symbols were asked for. The first ``count`` entries are
            # all of ``symbols``, or they are the whole list. As a consequence, none of
            # ``symbols`` stands behind them.
            del self._symbols[:count]
        else:
            self._symbols = [symbol for symbol in self._symbols if symbol not in symbols]


class Difference:
    """The difference between desired and active, over all sessions of one account."""

    def __init__(self, refusals: Refusals) -> None:
        self.desired: frozenset[str] = frozenset()
        self.active: frozenset[str] = frozenset()
        self.served: frozenset[str] = frozenset()
        self._refusals = refusals  # read only
        self._had_room: frozenset[str] = frozenset()
        self._renewing: frozenset[str] = frozenset()  # active, and to be unsubscribed all the same
        # None: to be found anew.
        self._ranks: tuple[SortedSymbols, SortedSymbols, SortedSymbols] | None = None
        self._surplus: SortedSymbols | None = None

    @property
    def whole_market(self) -> Literal["off", "waits", "granted"]:
        """The state of ``*``."""
        if WILDCARD in self.active:
            return "granted"
        if WILDCARD in self.desired and WILDCARD not in self._refusals.by_symbol:
            return "waits"
        return "off"

    # What is to be done

    def surplus(self, count: int) -> tuple[str, ...]:
        """Return the first ``count`` symbols to unsubscribe."""
        if self._surplus is None:
            self._surplus = SortedSymbols((self.active - self._targets()) | self._renewing)
        return tuple(self._surplus.first(count))

    def waiting(self, count: int) -> tuple[str, ...]:
        """Return the first ``count`` symbols to subscribe."""
        # No symbol behind the first ``count`` of its own rank is among the first ``count`` of all.
        return tuple(islice(chain(*(rank.first(count) for rank in self._waiting())), count))

    def waiting_beyond(self, room: int) -> list[str]:
        """Return the symbols to subscribe for which ``room`` leaves no place."""
        waiting = self._waiting()
        if sum(map(len, waiting)) <= room:
            return []
        return list(chain(*(rank.first() for rank in waiting)))[room:]

    def still_waiting(self, symbols: Iterable[str]) -> tuple[str, ...]:
        """Return those of the symbols that are still to be subscribed."""
        targets, active = self._targets(), self.active
        return tuple(symbol for symbol in symbols if symbol in targets and symbol not in active)

    # What happens

    def want(self, desired: frozenset[str], first: frozenset[str]) -> frozenset[str]:
        """Take over what is desired; newcomers in ``first`` get rank 2.

        Return the symbols that are not desired any more.
        """
        new, gone = desired - self.desired, self.desired - desired
        if not new and not gone:
            return gone
        if not self._renewing.isdisjoint(gone):
            self._renewing -= gone
            self._surplus = None
        before = self.whole_market
        self.desired = desired
        # A new symbol is served at once as a part of the whole market, or if it left and came back
        # before it was unsubscribed: then it is active all the time.
        self._serve(new if before == "granted" else new & self.active)
        if not self.served.isdisjoint(gone):
            self.served -= gone
        self._had_room -= gone
        if before != "off" or self.whole_market != "off":
            self.sort_anew()
        # Where ranks are kept, ``*`` plays no part. A symbol that leaves the demand loses its
        # refusal. As a consequence, no new symbol is refused, and each that is not active waits.
        if self._ranks is not None:
            for rank in self._ranks:
                rank.remove(gone)
            waiting = new - self.active
            self._ranks[1].add(waiting & first)
            self._ranks[2].add(waiting - first)
        if self._surplus is not None:
            self._surplus.remove(new)
            self._surplus.add(gone & self.active)
        return gone

    def acknowledged(self, listed: frozenset[str]) -> frozenset[str]:
        """Take over the whole list of what is active. Return what became active."""
        before, new = self.active, listed - self.active
        # ``listed`` without ``new`` is what stayed active. Where that is as much as was active,
        # nothing was lost, and the second comparison of two whole sets is saved.
        lost = before - listed if len(listed) - len(new) < len(before) else frozenset()
        if not new and not lost:
            return new
        self.active = listed
        if renewed := self._renewing - listed:
            self._renewing -= renewed
            self._had_room |= renewed  # nobody takes the room that they left for a moment
        self._serve(self.desired if WILDCARD in new else new & self.desired)
        if WILDCARD in before or self.whole_market != "off":
            self.sort_anew()
        elif not self.desired.isdisjoint(lost):
            self._ranks = None  # what Alpaca dropped waits again
        if self._ranks is not None:
            for rank in self._ranks:
                rank.remove(new)
        if self._surplus is not None:
            self._surplus.remove(lost)
            self._surplus.add(new - self.desired)
        return new

    def renew(self, symbols: frozenset[str]) -> None:
        """Have these unsubscribed and subscribed again, those that are active and desired."""
        self._renewing |= symbols & self.active & self.desired
        self._surplus = None

    def refused(self, symbols: frozenset[str]) -> None:
        """Take in that these symbols are refused now, so they do not wait any more."""
        if WILDCARD in symbols:
            self.sort_anew()
        elif self._ranks is not None:
            for rank in self._ranks:
                rank.remove(symbols)

    def disconnected(self, room: int | None) -> None:
        """Take in that nothing is active any more.

        ``room`` is the number of further symbols for which there was room; None: no limit.
        """
        # The session may have ended before all symbols of rank 1 had their room again. The
        # missing ones keep the rank, as many as there was room for.
        missing = sorted(self._had_room - self.active - self._refusals.by_symbol.keys())
        self._had_room = (self.active & self.desired) | frozenset(missing[:room])
        self.active = self._renewing = frozenset()
        self.sort_anew()

    def sort_anew(self) -> None:
        """Find ranks and surplus anew, since any symbol may have changed its rank."""
        self._ranks = self._surplus = None

    def _serve(self, symbols: frozenset[str]) -> None:
        if not symbols <= self.served:  # the set stays the same object until it changes
            self.served |= symbols

    def _targets(self) -> frozenset[str]:
        """Return the symbols that are to be active."""
        if WILDCARD not in self.desired:
            return self.desired
        if self.whole_market == "granted":
            return frozenset((WILDCARD,))
        if self.whole_market == "waits":
            # Until Alpaca grants the whole market, live symbols stay live.
            return (self.active & self.desired) | {WILDCARD}
        return self.desired - {WILDCARD}

    def _waiting(self) -> tuple[SortedSymbols, SortedSymbols, SortedSymbols]:
        """Return the three ranks."""
        if self._ranks is None:
            # Rank 2 is empty: symbols let in front lose that place when ranks are found anew.
            waiting = self._targets() - self.active - self._refusals.by_symbol.keys()
            first = waiting & self._had_room
            self._ranks = SortedSymbols(first), SortedSymbols(), SortedSymbols(waiting - first)
        return self._ranks
