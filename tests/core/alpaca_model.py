"""A small Alpaca that answers as the documentation says, and one account's talk with it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Literal, NamedTuple

from spotd.core.subscription_state import SubscriptionState
from spotd.core.subscriptions import Request, Subscriptions
from spotd.symbols import WILDCARD, Refusal

INVALID_SYNTAX = (400, "invalid syntax")
OVER_LIMIT = (405, "symbol limit exceeded")
NO_SUCH_CHANNEL = (410, "invalid subscribe action for this feed")


@dataclass
class Plan:
    """What the account may have, and what Alpaca accepts."""

    cap: int | None = None
    counts: Literal["symbols", "entries"] = "symbols"  # or quotes plus trades
    trades: bool = True
    statuses: Literal["free", "counted", "refused"] = "free"
    ill_formed: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()  # silently left out of the acknowledgement
    star: tuple[int, str] | None = None  # how `*` is refused, if it is
    counts_first: bool = False  # the cap is looked at before the symbols' form

    def room_for(self, trades_wanted: bool) -> int | None:
        """Return how many symbols fit."""
        if self.cap is None:
            return None
        both = self.counts == "entries" and trades_wanted and self.trades
        return self.cap // 2 if both else self.cap


@dataclass
class Alpaca:
    """One connection's server side: additive, atomic, always answering with the whole list."""

    plan: Plan
    quotes: set[str] = field(default_factory=set)
    trades: set[str] = field(default_factory=set)
    statuses: set[str] = field(default_factory=set)

    def answer(self, request: Request) -> tuple[int, str] | None:
        """Return the error, or None for an acknowledgement."""
        plan = self.plan
        if request.statuses:
            return self._answer_statuses(request)
        if request.trades and not plan.trades:
            return NO_SUCH_CHANNEL
        if request.action == "unsubscribe":
            self.quotes -= set(request.symbols)
            if request.trades:
                self.trades -= set(request.symbols)
            return None
        if WILDCARD in request.symbols:
            if plan.star is None:
                self.quotes.add(WILDCARD)
                self.trades.update(request.symbols if request.trades else ())
            return plan.star
        ill_formed = not plan.ill_formed.isdisjoint(request.symbols)
        if ill_formed and not plan.counts_first:
            return INVALID_SYNTAX
        quotes = self.quotes.union(request.symbols)
        trades = self.trades.union(request.symbols) if request.trades else self.trades
        if self._too_many(quotes, trades, self.statuses):
            return OVER_LIMIT
        if ill_formed:
            return INVALID_SYNTAX
        self.quotes = quotes - plan.unlisted
        self.trades = trades - plan.unlisted
        return None

    def _answer_statuses(self, request: Request) -> tuple[int, str] | None:
        if self.plan.statuses == "refused":
            return NO_SUCH_CHANNEL
        statuses = {WILDCARD} if request.action == "subscribe" else set[str]()
        if self._too_many(self.quotes, self.trades, statuses):
            return OVER_LIMIT
        self.statuses = statuses
        return None

    def _too_many(self, quotes: set[str], trades: set[str], statuses: set[str]) -> bool:
        if self.plan.cap is None:
            return False
        used = len(quotes | trades)
        if self.plan.counts == "entries":
            used = len(quotes) + len(trades)
        if self.plan.statuses == "counted":
            used += len(statuses)
        return used > self.plan.cap


class Seen(NamedTuple):
    """A state that was handed out, with a copy of what could be altered in it."""

    state: SubscriptionState
    refused: dict[str, Refusal]


class Talk:
    """One account talking with Alpaca, over any number of connections."""

    def __init__(
        self,
        plan: Plan,
        *,
        trades: bool = True,
        max_symbols: int | None = None,
        batch: int = 500,
    ) -> None:
        self.subs = Subscriptions(trades=trades, max_symbols=max_symbols, batch=batch)
        self.trades = trades
        self.max_symbols = max_symbols
        self.batch = batch
        self.plan = plan
        self.now = 0.0
        self.said: list[Request] = []
        self.probes = 0
        self.renewed: frozenset[str] = frozenset()
        self.served: frozenset[str] = frozenset()  # active at any time since they were desired
        self.seen = Seen(self.subs.state(), {})
        self.reconnect()

    def reconnect(self) -> None:
        """A new connection: Alpaca remembers nothing."""
        self.alpaca = Alpaca(self.plan)
        self.probes = 0
        self.subs.connected()
        self.check_state()

    def desire(
        self,
        symbols: Iterable[str],
        *,
        first: Iterable[str] = (),
        sources: tuple[frozenset[str], ...] = (),
    ) -> None:
        """Other symbols are desired."""
        self.subs.want(frozenset(symbols), first=frozenset(first), sources=sources)
        self.check_state()

    def take_over(self, live: frozenset[str]) -> None:
        """These were live for the daemon that led before."""
        self.subs.take_over(live)
        self.served |= live & self.subs.desired
        self.check_state()

    def renew(self, symbols: frozenset[str]) -> None:
        """Alpaca seems to have lost symbols: talk until nothing is left to ask."""
        self.renewed = symbols
        self.subs.renew(symbols)
        self.talk()
        self.renewed = frozenset()

    def want(self, *symbols: str) -> None:
        """Other symbols are desired: talk until nothing is left to ask."""
        self.desire(symbols)
        self.talk()

    def talk(self, at_most: int | None = None) -> int:
        """Ask and answer until nothing is left to ask, or ``at_most`` times. Return how often."""
        guard = self.enough() if at_most is None else at_most
        for count in range(guard):
            request = self.subs.next_request(self.now)
            if request is None:
                return count
            self.exchange(request)
        if at_most is None:
            raise AssertionError(f"more than {guard} requests: {self.said[-5:]}")
        return guard

    def enough(self) -> int:
        """Return a bound on the requests of one talk: far fewer than one for each symbol."""
        subs = self.subs
        symbols = len(subs.desired | subs.active)
        rounds = ceil(log2(symbols + 2)) + 1
        culprits = len(self.plan.ill_formed & subs.desired)
        batches = ceil(symbols / self.batch)
        return 8 + 2 * batches + (2 * culprits + 3) * 2 * rounds

    def exchange(self, request: Request, meanwhile: frozenset[str] | None = None) -> None:
        """Pass on one request and its answer, and check what must be true of both.

        ``meanwhile``, if given, becomes desired between the two.
        """
        subs, alpaca = self.subs, self.alpaca
        self.check_state()  # a refusal may have been forgiven
        assert subs.next_request(self.now) is None, "one request at a time"
        assert len(request.symbols) <= self.batch
        assert len(set(request.symbols)) == len(request.symbols)
        assert request.statuses or request.symbols, "no empty request"
        live = subs.active
        assert live == alpaca.quotes
        if request.action == "subscribe":
            assert live.isdisjoint(request.symbols), "what is live is not asked for again"
        elif WILDCARD not in live:
            dropped = frozenset(request.symbols) - self.renewed
            assert subs.desired.isdisjoint(dropped), "what is desired is not dropped"
        self.said.append(request)
        held_by_statuses = bool(alpaca.statuses)  # a 405 may be about those
        probe = self._is_probe(request)
        if meanwhile is not None:
            self.desire(meanwhile, first=sorted(meanwhile)[1::3])
        error = alpaca.answer(request)
        if error is None:
            new = subs.acknowledged(sorted(alpaca.quotes), sorted(alpaca.trades), self.now)
            assert new == alpaca.quotes - live
        else:
            self.probes += probe and error == OVER_LIMIT and not held_by_statuses
            assert subs.refused(*error, self.now)
            assert subs.active == live, "an error takes nothing away"
        if self.max_symbols is not None:
            assert len(subs.active - {WILDCARD}) <= self.max_symbols
        assert subs.active == alpaca.quotes
        self.check_state()

    def check_state(self) -> None:
        """Compare the state with what was said, and with the state that was handed out before.

        Raises AssertionError where a state was altered, or replaced without a change.
        """
        subs, before = self.subs, self.seen
        state = subs.state()
        assert subs.state() is state
        assert (state is before.state) == (state == before.state)
        same_refusals = state.refused == before.state.refused
        assert (state.refused is before.state.refused) == same_refusals
        assert before.state.refused == before.refused, "never altered after it was handed out"
        everybody = WILDCARD in subs.active
        self.served = (self.served | (subs.desired if everybody else subs.active)) & subs.desired
        assert state.active == subs.active
        assert state.served == self.served
        assert state.trades == subs.trades
        assert state.refused.keys() <= subs.desired - subs.active
        without_reason = subs.desired - state.refused.keys()
        assert state.all_refused == (bool(subs.desired) and not subs.active | without_reason)
        self.seen = Seen(state, dict(state.refused))

    def _is_probe(self, request: Request) -> bool:
        """Return whether it asks for more than the limit that is known."""
        limit = self.subs.state().learned_limit
        if limit is None or request.statuses or WILDCARD in request.symbols:
            return False
        return len(self.subs.active) + len(request.symbols) > limit

    def refused(self, reason: str) -> set[str]:
        """Return the symbols refused for a reason."""
        return {s for s, why in self.subs.state().refused.items() if why.reason == reason}

    def settled(self) -> None:
        """Check what must be true when nothing is left to ask."""
        subs, plan = self.subs, self.plan
        refusals = subs.state().refused
        good = subs.desired - plan.ill_formed - plan.unlisted - {WILDCARD}
        if WILDCARD in subs.desired and plan.star is None:
            assert subs.active == {WILDCARD}
            assert refusals == {}
            return
        rooms = [
            room for room in (plan.room_for(self.trades), self.max_symbols) if room is not None
        ]
        room = min(rooms, default=len(good) + 1)
        assert subs.active <= good
        assert len(subs.active) == min(room, len(good)), "all the room is used"
        assert refusals.keys() == subs.desired - subs.active, "every other one has a reason"
        assert self.refused("refused_by_alpaca").isdisjoint(good), "the culprits alone"
        if len(good) < room:
            assert not self.refused("symbol_limit")
        with_trades = subs.active if self.trades and plan.trades else frozenset[str]()
        assert self.alpaca.trades == with_trades
        assert self.probes <= 1, "more than the limit is refused once per connection"
