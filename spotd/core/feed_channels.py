"""Decides which channels beside quotes to ask a feed for. Must not know symbols or limits.

410 says that a channel does not exist on this feed. Each channel that spotd can do without is
asked for until then, and again in the next session, which may lead to another server:

- *Trades of single symbols*: asked for with the quotes, unless the settings say no. A 410 to a
  request with trades turns them off for this session; the last price stays null.
- *Trades of the whole market*, ``*``: turned off by their own 410, which says nothing about the
  trades of single symbols.
- *Statuses* (halts), one entry for all symbols:

  ========= ============================================= =====================================
  state     what to ask for                               what comes next
  ========= ============================================= =====================================
  untried   subscribe, once any symbol is active          on, or off after any error
  on        nothing                                       give back, after a 405 to quotes
  give back unsubscribe, before anything else: the entry  off, whatever the answer is
            may hold the room that a symbol needs
  off       nothing                                       untried, in the next session
  ========= ============================================= =====================================

An acknowledgement may also leave trades out without an error. That is only noted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

StatusesState = Literal["untried", "on", "give back", "off"]
Action = Literal["subscribe", "unsubscribe"]


class FeedChannels:
    """The channels beside quotes, in one session after another."""

    def __init__(self, *, trades: bool = True) -> None:
        #: Symbols of the last acknowledged request for trades whose trades were left out.
        self.without_trades: frozenset[str] = frozenset()
        self._wants_trades = trades
        self._on_trades: frozenset[str] = frozenset()
        self._trades = trades
        self._wildcard_trades = trades
        self._statuses: StatusesState = "untried"

    @property
    def trades(self) -> bool:
        """Whether trades of single symbols are asked for in this session."""
        return self._trades

    @property
    def wildcard_trades(self) -> bool:
        """Whether trades of the whole market are asked for in this session."""
        return self._trades and self._wildcard_trades

    def connected(self) -> None:
        """Take in that a new session is open: all channels are asked for again."""
        self._trades = self._wildcard_trades = self._wants_trades
        self._statuses = "untried"

    def disconnected(self) -> None:
        """Take in that the session is over, and with it every subscription."""
        self._on_trades = frozenset()

    # Trades

    def listed(self, trades: Iterable[str]) -> None:
        """Take over the symbols on the trades channel, from an acknowledgement."""
        self._on_trades = frozenset(trades)

    def trades_expected(self, symbols: frozenset[str]) -> None:
        """Note which of ``symbols`` got no trades. All were asked for, and got quotes."""
        self.without_trades = symbols - self._on_trades

    def any_on_trades(self, symbols: Iterable[str]) -> bool:
        """Return whether any of the symbols is on the trades channel."""
        return not self._on_trades.isdisjoint(symbols)

    def trades_refused(self, *, whole_market: bool) -> str:
        """Take in that a request with trades was answered with 410. Return a log line."""
        if whole_market:
            self._wildcard_trades = False
            return "trades of the whole market are not available: asking for its quotes alone"
        self._trades = False
        return "trades are not available on this feed: last_price stays null"

    # Statuses

    def statuses_action(self, *, any_active: bool) -> Action | None:
        """Return what to ask about the statuses.

        An unsubscribe goes before all other requests, a subscribe behind them.
        """
        if self._statuses == "give back":
            return "unsubscribe"
        return "subscribe" if self._statuses == "untried" and any_active else None

    def statuses_acknowledged(self, action: Action) -> None:
        """Take in that a request about the statuses was acknowledged."""
        self._statuses = "on" if action == "subscribe" else "off"

    def statuses_refused(self, code: int) -> str:
        """Take in that a request about the statuses was refused. Return a log line."""
        self._statuses = "off"
        return f"trading statuses are not available ({code}): halts will not be shown"

    def give_statuses_back(self) -> bool:
        """Give the statuses back, since quotes need room. Return whether they may hold some."""
        if self._statuses != "on":
            return False
        self._statuses = "give back"
        return True
