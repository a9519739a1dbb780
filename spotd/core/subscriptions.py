"""Decides what to ask Alpaca for next: desired, active, limits and refusals in, a request out.

*Desired* is what somebody wants, *active* is what Alpaca acknowledged; they are compared anew
before every request, so a lost message heals at the next look. One request is under way at a
time: an error does not say which request it answers. Must not send anything itself.

The rules of Alpaca's protocol behind it: requests are additive and atomic; an acknowledgement
carries the whole list; 400 rejects a whole request for one ill-formed symbol; 405 rejects it
whole and keeps what was subscribed before; 410 says that a channel does not exist on this feed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from spotd.models import RefusalReason
from spotd.symbols import WILDCARD, Refusal

MAX_SYMBOLS_PER_REQUEST = 500
RETRY_REFUSED_S = 3_600.0

# Seen on other streams of Alpaca's in answer to a whole market: a refusal, not a broken session.
_NOT_FOR_THIS_PLAN = frozenset((409, 411, 412, 413))

_OVER_LIMIT: RefusalReason = "symbol_limit"
_BY_ALPACA: RefusalReason = "refused_by_alpaca"


class UnexpectedAnswerError(Exception):
    """Alpaca's answer fits no request of ours: the connection cannot be trusted any more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message to Alpaca: ``symbols`` on the quotes channel, and on trades too if ``trades``.

    ``statuses`` asks for the trading statuses of all symbols instead.
    """

    action: Literal["subscribe", "unsubscribe"]
    symbols: tuple[str, ...] = ()
    trades: bool = False
    statuses: bool = False


class _Line:
    """Symbols in sorted order, which is found once and then kept."""

    def __init__(self, symbols: Iterable[str] = ()) -> None:
        self._symbols = sorted(symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def first(self, count: int | None = None) -> list[str]:
        """So many of them, or all."""
        return self._symbols[:count]

    def add(self, symbols: Iterable[str]) -> None:
        """Symbols that are not in it."""
        if more := sorted(symbols):
            self._symbols += more
            self._symbols.sort()  # two sorted runs, which costs no more than to look at them

    def remove(self, symbols: frozenset[str]) -> None:
        """Symbols that may be in it."""
        count = len(symbols)
        if symbols.issuperset(self._symbols[:count]):
            del self._symbols[:count]  # what was asked for stood in front
        else:
            self._symbols = [symbol for symbol in self._symbols if symbol not in symbols]


class Subscriptions:
    """The subscriptions of one account, over all its connections."""

    def __init__(
        self,
        *,
        trades: bool = True,
        max_symbols: int | None = None,
        batch: int = MAX_SYMBOLS_PER_REQUEST,
    ) -> None:
        self.desired: frozenset[str] = frozenset()
        self.active: frozenset[str] = frozenset()
        self.version = 0  # rises at every change that somebody may want to report
        self.learned_limit: int | None = None
        self.without_trades: frozenset[str] = frozenset()  # of the last acknowledgement
        self._max_symbols = max_symbols
        self._batch = batch
        self._want_trades = trades
        self._trades = trades
        self._wildcard_trades = True
        self._on_trades: frozenset[str] = frozenset()
        self._statuses: Literal["untried", "on", "give_back", "off"] = "untried"
        self._request: Request | None = None
        self._refused: dict[str, tuple[Refusal, float]] = {}
        self._suspects: list[tuple[str, ...]] = []
        # Of the desired ones, those active on the last connections: they have the first claim.
        self._were_active: frozenset[str] = frozenset()
        # Kept by what changes, so that a request costs the same at any number of symbols. None:
        # to be found anew. First those with the first claim, then those let in front, then others.
        self._lines: tuple[_Line, _Line, _Line] | None = None
        self._surplus: _Line | None = None
        self._touched: set[str] | None = None
        # Fewest symbols known to be too many. Found by bisection, and exact once `_converged`.
        self._ceiling: int | None = None
        self._converged = False
        self._probe_above = False

    @property
    def awaiting(self) -> Request | None:
        """The request under way."""
        return self._request

    @property
    def trades(self) -> bool:
        """Whether trades are asked for on this connection."""
        return self._trades

    @property
    def limited(self) -> bool:
        """Whether a limit is known: then who waits in front decides who gets room at all."""
        return self._limit() is not None

    def want(self, desired: frozenset[str], *, first: frozenset[str] = frozenset()) -> None:
        """Take over a new demand. A symbol that left it loses its refusal too.

        New ones that are in ``first`` do not wait behind a long row.
        """
        new, gone = desired - self.desired, self.desired - desired
        if not new and not gone:
            return
        anew = self._whole_market_concerned() or WILDCARD in new
        self.desired = desired
        self._were_active -= gone
        for symbol in self._refused.keys() & gone:
            del self._refused[symbol]
        self._moved(new | gone)
        if anew:
            self._sort_anew()
        if self._lines is not None:
            for line in self._lines:
                line.remove(gone)
            waiting = new - self.active
            self._lines[1].add(waiting & first)
            self._lines[2].add(waiting - first)
        if self._surplus is not None:
            self._surplus.remove(new)
            self._surplus.add(gone & self.active)

    def touched(self) -> frozenset[str] | None:
        """Symbols that came, left or got another standing since this was asked last.

        None: it may be any of them.
        """
        touched, self._touched = self._touched, set()
        return None if touched is None else frozenset(touched)

    def connected(self) -> None:
        """A new, authenticated connection: nothing is active on it yet."""
        self.disconnected()
        self._trades = self._want_trades
        self._wildcard_trades = True
        self._statuses = "untried"
        # The plan may have grown since the limit was learned: one symbol above it is tried once.
        self._probe_above = self._ceiling is not None

    def disconnected(self) -> None:
        """The connection is gone, and with it every subscription."""
        # It may have ended before all that were active before had their room again.
        missing = sorted(self._were_active - self.active - self._refused.keys())
        again = frozenset(missing[: self._room()])
        self._were_active = (self.active & self.desired) | again
        self.active = self._on_trades = frozenset()
        self._request = None
        self._suspects = []
        self._sort_anew()

    def refusals(self) -> Mapping[str, Refusal]:
        """Every desired symbol that is not subscribed for a reason, with the reason."""
        refused = {symbol: refusal for symbol, (refusal, _) in self._refused.items()}
        if WILDCARD in self.active:
            return {s: r for s, r in refused.items() if s == WILDCARD}
        room = self._room()
        if room is None or self._whole_market_waits():
            return refused
        waiting = self._waiting()
        if room < sum(map(len, waiting)):
            refusal = Refusal(_OVER_LIMIT, f"{self._limit()} symbols are the limit")
            for symbol in [symbol for line in waiting for symbol in line.first()][room:]:
                refused[symbol] = refusal
        return refused

    def all_refused(self) -> bool:
        """Whether symbols are desired and every one is refused, so that none can become active."""
        return bool(self.desired) and not self.active and self.desired <= self.refusals().keys()

    def next_request(self, now: float) -> Request | None:
        """What to send now; None while an answer is awaited or nothing is to be done."""
        if self._request is not None:
            return None
        self._forgive(now)
        self._request = (
            self._unsubscribe() or self._suspected() or self._subscribe() or self._ask_statuses()
        )
        return self._request

    def acknowledged(
        self, quotes: Iterable[str], trades: Iterable[str], now: float
    ) -> frozenset[str]:
        """Alpaca's full list. Gives what became active.

        Raises UnexpectedAnswerError where an unsubscribed symbol is still in it.
        """
        before = self.active
        self.active = frozenset(quotes)
        self._on_trades = frozenset(trades)
        new = self._compare_active(before)
        request, self._request = self._request, None
        if request is None:
            return new
        if request.statuses:
            self._statuses = "on" if request.action == "subscribe" else "off"
        elif request.action == "unsubscribe":
            if left := self.active.intersection(request.symbols):
                raise UnexpectedAnswerError(f"{len(left)} symbols still there after unsubscribing")
        else:
            self._compare(request, now)
            if request.trades:
                asked = self.active.intersection(request.symbols)
                self.without_trades = asked - self._on_trades
        if self._ceiling is not None and len(self.active) >= self._ceiling:
            self._ceiling, self._converged = None, False
        self._settle_limit()
        return new

    def rejected(self, code: int, message: str, now: float) -> str:
        """An error answered the request under way. Gives a sentence for the log.

        Raises UnexpectedAnswerError for codes that say nothing about the request.
        """
        request, self._request = self._request, None
        if request is None:
            raise UnexpectedAnswerError(f"error {code} ({message}) without a request")
        self.version += 1
        if request.statuses:
            self._statuses = "off"
            return f"trading statuses are not available ({code}): halts will not be shown"
        if request.action == "subscribe":
            if code == 400:
                return self._bisect(request, code, message, now)
            if code == 405:
                return self._over_limit(request, code, message, now)
            if code == 410:
                return self._without(request, code, message, now)
            if code in _NOT_FOR_THIS_PLAN and request.symbols == (WILDCARD,):
                return self._refuse(request.symbols, code, message, now)
        raise UnexpectedAnswerError(f"error {code} ({message}) to a {request.action}")

    # What to ask for

    def _targets(self) -> frozenset[str]:
        if WILDCARD not in self.desired:
            return self.desired
        if WILDCARD in self._refused:
            return self.desired - {WILDCARD}
        if WILDCARD in self.active:
            return frozenset((WILDCARD,))
        # Until Alpaca grants the whole market, what is live stays live.
        return (self.active & self.desired) | {WILDCARD}

    def _whole_market_concerned(self) -> bool:
        """Whether `*` decides what to ask for."""
        if WILDCARD in self.active:
            return True
        return WILDCARD in self.desired and WILDCARD not in self._refused

    def _whole_market_waits(self) -> bool:
        return self._whole_market_concerned() and WILDCARD not in self.active

    def _waiting(self) -> tuple[_Line, _Line, _Line]:
        """Symbols to subscribe, in the order in which they get room."""
        if self._lines is None:
            waiting = self._targets() - self.active - self._refused.keys()
            were_active = self._were_active
            self._lines = _Line(waiting & were_active), _Line(), _Line(waiting - were_active)
        return self._lines

    def _compare_active(self, before: frozenset[str]) -> frozenset[str]:
        """Take in a new list of what is active. Gives what became so."""
        new = self.active - before
        lost = before - self.active if len(self.active) - len(new) < len(before) else frozenset()
        self._moved(new | lost)
        if WILDCARD in new or WILDCARD in lost or self._whole_market_concerned():
            self._sort_anew()
        elif not self.desired.isdisjoint(lost):
            self._lines = None
        if self._lines is not None:
            for line in self._lines:
                line.remove(new)
        if self._surplus is not None:
            self._surplus.remove(lost)
            self._surplus.add(new - self.desired)
        return new

    def _moved(self, symbols: Iterable[str]) -> None:
        """The standing of these changed."""
        self.version += 1
        if self._touched is not None:
            self._touched.update(symbols)

    def _sort_anew(self) -> None:
        """The standing of any may have changed."""
        self.version += 1
        self._lines = self._surplus = self._touched = None

    def _limit(self) -> int | None:
        learned = None if self._ceiling is None else self._ceiling - 1
        limits = [limit for limit in (self._max_symbols, learned) if limit is not None]
        return min(limits, default=None)

    def _room(self) -> int | None:
        """How many more symbols may become active; None: no limit is known."""
        limit = self._limit()
        return None if limit is None else max(0, limit - len(self.active))

    def _unsubscribe(self) -> Request | None:
        if self._statuses == "give_back":
            return Request("unsubscribe", statuses=True)
        if self._surplus is None:
            self._surplus = _Line(self.active - self._targets())
        symbols = tuple(self._surplus.first(self._batch))
        if not symbols:
            return None
        return Request("unsubscribe", symbols, trades=not self._on_trades.isdisjoint(symbols))

    def _suspected(self) -> Request | None:
        """A part of a request that was rejected for one ill-formed symbol."""
        while self._suspects:
            targets, active = self._targets(), self.active
            group = tuple(s for s in self._suspects.pop() if s in targets and s not in active)
            room = self._room()
            if room is not None:
                group = group[:room]
            if group:
                return Request("subscribe", group, trades=self._trades)
        return None

    def _subscribe(self) -> Request | None:
        waiting = self._waiting()
        if not any(waiting):
            return None
        if self._whole_market_waits():  # in place of all others: it needs no room
            trades = self._trades and self._wildcard_trades
            return Request("subscribe", (WILDCARD,), trades=trades)
        room = self._room()
        size = self._batch if room is None else min(self._batch, room)
        if self._ceiling is not None and not self._converged:
            size = min(size, max(1, (self._ceiling - len(self.active)) // 2))
        if size == 0 and self._probe_above and self._may_probe():
            size = 1
        if size == 0:
            return None
        symbols: list[str] = []
        for line in waiting:
            symbols += line.first(size - len(symbols))
        return Request("subscribe", tuple(symbols), trades=self._trades)

    def _may_probe(self) -> bool:
        return self._max_symbols is None or len(self.active) < self._max_symbols

    def _ask_statuses(self) -> Request | None:
        """Halts, for all symbols in one entry, once something is active."""
        if self._statuses != "untried" or not self.active:
            return None
        return Request("subscribe", statuses=True)

    # What answers mean

    def _compare(self, request: Request, now: float) -> None:
        """Asked for but not in the list, although no error came: refused, not asked again."""
        missing = set(request.symbols) - self.active
        self._note(missing, Refusal(_BY_ALPACA, "not in the acknowledgement"), now)

    def _bisect(self, request: Request, code: int, message: str, now: float) -> str:
        if len(request.symbols) == 1:
            return self._refuse(request.symbols, code, message, now)
        half = len(request.symbols) // 2
        self._suspects += [request.symbols[half:], request.symbols[:half]]
        return f"{len(request.symbols)} symbols refused together ({code}): looking for the culprit"

    def _over_limit(self, request: Request, code: int, message: str, now: float) -> str:
        if request.symbols == (WILDCARD,):
            return self._refuse(request.symbols, code, message, now)
        if self._statuses == "on":
            # The statuses may hold the room that quotes need: give it back and ask again.
            self._statuses = "give_back"
            return "symbol limit exceeded: giving trading statuses back"
        self._converged = self._probe_above = False
        self._ceiling = len(self.active) + len(request.symbols)
        self._settle_limit()
        return f"symbol limit exceeded with {self._ceiling} symbols"

    def _without(self, request: Request, code: int, message: str, now: float) -> str:
        if request.trades and WILDCARD in request.symbols:
            self._wildcard_trades = False  # which says nothing about the trades of single symbols
            return "trades of the whole market are not available: asking for its quotes alone"
        if request.trades:
            self._trades = False
            return "trades are not available on this feed: last_price stays null"
        return self._refuse(request.symbols, code, message, now)

    def _settle_limit(self) -> None:
        """The bisection is over when one symbol more is known to be too many."""
        if self._ceiling is None:
            self.learned_limit = None
        elif self._ceiling - len(self.active) == 1:
            self._converged = True
            self.learned_limit = self._ceiling - 1

    def _refuse(self, symbols: Iterable[str], code: int, message: str, now: float) -> str:
        names = tuple(symbols)
        self._note(names, Refusal(_BY_ALPACA, f"{message} ({code})"), now)
        return f"{', '.join(names[:5])} refused: {message} ({code})"

    def _note(self, symbols: Iterable[str], refusal: Refusal, now: float) -> None:
        # What left the demand meanwhile is forgiven already.
        noted = self.desired.intersection(symbols)
        for symbol in noted:
            self._refused[symbol] = (refusal, now)
        self._moved(noted)
        if WILDCARD in noted:
            self._sort_anew()
        elif self._lines is not None:
            for line in self._lines:
                line.remove(noted)

    def _forgive(self, now: float) -> None:
        """A refused symbol is tried again after an hour: it may have been listed since."""
        forgiven = [s for s, (_, at) in self._refused.items() if now - at >= RETRY_REFUSED_S]
        for symbol in forgiven:
            del self._refused[symbol]
        if forgiven:
            self._sort_anew()
