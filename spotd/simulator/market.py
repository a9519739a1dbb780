"""The simulated market as a whole: which symbol moves next, bursts, minute bars.

Pure except for its own seeded randomness: times are arguments, and it sends nothing.
"""

import random
from collections.abc import Set as AbstractSet
from itertools import accumulate

from spotd.simulator.instrument import MINUTE_NS, Instrument
from spotd.simulator.knobs import MarketModel
from spotd.simulator.messages import TEST_SYMBOL
from spotd.simulator.universe import universe
from spotd.simulator.wire import Message


class Market:
    """All instruments of one model. Each is made when it is first asked for."""

    def __init__(self, model: MarketModel) -> None:
        self.model = model
        self._instruments: dict[str, Instrument] = {}
        self._feeds: dict[str, _FeedMarket] = {}

    def instrument(self, symbol: str) -> Instrument:
        """Return the market of any well-formed symbol."""
        known = self._instruments.get(symbol)
        if known is None:
            known = self._instruments[symbol] = Instrument(symbol, self.model)
        return known

    def tick(
        self, feed: str, subscribed: frozenset[str], dt_s: float, now_ns: int
    ) -> list[Message]:
        """Return the messages of a feed's subscribed symbols in the last `dt_s` seconds."""
        known = self._feeds.get(feed)
        if known is None or (known.subscribed is not subscribed and known.subscribed != subscribed):
            known = self._feeds[feed] = _FeedMarket(self, feed, subscribed, known)
        return known.tick(dt_s, now_ns)


def traded_symbols(feed: str, subscribed: frozenset[str]) -> AbstractSet[str]:
    """Return the symbols that the market trades on a feed for these subscriptions.

    `*` is the whole universe; the test feed knows one symbol.
    """
    if feed == "test":
        return {TEST_SYMBOL} if subscribed & {TEST_SYMBOL, "*"} else set()
    return universe() | (subscribed - {"*"}) if "*" in subscribed else subscribed


class _FeedMarket:
    """The subscribed symbols of one feed, and which of them moves next."""

    def __init__(
        self,
        market: Market,
        feed: str,
        subscribed: frozenset[str],
        before: "_FeedMarket | None",
    ) -> None:
        self.subscribed = subscribed
        self._model, self._feed = market.model, feed
        self._random: random.Random = (
            before._random if before else random.Random(f"{market.model.seed}/{feed}")
        )
        self._credit: float = before._credit if before else 0.0
        self._minute_ns: int = before._minute_ns if before else 0
        self._members = [market.instrument(one) for one in sorted(traded_symbols(feed, subscribed))]
        self._weights = list(accumulate(each.activity for each in self._members))
        self._hot: Instrument | None = None
        self._hot_until_ns = 0

    def tick(self, dt_s: float, now_ns: int) -> list[Message]:
        if not self._members:
            return []
        model = self._model
        messages = self._bars(now_ns - int(dt_s * 1e9))
        self._heat(dt_s, now_ns)
        factor = model.burst_factor if self._hot else 1.0
        self._credit += model.quotes_per_s * dt_s * factor
        number = int(self._credit)
        self._credit -= number
        turns = self._random.choices(self._members, cum_weights=self._weights, k=number)
        if self._hot:
            common = int(number / factor)
            turns[common:] = [self._hot] * (number - common)
        self._events(turns, dt_s, now_ns, messages)
        return messages

    def _events(
        self, turns: list[Instrument], dt_s: float, now_ns: int, messages: list[Message]
    ) -> None:
        """Add a quote for each turn and sometimes a trade. Their times spread over the tick."""
        feed, draw, share = self._feed, self._random.random, self._model.trades_per_quote
        odd_p = self._model.odd_p
        apart_ns = int(dt_s * 1e9) // (len(turns) + 1)
        when_ns = now_ns - int(dt_s * 1e9)
        for one in turns:
            when_ns += apart_ns
            if one.halted:
                continue
            messages.append(one.quote(feed, when_ns, odd_p))
            if draw() < share:
                messages.append(one.trade(feed, when_ns + 1))

    def _heat(self, dt_s: float, now_ns: int) -> None:
        """Begin or end a burst of one symbol; a busy symbol is more likely."""
        model = self._model
        if self._hot is not None and now_ns >= self._hot_until_ns:
            self._hot = None
        if self._hot is None and self._random.random() < model.bursts_per_min / 60 * dt_s:
            self._hot = self._random.choices(self._members, cum_weights=self._weights)[0]
            lasts_s = self._random.expovariate(1 / max(0.001, model.burst_lasts_s))
            self._hot_until_ns = now_ns + int(lasts_s * 1e9)

    def _bars(self, done_ns: int) -> list[Message]:
        """Return the bars of a minute once it is over and all trades up to `done_ns` were sent."""
        minute_ns = done_ns - done_ns % MINUTE_NS
        before_ns, self._minute_ns = self._minute_ns, minute_ns
        if before_ns in (0, minute_ns):
            return []
        bars = (one.closed_minute(before_ns) for one in self._members)
        return [bar for bar in bars if bar is not None]
