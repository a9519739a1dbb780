"""The loop of the simulated market under a manual clock: rates, held-up ticks, a closed market."""

from collections.abc import Collection
from typing import Any

import pytest

from spotd.simulator import Faults, MarketModel
from spotd.simulator.market import Market
from spotd.simulator.trading import LONGEST_TICK_S, TICK_S, trade
from tests.simulator.manual_clock import START_NS, ManualClock, TimeIsUpError


class Audience:
    """Sessions that take every message, and note when it came."""

    def __init__(self, clock: ManualClock, subscribed: dict[str, frozenset[str]]) -> None:
        self.clock = clock
        self.symbols = subscribed
        self.received: list[tuple[float, str, dict[str, Any]]] = []
        self.per_frame: set[int] = set()

    def live_feeds(self) -> Collection[str]:
        """Return the feeds."""
        return self.symbols

    def subscribed(self, feed: str) -> frozenset[str]:
        """Return the symbols of a feed."""
        return self.symbols[feed]

    def deliver(
        self, messages: list[dict[str, Any]], feeds: Collection[str], per_frame: int
    ) -> None:
        """Note the messages with the time."""
        [feed] = feeds
        self.received += [(self.clock.now_s, feed, one) for one in messages]
        self.per_frame.add(per_frame)

    def quotes(self, feed: str = "iex") -> list[dict[str, Any]]:
        """Return the quotes received on a feed."""
        return [one for _, of, one in self.received if of == feed and one["T"] == "q"]


async def played(
    clock: ManualClock, *, quotes_per_s: float = 50.0, faults: Faults | None = None
) -> Audience:
    """Return the audience of two feeds at the end of the clock."""
    model = MarketModel(quotes_per_s=quotes_per_s, bursts_per_min=0, out_of_order_p=0,
                        duplicate_time_p=0, quotes_per_frame=7)  # fmt: skip
    audience = Audience(clock, {"iex": frozenset({"SPY"}), "sip": frozenset({"QQQ", "F"})})
    with pytest.raises(TimeIsUpError):
        await trade(Market(model), audience, faults or Faults(), clock)
    return audience


@pytest.mark.parametrize("late_s", [0.0, 0.004, 0.1])
async def test_the_rate_holds_however_late_a_tick_is(late_s: float) -> None:
    """Each feed has its quotes per second; a late tick makes up for its lateness."""
    audience = await played(ManualClock(end_s=60.0, late_s=late_s))
    for feed in ("iex", "sip"):
        assert len(audience.quotes(feed)) == pytest.approx(60 * 50, abs=0.15 * 50)
    assert {one["S"] for one in audience.quotes("iex")} == {"SPY"}
    assert {one["S"] for one in audience.quotes("sip")} == {"QQQ", "F"}
    assert audience.per_frame == {7}


async def test_a_loop_that_was_held_up_does_not_make_up_for_all() -> None:
    """A tick that took a second sends the messages of the longest tick."""
    clock = ManualClock(end_s=50.0, late_s=1.0 - TICK_S)
    audience = await played(clock, quotes_per_s=1000.0)
    assert len(audience.quotes()) == pytest.approx(50 * 1000 * LONGEST_TICK_S, rel=0.02)


async def test_times_of_messages_are_within_the_tick_before() -> None:
    """A message never comes before its own time."""
    audience = await played(ManualClock(end_s=2.0), quotes_per_s=5_000.0)
    for at_s, _, message in audience.received:
        late_s = at_s - (message["t"] - START_NS) / 1e9
        assert message["T"] == "b" or 0 <= late_s <= TICK_S + 1e-6


async def test_a_closed_market_sends_nothing() -> None:
    """With the fault, subscribed sessions receive nothing either."""
    faults = Faults(market_closed=True)
    assert not (await played(ManualClock(end_s=10.0), faults=faults)).received
