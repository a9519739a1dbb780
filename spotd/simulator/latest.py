"""The latest quote, trade and bars of every symbol, by feed, for the answers of REST.

Holds the messages that were sent, also without subscribers. For a symbol of which none was sent,
the market answers.
"""

from collections.abc import Iterable

from spotd.simulator.market import Market
from spotd.simulator.wire import Message


class LatestMessages:
    """The latest message by feed, type and symbol."""

    def __init__(self, market: Market | None = None) -> None:
        self._market = market
        self._sent: dict[tuple[str, str, str], Message] = {}

    def remember(self, feeds: Iterable[str], messages: Iterable[Message]) -> None:
        """Take each message of a symbol as the latest of its type on these feeds."""
        feeds = tuple(feeds)
        for message in messages:
            if "S" in message:
                for feed in feeds:
                    self._sent[feed, message["T"], message["S"]] = message

    def of(self, feed: str, kind: str, symbol: str, now_ns: int) -> Message | None:
        """Return the latest message of a type: `q`, `t`, `b`, `d` or `prev` (the day before)."""
        known = self._sent.get((feed, kind, symbol))
        if known is not None or self._market is None:
            return known
        instrument = self._market.instrument(symbol)
        match kind:
            case "q":
                return instrument.quote(feed, now_ns, 0.0)
            case "t":
                return instrument.trade(feed, now_ns)
            case _:
                return instrument.bar(kind, now_ns)
