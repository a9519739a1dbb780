"""One symbol's market: a bid and an ask that walk, trades at these prices, halts, bars.

Pure: its randomness is seeded by the symbol, and the time is an argument in nanoseconds.
"""

import random

from spotd.simulator.knobs import MarketModel
from spotd.simulator.universe import Listing, listing
from spotd.simulator.wire import Message

MINUTE_NS = 60_000_000_000
_DAY_NS = 1440 * MINUTE_NS
_EXCHANGES = {"A": "NPQKZTYJMU", "B": "PQKZTYJNMU", "C": "QPKZTYJXBU", "N": "NNNNNNNNNN"}
_ONE_FLAG, _TWO_FLAGS = ["R"], ["R", "R"]
_ODD_LOT_P = 0.4  # condition I
_EXTENDED_HOURS_P = 0.02  # condition T
_SPECIAL_P = 0.01
_SPECIAL_CONDITIONS = {"A": "4CPUVZ", "B": "4CPUVZ", "C": "4CPUWZ", "N": "4"}
"""By tape, the sale conditions that do not set the last sale."""


class Instrument:
    """The market of one symbol. Prices are whole ticks inside, so rounding errors do not add up."""

    __slots__ = (
        "_bars", "_base", "_bid", "_half", "_listing", "_model", "_per_usd", "_random", "_spread",
        "_trade_id", "_volatility", "activity", "halted", "last_ns", "symbol",
    )  # fmt: skip

    def __init__(self, symbol: str, model: MarketModel) -> None:
        facts: Listing = listing(symbol, model.seed)
        self.symbol = symbol
        self.activity = facts.activity
        self.halted = False
        self.last_ns = 0
        self._listing, self._model = facts, model
        self._random = random.Random(f"{model.seed}/{symbol}")
        self._per_usd = 100 if facts.price >= 1 else 10_000
        self._base = max(2, round(facts.price * self._per_usd))
        self._volatility = max(1.0, self._base * 4e-5)
        # The spread is a few basis points for a busy symbol, more for a quiet one, at least a tick.
        points = 0.4 + 6.0 / (1.0 + facts.activity)
        self._spread = max(1, round(self._base * points / 10_000))
        self._half = self._spread
        self._bid = self._base - self._spread // 2
        self._trade_id = self._random.randrange(1, 50_000)
        self._bars: dict[str, Message] = {}

    @property
    def bid(self) -> float:
        """The best bid in USD."""
        return self._bid / self._per_usd

    @property
    def ask(self) -> float:
        """The best ask in USD."""
        return (self._bid + self._half) / self._per_usd

    def quote(self, feed: str, now_ns: int, odd_p: float) -> Message:
        """Move the market by one step. Return its quote, which is odd with probability `odd_p`."""
        draw = self._random.random
        step = draw()
        if step > 0.5:
            self._step(step)
        sizes = draw()
        if feed == "iex":
            bid_at = ask_at = "V"
        else:
            places = _EXCHANGES[self._listing.tape]
            bid_at, ask_at = places[int(sizes * 10)], places[int(step * 10)]
        quote: Message = {
            "T": "q",
            "S": self.symbol,
            "bx": bid_at,
            "bp": self._bid / self._per_usd,
            "bs": 100 * (1 + int(sizes * sizes * 12)),
            "ax": ask_at,
            "ap": (self._bid + self._half) / self._per_usd,
            "as": 100 * (1 + int(step * step * 12)),
            "c": _ONE_FLAG,
            "z": self._listing.tape,
            "t": now_ns,
        }
        odd = draw()
        if odd < odd_p:
            self._make_odd(quote, odd)
        self.last_ns = now_ns
        return quote

    def _step(self, luck: float) -> None:
        """Move the bid by some ticks, more likely towards the base; sometimes change the spread."""
        draw = self._random.random
        ticks = 1 + int(draw() * self._volatility)
        drift = (self._bid - self._base) / self._base  # -0.3 ... 0.3
        self._bid += ticks if draw() < 0.5 - drift * 1.6 else -ticks
        self._bid = max(1, self._bid)
        if luck > 0.8:
            self._half = max(1, int(self._spread * (0.5 + 2.0 * draw() * draw())))

    def _make_odd(self, quote: Message, luck: float) -> None:
        """Change a quote in one of the ways in which a real feed is odd at times."""
        oddity = ""
        for name, chance in self._model.oddities():
            if luck < chance:
                oddity = name
                break
            luck -= chance
        match oddity:
            case "one_sided" if self._random.random() < 0.5:
                quote |= {"ax": " ", "ap": 0.0, "as": 0}
            case "one_sided":
                quote |= {"bx": " ", "bp": 0.0, "bs": 0}
            case "locked":
                quote["ap"] = quote["bp"]
            case "crossed":
                quote["bp"], quote["ap"] = quote["ap"], quote["bp"]
            case "two_flags":
                quote["c"] = _TWO_FLAGS
            case "received_at":
                quote["r"] = quote["t"] + self._random.randrange(20_000, 900_000)
            case "duplicate_time":
                quote["t"] = self.last_ns or quote["t"]
            case "out_of_order":
                quote["t"] -= self._random.randrange(1_000_000, 40_000_000)
            case _:
                quote["bp"] = int(quote["bp"]) or quote["bp"]

    def trade(self, feed: str, now_ns: int) -> Message:
        """Return a trade at the bid or the ask: often an odd lot, rarely at another price."""
        draw = self._random.random
        tape = self._listing.tape
        price = self.bid if draw() < 0.5 else self.ask
        luck = draw()
        odd_lot = luck < _ODD_LOT_P
        size = 1 + int(draw() * 99) if odd_lot else 100 * (1 + int(8 * draw() ** 4))
        conditions = [" "] if tape in "AB" else ["@"]
        if draw() < _EXTENDED_HOURS_P:
            conditions.append("T")
        if odd_lot:
            conditions.append("I")
        special = draw() < _SPECIAL_P
        if special:
            codes = _SPECIAL_CONDITIONS[tape]
            conditions.append(codes[int(draw() * len(codes))])
            price = round(price * (0.97 + 0.06 * draw()), 4)
        self._trade_id += 1
        trade: Message = {
            "T": "t",
            "S": self.symbol,
            "i": self._trade_id,
            "x": "V" if feed == "iex" else _EXCHANGES[tape][int(luck * 10)],
            "p": price,
            "s": size,
            "c": conditions,
            "z": tape,
            "t": now_ns,
        }
        if not special and not odd_lot:
            self._count(now_ns, price, size)
        return trade

    def _count(self, now_ns: int, price: float, size: int) -> None:
        """Count a trade in the bars of its minute and day; keep the bar of the minute before."""
        for kind, begin in (("b", now_ns - now_ns % MINUTE_NS), ("d", _day(now_ns))):
            bar = self._bars.get(kind)
            grown = self._bars[kind] = _grown(bar, begin, price, size)
            if kind == "b" and bar is not None and grown is not bar:
                self._bars["before"] = bar

    def bar(self, kind: str, now_ns: int) -> Message:
        """Return the bar of the newest minute (`b`), the day (`d`) or the day before (`prev`)."""
        known = self._bars.get(kind)
        if known is None:
            begin = now_ns - now_ns % MINUTE_NS if kind == "b" else _day(now_ns)
            price = self.bid
            if kind == "prev":
                begin, price = begin - _DAY_NS, self._base / self._per_usd
            known = self._bars[kind] = _grown(None, begin, price, 100)
        return {"T": kind, "S": self.symbol} | known

    def closed_minute(self, begin_ns: int) -> Message | None:
        """Return the bar of the minute that began at `begin_ns`, None if nothing was traded."""
        for kind in ("b", "before"):
            bar = self._bars.get(kind)
            if bar is not None and bar["t"] == begin_ns:
                return {"T": "b", "S": self.symbol} | bar
        return None

    def status(self, *, halted: bool, now_ns: int) -> Message:
        """Begin or end a halt. Return its message in the codes of its tape (CTA 2, 3; UTP H, T)."""
        self.halted = halted
        plan_a = self._listing.tape in "AB"
        code = ("2" if halted else "3") if plan_a else ("H" if halted else "T")
        return {
            "T": "s",
            "S": self.symbol,
            "sc": code,
            "sm": "Trading Halt" if halted else ("Resume" if plan_a else "Trading Resumption"),
            "rc": ("M" if plan_a else "LUDP") if halted else ("" if plan_a else "C11"),
            "rm": "Volatility Trading Pause" if halted else "Trade Halt Concluded",
            "t": now_ns,
            "z": self._listing.tape,
        }


def _day(now_ns: int) -> int:
    """Return the latest 05:00 UTC: midnight in New York, or an hour after it."""
    begin_ns = 300 * MINUTE_NS
    return now_ns - (now_ns - begin_ns) % _DAY_NS


def _grown(bar: Message | None, begin_ns: int, price: float, size: int) -> Message:
    """Return the bar with one more trade, or a new bar if it begins later."""
    if bar is None or bar["t"] != begin_ns:
        return {"o": price, "h": price, "l": price, "c": price, "v": size, "t": begin_ns} | {
            "n": 1,
            "vw": price,
        }
    volume = bar["v"] + size
    bar["vw"] = round((bar["vw"] * bar["v"] + price * size) / volume, 6)
    bar["h"], bar["l"], bar["c"] = max(bar["h"], price), min(bar["l"], price), price
    bar["v"], bar["n"] = volume, bar["n"] + 1
    return bar
