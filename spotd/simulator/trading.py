"""The loop that moves the simulated market on, tick by tick.

Awaits time; `market` decides what happens in a tick, `delivery` which session receives it.
"""

from collections.abc import Collection
from typing import Protocol

from spotd.simulator.clock import Clock
from spotd.simulator.knobs import Faults
from spotd.simulator.market import Market
from spotd.simulator.wire import Message

TICK_S = 0.01
"""All messages of one tick are sent together."""
LONGEST_TICK_S = 0.25
"""The longest time that one tick makes up for, however long the loop was held up."""


class Subscribers(Protocol):
    """The sessions, as the market sees them."""

    def live_feeds(self) -> Collection[str]:
        """Return the feeds that have an authenticated session."""

    def subscribed(self, feed: str) -> frozenset[str]:
        """Return the symbols whose prices are subscribed to on a feed."""

    def deliver(self, messages: list[Message], feeds: Collection[str], per_frame: int) -> None:
        """Send messages to the subscribed sessions of these feeds."""


async def trade(market: Market, subscribers: Subscribers, faults: Faults, clock: Clock) -> None:
    """Send the messages of the market, until cancelled. A closed market sends nothing."""
    before = clock.monotonic_s()
    while True:
        await clock.sleep(TICK_S)
        now = clock.monotonic_s()
        dt_s, before = min(now - before, LONGEST_TICK_S), now
        if faults.market_closed:
            continue
        for feed in subscribers.live_feeds():
            messages = market.tick(feed, subscribers.subscribed(feed), dt_s, clock.wall_ns())
            if messages:
                subscribers.deliver(messages, [feed], market.model.quotes_per_frame)
