"""Decides which single symbols are mute: the stream brings others, and withholds their quotes.

Must not ask REST itself, and must not judge a stream that brings nothing (``core.freshness`` does).

Most symbols are silent most of the time, so silence proves nothing. REST is asked about a rotating
share of the silent symbols, as many as one call takes. One symbol is in one of these states:

- *heard* -> *silent*: its newest quote is older than half a minute.
- *silent* -> *suspected*: REST knows a newer quote.
- *suspected* -> *heard*: any quote of it came within the grace, in which a late quote arrives.
- *suspected* -> *mute*: none came. The symbol is stale, subscribed anew, and takes REST's price.
- *mute* -> *heard*: its next quote came. The price cache sees that first; see ``heard``.

A round asks about each silent symbol once. All questions to REST keep ``CALL_EVERY_S`` between two
calls, which is less than 30 a minute. With 11,500 silent symbols, a round is 115 calls in 242 s. A
symbol is silent for 30 s before it may be asked about, and suspected for 10 s and the present lag.
So a mute symbol is found within 282 s, the lag, and the time that REST takes to answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta

from spotd.core.freshness import is_ahead
from spotd.core.messages import Quote

CALL_EVERY_S = 2.1
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class MuteSymbolTimes:
    """The times of the rule, in seconds."""

    silent_s: float = 30.0  # without a quote before REST is asked about a symbol
    grace_s: float = 10.0  # in which a quote that REST knew first may still arrive
    round_s: float = 60.0  # a round takes no less
    retry_s: float = 60.0  # after REST did not answer
    renew_every_s: float = 600.0  # a mute symbol is subscribed anew no more often


@dataclass(frozen=True, slots=True)
class Answer:
    """What REST's answer means.

    ``take``: symbols whose price is to be taken from REST at once, because they have none or are
    mute. ``suspected``: symbols of which REST knows a newer quote.
    """

    take: tuple[str, ...]
    suspected: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Suspicion:
    """REST knows a newer quote than the one of ``quoted_at`` that we hold ``since`` then."""

    quoted_at: datetime
    since: float


class MuteSymbols:
    """The symbols of one session that are asked about, suspected or mute.

    ``mute`` remains the same object until it changes. ``quoted_at`` returns the time of the quote
    that we hold of a symbol, None without one.
    """

    def __init__(
        self,
        quoted_at: Callable[[str], datetime | None],
        times: MuteSymbolTimes | None = None,
    ) -> None:
        self.mute: frozenset[str] = frozenset()
        self._quoted_at = quoted_at
        self._times = MuteSymbolTimes() if times is None else times
        self._symbols: AbstractSet[str] = frozenset()
        self._order: list[str] = []
        self._place = 0  # in ``_order``: the next symbol to ask about
        self._round_began_at = _NEVER
        self._retry_at = _NEVER
        self._unpriced: set[str] = set()  # symbols that had no quote in an earlier round
        self._suspected: dict[str, _Suspicion] = {}
        self._renewed_at: dict[str, float] = {}

    # What happens

    def opened(self) -> None:
        """Take in a new session: all symbols are subscribed anew, and none is mute."""
        self.mute = frozenset()
        self._unpriced.clear()
        self._suspected.clear()
        self._renewed_at.clear()

    def follow(self, symbols: AbstractSet[str], served: AbstractSet[str]) -> None:
        """Take over the symbols that the stream should bring. The round goes on where it was.

        ``served`` are these, and the desired symbols that it brought before. A mute symbol stays
        mute while it is unsubscribed to be renewed.
        """
        if not self.mute <= served:
            self.mute &= served
        if symbols is self._symbols:
            return
        last = self._order[self._place - 1] if self._place else ""
        self._symbols = symbols
        self._order = sorted(symbols)
        self._place = bisect_right(self._order, last)
        self._unpriced &= symbols
        for symbol in self._suspected.keys() - symbols:
            del self._suspected[symbol]

    def heard(self, symbols: AbstractSet[str]) -> None:
        """Take in that quotes of these symbols came."""
        self.mute -= symbols

    # Asking REST

    @property
    def round_over(self) -> bool:
        """Whether each silent symbol was asked about in this round."""
        return self._place >= len(self._order)

    @property
    def ask_at(self) -> float:
        """When to ask REST next, in monotonic seconds, while the stream brings quotes."""
        if self.round_over:
            return max(self._retry_at, self._round_began_at + self._times.round_s)
        return self._retry_at

    def take(self, count: int, exchange_now: datetime, now: float) -> list[str]:
        """Return the next silent symbols to ask about, at most ``count``.

        ``exchange_now`` is the present exchange time, by the stream's own quotes. A symbol without
        a quote counts as silent from its second round on: its first price is being fetched. Where
        no symbol is returned, the round is over.
        """
        if self.round_over:
            self._place = 0
        if self._place == 0:
            self._round_began_at = now
        silent_before = exchange_now - timedelta(seconds=self._times.silent_s)
        taken: list[str] = []
        while not self.round_over and len(taken) < count:
            symbol = self._order[self._place]
            self._place += 1
            quoted_at = self._quoted_at(symbol)
            if quoted_at is None:
                if symbol in self._unpriced:
                    taken.append(symbol)
                self._unpriced.add(symbol)
            elif quoted_at <= silent_before:
                taken.append(symbol)
        return taken

    def could_not_ask(self, now: float) -> None:
        """Take in that REST did not answer."""
        self._retry_at = now + self._times.retry_s

    def answered(
        self, held: Mapping[str, datetime | None], found: Mapping[str, Quote | None], now: float
    ) -> Answer:
        """Return what the answer means that came at ``now``.

        ``held``: the symbols that REST was asked about, with the time of the quote that we held
        when it was asked, None without one. ``found``: REST's quotes; a symbol may be missing.
        """
        take, suspected = [], []
        for symbol, held_at in held.items():
            quote, quoted_at = found.get(symbol), self._quoted_at(symbol)
            if quote is None or symbol not in self._symbols:
                continue
            if quoted_at is None or symbol in self.mute:
                take.append(symbol)
            elif quoted_at == held_at and is_ahead(quote, quoted_at):
                self._suspected.setdefault(symbol, _Suspicion(quoted_at, now))
                suspected.append(symbol)
        return Answer(tuple(take), tuple(suspected))

    # The verdict

    @property
    def suspected(self) -> AbstractSet[str]:
        """The suspected symbols."""
        return self._suspected.keys()

    @property
    def judge_at(self) -> float | None:
        """When to judge the earliest suspicion, in monotonic seconds; None without any."""
        first = next(iter(self._suspected.values()), None)
        return None if first is None else first.since + self._times.grace_s

    def judge(self, now: float, lag_s: float) -> frozenset[str]:
        """Make those suspected symbols mute whose grace is over. Return them.

        ``lag_s`` is how long quotes are on their way at present: it adds to the grace.
        """
        grace_s = self._times.grace_s + max(0.0, lag_s)
        found = set()
        for symbol, suspicion in list(self._suspected.items()):
            if now < suspicion.since + grace_s:
                break  # the earliest come first
            del self._suspected[symbol]
            if self._quoted_at(symbol) == suspicion.quoted_at:
                found.add(symbol)
        if found:
            self.mute |= found
        return frozenset(found)

    def renews(self, symbols: Iterable[str], now: float) -> frozenset[str]:
        """Return which of the mute ``symbols`` to subscribe anew now; they count as renewed."""
        due = frozenset(
            symbol
            for symbol in symbols
            if symbol in self.mute
            and now - self._renewed_at.get(symbol, _NEVER) >= self._times.renew_every_s
        )
        self._renewed_at.update(dict.fromkeys(due, now))
        return due
