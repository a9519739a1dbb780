"""Decides what to ask Alpaca for next. Must not send anything itself.

The rules of Alpaca's protocol behind it:

- Requests are additive and atomic. An error changes nothing that was subscribed before.
- An acknowledgement carries the whole list, whatever was asked for. So it replaces what is active.
- An error does not say which request it answers. So one request is under way at a time.
- 400 refuses a whole request for one ill-formed symbol, 405 for the symbol limit, 410 for a channel
  that this feed does not have. 409, 411, 412 and 413 are about what a plan or another stream of
  Alpaca's allows, such as a whole market of options. So in answer to ``*`` they refuse ``*`` alone.
  Any other error, any error to an unsubscribe, and an unsubscribe without effect mean that the two
  sides do not agree: a new session must begin.

Four machines decide, each described at the head of its module:

- ``Difference`` (difference.py): which symbols wait for a subscription, in which order, and which
  are to be unsubscribed. States of the whole market: off, waits, granted.
- ``SymbolLimit`` (symbol_limit.py): how many symbols fit. States: unknown, searching, exact.
- ``Refusals`` (refusals.py): which symbols Alpaca refused. States of a symbol: not refused,
  suspected, refused.
- ``FeedChannels`` (feed_channels.py): which channels the feed has. Trades are on or off. States
  of the statuses: untried, on, give back, off.

Desired and active are compared before every request, so a lost message heals by itself. The
first of these that is not empty becomes the request:

1. Give the statuses back.
2. Unsubscribe surplus symbols.
3. Subscribe suspects.
4. Subscribe the whole market, or waiting symbols, as many as the limit allows.
5. Subscribe the statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from spotd.core.difference import Difference
from spotd.core.feed_channels import FeedChannels
from spotd.core.refusals import Refusals
from spotd.core.subscription_state import SubscriptionState, state_of
from spotd.core.symbol_limit import SymbolLimit
from spotd.symbols import WILDCARD

MAX_SYMBOLS_PER_REQUEST = 500
_NAMES_IN_LOG = 5


class UnexpectedAnswerError(Exception):
    """Alpaca's answer fits no request of ours: the session cannot be trusted any more."""


@dataclass(frozen=True, slots=True)
class Request:
    """One message to Alpaca: ``symbols`` on the quotes channel, and on trades too if ``trades``.

    ``statuses`` asks for the trading statuses of all symbols instead.
    """

    action: Literal["subscribe", "unsubscribe"]
    symbols: tuple[str, ...] = ()
    trades: bool = False
    statuses: bool = False


class Subscriptions:
    """The subscriptions of one account, over all its sessions."""

    def __init__(
        self,
        *,
        trades: bool = True,
        max_symbols: int | None = None,
        batch: int = MAX_SYMBOLS_PER_REQUEST,
    ) -> None:
        self._batch = batch
        self._refusals = Refusals()
        self._difference = Difference(self._refusals)
        self._limit = SymbolLimit(max_symbols)
        self._channels = FeedChannels(trades=trades)
        self._request: Request | None = None
        self._state = SubscriptionState(trades=trades)
        self._may_differ = True  # from ``_state``
        self._live_before = False  # any symbol, when the present row of requests began

    @property
    def desired(self) -> frozenset[str]:
        """The desired symbols."""
        return self._difference.desired

    @property
    def active(self) -> frozenset[str]:
        """The symbols that Alpaca acknowledged in this session."""
        return self._difference.active

    @property
    def trades(self) -> bool:
        """Whether trades are asked for in this session."""
        return self._channels.trades

    def state(self) -> SubscriptionState:
        """Return the state: the same object until something in it changes."""
        if self._may_differ:
            self._may_differ = False
            self._state = state_of(
                self._difference, self._limit, self._refusals, self._channels, before=self._state
            )
        return self._state

    def next_request(self, now: float) -> Request | None:
        """Return what to send now; None while an answer is awaited or nothing is to be done."""
        if self._request is not None:
            return None
        if self._refusals.forgive(now):
            self._difference.sort_anew()
            self._may_differ = True
        self._request = _next_request(
            self._difference, self._limit, self._refusals, self._channels, self._batch
        )
        if self._request is None:
            self._live_before = bool(self.active)
        return self._request

    def gives_way(self, request: Request) -> bool:
        """Return whether the next request is to wait a little after the answer to ``request``.

        Each acknowledgement carries all symbols, and brings states to write and prices to fetch. A
        long row of full requests would delay the prices of symbols that were live before the row.
        Where no symbol was live, the row delays none.
        """
        return self._live_before and len(request.symbols) >= self._batch

    def want(
        self,
        desired: frozenset[str],
        *,
        first: frozenset[str] = frozenset(),
        sources: Sequence[frozenset[str]] = (),
    ) -> None:
        """Take over what is desired. A symbol that is not desired any more loses its refusal.

        New symbols in ``first`` are asked for before others that wait. The others are asked for in
        the order of ``sources``, the symbols that each source names.
        """
        self._refusals.forget(self._difference.want(desired, first, sources))
        self._may_differ = True

    def take_over(self, live: frozenset[str]) -> None:
        """Take in which symbols were live for the daemon that led before: they keep their room."""
        self._difference.take_over(live)
        self._may_differ = True

    def renew(self, symbols: frozenset[str]) -> None:
        """Unsubscribe these symbols, and subscribe them again before others.

        A symbol that is not active, or is active as a part of the whole market, is left out.
        """
        self._difference.renew(symbols)
        self._may_differ = True

    def connected(self) -> None:
        """Take in that a new session is open: nothing is active in it yet."""
        self.disconnected()
        self._channels.connected()
        self._limit.connected()

    def disconnected(self) -> None:
        """Take in that the session is over, and with it every subscription."""
        self._difference.disconnected(self._limit.room(len(self.active)))
        self._channels.disconnected()
        self._refusals.disconnected()
        self._live_before = False
        self._request = None
        self._may_differ = True

    def acknowledged(
        self, quotes: Iterable[str], trades: Iterable[str], now: float
    ) -> frozenset[str]:
        """Take over Alpaca's whole list of each channel. Return what became active.

        Raises UnexpectedAnswerError where an unsubscribed symbol is still in the list.
        """
        new = self._difference.acknowledged(frozenset(quotes))
        self._channels.listed(trades)
        self._refusals.forget(new)
        self._limit.acknowledged(len(self.active))
        self._may_differ = True
        request, self._request = self._request, None
        if request is not None:
            self._compare(request, now)
        return new

    def refused(self, code: int, message: str, now: float) -> str:
        """Take in an error that answered the request under way. Return a sentence for the log.

        Raises UnexpectedAnswerError for codes that say nothing about the request.
        """
        request, self._request = self._request, None
        self._may_differ = True
        if request is None:
            raise UnexpectedAnswerError(f"error {code} ({message}) without a request")
        if request.statuses:
            return self._channels.statuses_refused(code)
        if request.action == "unsubscribe":
            raise UnexpectedAnswerError(f"error {code} ({message}) to an unsubscribe")
        whole_market = request.symbols == (WILDCARD,)
        match code:
            case 410 if request.trades:
                return self._channels.trades_refused(whole_market=whole_market)
            case 405 if not whole_market:
                return self._over_limit(len(request.symbols))
            case 400 if len(request.symbols) > 1:
                return self._refusals.suspect(request.symbols)
            case 400 | 405 | 410:
                pass
            case 409 | 411 | 412 | 413 if whole_market:
                pass
            case _:
                raise UnexpectedAnswerError(f"error {code} ({message}) to a subscribe")
        self._refuse(request.symbols, f"{message} ({code})", now)
        return f"{', '.join(request.symbols[:_NAMES_IN_LOG])} refused: {message} ({code})"

    def _compare(self, request: Request, now: float) -> None:
        """Compare an acknowledgement with what was asked for."""
        active = self.active.intersection(request.symbols)
        if request.statuses:
            self._channels.statuses_acknowledged(request.action)
        elif request.action == "unsubscribe":
            if active:
                raise UnexpectedAnswerError(f"still active after an unsubscribe: {len(active)}")
        else:
            missing = frozenset(request.symbols) - active
            self._refuse(missing, "not in the acknowledgement", now)
            if request.trades:
                self._channels.trades_expected(active)

    def _refuse(self, symbols: Iterable[str], detail: str, now: float) -> None:
        # A symbol that left meanwhile is not refused: when it comes back, it is asked for anew.
        refused = self.desired.intersection(symbols)
        self._refusals.refuse(refused, detail, now)
        self._difference.refused(refused)

    def _over_limit(self, asked: int) -> str:
        if self._channels.give_statuses_back():
            return "symbol limit exceeded: giving trading statuses back"
        self._difference.sort_anew()  # with a limit, no newcomer is in front
        return self._limit.exceeded(len(self.active), asked)


def _next_request(
    difference: Difference,
    limit: SymbolLimit,
    refusals: Refusals,
    channels: FeedChannels,
    at_most: int,
) -> Request | None:
    """Return the next request, for at most ``at_most`` symbols; None: nothing is to be done."""
    active = len(difference.active)
    statuses = channels.statuses_action(any_active=active > 0)
    if statuses == "unsubscribe":
        return Request("unsubscribe", statuses=True)
    if symbols := difference.surplus(at_most):
        return Request("unsubscribe", symbols, trades=channels.any_on_trades(symbols))
    while suspects := refusals.next_suspects():
        if symbols := difference.still_waiting(suspects)[: limit.room(active)]:
            return Request("subscribe", symbols, trades=channels.trades)
    if difference.whole_market == "waits":
        # The whole market takes the place of all symbols, so it needs no room.
        return Request("subscribe", (WILDCARD,), trades=channels.wildcard_trades)
    if symbols := difference.waiting(limit.request_size(active, at_most)):
        return Request("subscribe", symbols, trades=channels.trades)
    return Request("subscribe", statuses=True) if statuses == "subscribe" else None
