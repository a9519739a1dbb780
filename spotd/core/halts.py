"""Decides which symbols are halted. Must not know which trades set the last sale.

Source: the wire contract, section 3. A halt stands until a resumption, or until a trade after it
sets the last sale. It stands over a reconnect: Alpaca does not tell it again, and a trade tells of
a resumption that was missed. It also stands over a fail-over: a daemon that begins a reign takes
over the halts that its predecessor has published.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from spotd.core.market import halts, resumes
from spotd.core.messages import TradingStatus


class Halts:
    """All halted symbols, also those that nobody desires: Alpaca tells a halt once.

    ``since`` is the exchange time of each halt, None where it is not known. It is to be read only.
    """

    def __init__(self) -> None:
        self.since: dict[str, datetime | None] = {}
        self.changed = False  # whether ``symbols`` may return another set than before
        self._symbols: frozenset[str] = frozenset()
        self._knows_nothing = True  # nobody told what was halted before this reign

    def symbols(self) -> frozenset[str]:
        """Return the halted symbols: the same object until they change.

        Call it once for all messages of a frame: a market-wide halt is 11,500 statuses.
        """
        if self.changed:
            self.changed = False
            if self.since.keys() != self._symbols:
                self._symbols = frozenset(self.since)
        return self._symbols

    def status(self, status: TradingStatus) -> None:
        """Take in a trading status."""
        if halts(status.tape, status.code):
            self.since[status.symbol] = status.at
            self.changed = True
        elif resumes(status.tape, status.code) and status.symbol in self.since:
            del self.since[status.symbol]
            self.changed = True

    def sold(self, symbol: str, at: datetime) -> None:
        """Take in that a trade at this exchange time sets the last sale of a symbol."""
        if symbol in self.since:
            since = self.since[symbol]
            if since is None or at > since:
                del self.since[symbol]
                self.changed = True

    def take_over(self, published: Mapping[str, datetime]) -> None:
        """Take in the halts that a predecessor has published, each with its time.

        Only the first call of a reign counts. Later, what we have published is no news.
        """
        if self._knows_nothing:
            self._knows_nothing = False
            self.since = {**published, **self.since}
            self.changed = True

    def forget(self) -> None:
        """Forget the halts at the begin of a reign: another daemon knows more of them."""
        self.since = {}
        self._knows_nothing = self.changed = True
