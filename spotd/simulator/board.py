"""The latest quote and trade of every symbol, per feed: what REST answers from.

Holds what was sent, whoever was subscribed; decides nothing.
"""

from collections.abc import Iterable

from spotd.simulator.wire import Message


class Board:
    """Latest messages by feed, type and symbol."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str], Message] = {}

    def remember(self, feeds: Iterable[str], messages: Iterable[Message]) -> None:
        """Keep the quotes, trades and bars among the messages as the latest of these feeds."""
        feeds = tuple(feeds)
        for message in messages:
            if "S" in message:
                for feed in feeds:
                    self._latest[feed, message["T"], message["S"]] = message

    def latest(self, feed: str, kind: str, symbol: str) -> Message | None:
        """The latest message of a type (`q`, `t`, `b`, `d`) for a symbol."""
        return self._latest.get((feed, kind, symbol))
