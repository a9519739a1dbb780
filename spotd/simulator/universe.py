"""The symbols of the simulated market: plausible prices, tapes, and how busy each symbol is.

The result depends on the symbol and the seed alone, not on the machine or the order of calls.
"""

import hashlib
import itertools
import string
from dataclasses import dataclass
from functools import cache

_UNIVERSE_SIZE = 11_500  # about the number of symbols that Alpaca lists as tradable
_USUAL: dict[str, tuple[float, str, float]] = {
    # symbol: about where it traded in early 2026 (USD), tape, activity
    "SPY": (688.0, "B", 400.0),
    "QQQ": (622.0, "C", 300.0),
    "IWM": (258.0, "B", 180.0),
    "DIA": (491.0, "B", 60.0),
    "VOO": (632.0, "B", 50.0),
    "TLT": (87.5, "C", 60.0),
    "GLD": (430.0, "B", 70.0),
    "AAPL": (262.0, "C", 220.0),
    "MSFT": (478.0, "C", 160.0),
    "NVDA": (187.0, "C", 320.0),
    "AMZN": (236.0, "C", 170.0),
    "TSLA": (441.0, "C", 280.0),
    "GOOGL": (322.0, "C", 120.0),
    "GOOG": (323.0, "C", 90.0),
    "META": (651.0, "C", 110.0),
    "NFLX": (92.0, "C", 70.0),
    "AMD": (214.0, "C", 160.0),
    "AVGO": (345.0, "C", 90.0),
    "INTC": (40.0, "C", 100.0),
    "PLTR": (176.0, "C", 140.0),
    "COST": (915.0, "C", 25.0),
    "PEP": (143.0, "C", 20.0),
    "BRK.A": (749_000.0, "A", 0.3),
    "BRK.B": (498.0, "A", 30.0),
    "JPM": (329.0, "A", 40.0),
    "BAC": (55.0, "A", 60.0),
    "V": (349.0, "A", 25.0),
    "MA": (574.0, "A", 15.0),
    "UNH": (336.0, "A", 30.0),
    "XOM": (121.0, "A", 45.0),
    "WMT": (113.0, "C", 40.0),
    "KO": (70.0, "A", 30.0),
    "DIS": (113.0, "A", 30.0),
    "F": (13.8, "A", 60.0),
    "GME": (20.6, "A", 25.0),
    "SNDL": (1.7, "C", 6.0),
    "MULN": (0.083, "C", 5.0),
    "FAKEPACA": (150.0, "N", 50.0),
}


@dataclass(frozen=True, slots=True)
class Listing:
    """The facts of a symbol that do not change."""

    price: float
    """The price in USD at which its walk begins."""
    tape: str
    activity: float
    """Its share of all quotes, relative to those of other symbols."""


def listing(symbol: str, seed: int) -> Listing:
    """Return the listing of any well-formed symbol. Most are quiet, a few are busy (Pareto)."""
    if symbol in _USUAL:
        price, tape, activity = _USUAL[symbol]
        return Listing(price, tape, activity)
    digest = hashlib.blake2b(f"{seed}/{symbol}".encode(), digest_size=24).digest()
    first, second, third = (int.from_bytes(digest[at : at + 8], "big") / 2**64 for at in (0, 8, 16))
    price = round(3.0 * 300.0**first, 2)  # 3 to 900 USD; half of the symbols are below 52
    tape = "C" if len(symbol) >= 4 and "." not in symbol else "AAB"[int(second * 3)]
    activity = min(100.0, 0.2 * (1.0 - third) ** (-1 / 1.1))
    return Listing(price, tape, activity)


@cache
def universe() -> frozenset[str]:
    """Return the symbols that `*` means."""
    return frozenset(symbols(_UNIVERSE_SIZE))


def symbols(number: int) -> list[str]:
    """Return this many symbols of the market, the well-known ones first."""
    letters = itertools.chain.from_iterable(
        itertools.product(string.ascii_uppercase, repeat=length) for length in (3, 4)
    )
    made = ("".join(each) for each in letters)
    usual = [each for each in _USUAL if each != "FAKEPACA"]
    rest = (each for each in made if each not in _USUAL)
    return list(itertools.islice(itertools.chain(usual, rest), number))
