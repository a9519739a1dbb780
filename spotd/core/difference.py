"""Decides which symbols to subscribe and which to unsubscribe, in which order. Must not ask Alpaca.

*Desired* symbols are those that services want, *active* symbols those that Alpaca acknowledged
last. Symbols that are desired, not active and not refused *wait*. Symbols that are active and not
desired are *surplus*. The symbols that wait have three ranks, and room goes to one rank after the
other:

1. Symbols that had room in the last session, or were live for the daemon that led before, and are
   still desired. As a consequence, no symbol loses its room to another by a reconnect, a restart
   or a fail-over. Symbols that are *renewed* have this rank too: they are unsubscribed, and
   subscribed again, because Alpaca seems to have lost them.
2. Newcomers that the caller lets in front.
3. All others.

Within a rank, room goes to the symbols of one source after the other, in the order in which the
caller names the sources (the set of the demand comes before its leases). Within a source it goes to
the symbol that became desired first, and by name to those that became desired together.

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

Ranks and surplus are kept in order, and each event changes only what it is about, so that an
acknowledgement of 500 symbols costs no loop over 11,500. Where ``*`` matters they are found anew,
and so are the ranks where a symbol that waits gets another source.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Literal, TypeAlias

from spotd.core.refusals import Refusals
from spotd.symbols import WILDCARD

#: Symbols in order: the keys. A dict forgets one without a search, and a new one is the last.
_Queue: TypeAlias = dict[str, None]


class SortedSymbols:
    """Symbols in sorted order."""

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._symbols = sorted(symbols)

    def first(self, count: int) -> list[str]:
        """Return the first ``count`` symbols."""
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
        self._came: _Queue = {}  # the desired symbols, the earliest first
        self._sources: Sequence[frozenset[str]] = ()
        self._had_room: frozenset[str] = frozenset()
        self._renewing: frozenset[str] = frozenset()  # active, and to be unsubscribed all the same
        # Rank 1, rank 2, and rank 3 in as many parts as there are sources, and one for the others.
        # None: to be found anew.
        self._ranks: list[_Queue] | None = None
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
        return tuple(islice(chain(*self._waiting()), count))

    def waiting_beyond(self, room: int) -> list[str]:
        """Return the symbols to subscribe for which ``room`` leaves no place."""
        waiting = self._waiting()
        if sum(map(len, waiting)) <= room:
            return []
        return list(islice(chain(*waiting), room, None))

    def still_waiting(self, symbols: Iterable[str]) -> tuple[str, ...]:
        """Return those of the symbols that are still to be subscribed."""
        targets, active = self._targets(), self.active
        return tuple(symbol for symbol in symbols if symbol in targets and symbol not in active)

    # What happens

    def want(
        self,
        desired: frozenset[str],
        first: frozenset[str],
        sources: Sequence[frozenset[str]] = (),
    ) -> frozenset[str]:
        """Take over what is desired; newcomers in ``first`` get rank 2.

        ``sources`` are the symbols that each source names. The first source gets room first, and
        desired symbols that none names get it last. Return the symbols that are not desired any
        more.
        """
        new, gone = desired - self.desired, self.desired - desired
        if self._moves_one_that_waits(sources, gone):
            self._ranks = None
        self._sources = sources
        if not new and not gone:
            return gone
        if not self._renewing.isdisjoint(gone):
            self._renewing -= gone
            self._surplus = None
        before = self.whole_market
        self.desired = desired
        arrivals = sorted(new)
        for symbol in gone:
            del self._came[symbol]
        self._came.update(dict.fromkeys(arrivals))
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
            _remove(gone, self._ranks)
            waiting = [symbol for symbol in arrivals if symbol not in self.active]
            self._ranks[1].update(dict.fromkeys(s for s in waiting if s in first))
            parts = _by_source((s for s in waiting if s not in first), sources)
            for rank, part in zip(self._ranks[2:], parts, strict=True):
                rank.update(part)
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
            _remove(new, self._ranks)
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
            _remove(symbols, self._ranks)

    def take_over(self, live: frozenset[str]) -> None:
        """Take in which symbols were live for the daemon that led before.

        They were acknowledged before, so the desired ones among them are served.
        """
        self._had_room = live & self.desired
        self._serve(self._had_room)
        self.sort_anew()

    def disconnected(self, room: int | None) -> None:
        """Take in that nothing is active any more.

        ``room`` is the number of further symbols for which there was room; None: no limit.
        """
        # The session may have ended before all symbols of rank 1 had their room again. The
        # missing ones keep the rank, as many as there was room for.
        missing = self._had_room - self.active - self._refusals.by_symbol.keys()
        in_order = chain(*_by_source(self._in_order(missing), self._sources))
        self._had_room = (self.active & self.desired).union(islice(in_order, room))
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

    def _waiting(self) -> list[_Queue]:
        """Return the ranks."""
        if self._ranks is None:
            # Rank 2 is empty: symbols let in front lose that place when ranks are found anew.
            waiting = self._targets() - self.active - self._refusals.by_symbol.keys()
            had_room = waiting & self._had_room
            first = _by_source(self._in_order(had_room), self._sources)
            others = _by_source(self._in_order(waiting - had_room), self._sources)
            self._ranks = [dict.fromkeys(chain(*first)), {}, *others]
        return self._ranks

    def _in_order(self, symbols: frozenset[str]) -> Iterable[str]:
        """Return those of the symbols that are desired, the earliest first."""
        return filter(symbols.__contains__, self._came) if symbols else ()

    def _moves_one_that_waits(
        self, sources: Sequence[frozenset[str]], gone: frozenset[str]
    ) -> bool:
        """Return whether a symbol that waits, and is not gone, has other sources now."""
        if self._ranks is None:
            return False
        if len(sources) != len(self._sources):
            return True
        moved: set[str] = set()
        for before, after in zip(self._sources, sources, strict=True):
            if before is not after and any(self._ranks):
                moved |= before ^ after
        moved -= gone
        return not all(rank.keys().isdisjoint(moved) for rank in self._ranks)


def _by_source(symbols: Iterable[str], sources: Sequence[frozenset[str]]) -> list[_Queue]:
    """Return a queue for each source, in the order of ``symbols``, and one for the others.

    A symbol that several sources name is in the queue of the first one.
    """
    queues: list[_Queue] = []
    rest = list(symbols)
    for source in sources:
        queues.append(dict.fromkeys(filter(source.__contains__, rest)))
        rest = [symbol for symbol in rest if symbol not in source] if queues[-1] else rest
    return [*queues, dict.fromkeys(rest)]


def _remove(symbols: frozenset[str], queues: Iterable[_Queue]) -> None:
    """Remove symbols, of which some may not be there."""
    for queue in queues:
        # The view's intersection loops over the smaller of the two.
        for symbol in queue.keys() & symbols:
            del queue[symbol]
