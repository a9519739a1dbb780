"""The simulated market as a whole: which symbol moves next, bursts, halts.

Pure but for its own seeded randomness: times are arguments, nothing is sent from here.
"""

import random
from collections.abc import Set as AbstractSet
from itertools import accumulate

from spotd.simulator.instrument import MINUTE_NS, Instrument
from spotd.simulator.messages import TEST_SYMBOL
from spotd.simulator.model import MarketModel
from spotd.simulator.universe import symbols
from spotd.simulator.wire import Message


class Market:
    """All instruments of one model, made when first asked for."""

    def __init__(self, model: MarketModel) -> None:
        self.model = model
        self._instruments: dict[str, Instrument] = {}
        self._crowds: dict[str, _Crowd] = {}

    def instrument(self, symbol: str) -> Instrument:
        """The market of any well-formed symbol."""
        known = self._instruments.get(symbol)
        if known is None:
            known = self._instruments[symbol] = Instrument(symbol, self.model)
        return known

    def tick(self, feed: str, wanted: frozenset[str], dt_s: float, now_ns: int) -> list[Message]:
        """What happened to the wanted symbols of a feed in the last `dt_s` seconds."""
        crowd = self._crowds.get(feed)
        if crowd is None or (crowd.wanted is not wanted and crowd.wanted != wanted):
            crowd = self._crowds[feed] = _Crowd(self, feed, wanted, crowd)
        return crowd.tick(dt_s, now_ns)


class _Crowd:
    """The subscribed symbols of one feed, and whose turn it is."""

    _random: random.Random
    _credit: float
    _minute_ns: int

    def __init__(
        self, market: Market, feed: str, wanted: frozenset[str], before: "_Crowd | None"
    ) -> None:
        self.wanted = wanted
        self._model, self._feed = market.model, feed
        self._random = before._random if before else random.Random(f"{market.model.seed}/{feed}")
        self._credit = before._credit if before else 0.0
        members: AbstractSet[str] = wanted
        if "*" in wanted:
            members = set(symbols(market.model.universe)) | (wanted - {"*"})
        if feed == "test":
            members = {TEST_SYMBOL} if wanted & {TEST_SYMBOL, "*"} else set()
        self._members = [market.instrument(each) for each in sorted(members)]
        self._weights = list(accumulate(each.activity for each in self._members))
        self._hot: Instrument | None = None
        self._hot_until_ns = 0
        self._minute_ns = before._minute_ns if before else 0
        self._halts: dict[Instrument, int] = before._halts if before else {}

    def tick(self, dt_s: float, now_ns: int) -> list[Message]:
        if not self._members:
            return []
        model = self._model
        messages = self._bars(now_ns - int(dt_s * 1e9)) + self._statuses(dt_s, now_ns)
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
        """A quote for each turn and sometimes a trade, their times spread over the tick."""
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
        """Now and then one symbol gets hot for a while, a busy one more likely."""
        model = self._model
        if self._hot is not None and now_ns >= self._hot_until_ns:
            self._hot = None
        if self._hot is None and self._random.random() < model.bursts_per_min / 60 * dt_s:
            self._hot = self._random.choices(self._members, cum_weights=self._weights)[0]
            lasts_s = self._random.expovariate(1 / max(0.001, model.burst_lasts_s))
            self._hot_until_ns = now_ns + int(lasts_s * 1e9)

    def _bars(self, done_ns: int) -> list[Message]:
        """The bars of a minute, once all that happened up to `done_ns` is told and it is over."""
        minute_ns = done_ns - done_ns % MINUTE_NS
        before_ns, self._minute_ns = self._minute_ns, minute_ns
        if before_ns in (0, minute_ns):
            return []
        bars = (one.closed_minute(before_ns) for one in self._members)
        return [bar for bar in bars if bar is not None]

    def _statuses(self, dt_s: float, now_ns: int) -> list[Message]:
        """Halts that begin or end."""
        model = self._model
        messages = []
        for one in [one for one, until_ns in self._halts.items() if until_ns <= now_ns]:
            del self._halts[one]
            messages.append(one.status(halted=False, now_ns=now_ns))
        if self._random.random() < model.halts_per_hour / 3600 * dt_s:
            one = self._random.choice(self._members)
            if not one.halted:
                self._halts[one] = now_ns + int(model.halt_lasts_s * 1e9)
                messages.append(one.status(halted=True, now_ns=now_ns))
        return messages
