"""What Alpaca sent and what the channels brought. Decides whether these agree; talks to nothing.

The source numbers the quotes of each symbol, and writes the number into the bid. So each update
tells which quote it reflects, and with it when the source sent that quote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

_FIRST_CENTS = 1_000
SPREAD = 0.02
_KEPT = 2_000  # quotes of a symbol whose times are known


def bid_of(number: int) -> float:
    """Return the bid, in USD, of the quote with this number."""
    return (_FIRST_CENTS + number) / 100


def number_of(bid: float) -> int:
    """Return the number of the quote with this bid, -1 for a bid that no quote has."""
    number = round(bid * 100) - _FIRST_CENTS
    return number if number >= 0 and bid_of(number) == bid else -1


@dataclass(slots=True)
class _Symbol:
    sent: int = -1
    """The number of the newest quote."""
    known: int = -1
    """The highest number that was on the channel or in the hash."""
    heard: int = -1
    seq: int = 0
    waiting: deque[tuple[int, float]] = field(default_factory=lambda: deque(maxlen=_KEPT))
    """Number and time of the quotes that nothing reflects yet."""
    arrivals: deque[float] = field(default_factory=lambda: deque(maxlen=64))


class Prices:
    """The prices of all symbols. ``throttle_s`` is the daemons' window.

    Methods return what is wrong, as (rule, symbol, said, true). Times are monotonic seconds.
    """

    def __init__(self, throttle_s: float) -> None:
        self.updates = 0
        self.quotes = 0
        self.closest_s = float("inf")
        """The smallest distance of two updates of a symbol, by their ``seq``."""
        self.most_in_1_s = 0
        """The most updates of a symbol that arrived within a second."""
        self._throttle_s = throttle_s
        self._symbols: dict[str, _Symbol] = {}

    def next_number(self, symbol: str) -> int:
        """Return the number of the next quote of a symbol."""
        return self._of(symbol).sent + 1

    def sent(self, symbol: str, number: int, at: float) -> None:
        """Take in that Alpaca sent a two-sided quote."""
        one = self._of(symbol)
        one.sent = number
        one.waiting.append((number, at))
        self.quotes += 1

    def heard(
        self, symbol: str, bid: float, ask: float, seq: int, at: float, slack_s: float
    ) -> Iterator[tuple[str, str, str, str]]:
        """Take in an update from its channel. ``slack_s``: by how much arrivals may be late."""
        one, number = self._of(symbol), number_of(bid)
        self.updates += 1
        if not 0 <= number <= one.sent or round(ask - bid, 6) != SPREAD:
            yield "a price that Alpaca did not send", symbol, f"{bid}/{ask}", f"newest {one.sent}"
            return
        if seq <= one.seq:
            yield "seq did not rise", symbol, f"seq {seq}", f"before it {one.seq}"
        if number < one.heard:
            yield "an older price after a newer one", symbol, f"{number}", f"{one.heard} before it"
        if one.seq:
            apart_s = (seq - one.seq) / 1e6
            self.closest_s = min(self.closest_s, apart_s)
            # Half a millisecond: the window is opened by the monotonic clock, seq is by the other.
            if 0 < apart_s < self._throttle_s - 0.0005:
                yield (
                    "throttle, by seq", symbol, f"{apart_s * 1000:.1f} ms after the one before",
                    f"the window is {self._throttle_s * 1000:g} ms",
                )  # fmt: skip
        yield from self._arrived(symbol, one, at, slack_s)
        one.seq, one.heard = max(one.seq, seq), max(one.heard, number)
        self._is_known(one, number)

    def stored(self, symbol: str, bid: float) -> None:
        """Take in a price of ``spotd:last``."""
        self._is_known(self._of(symbol), number_of(bid))

    def behind(self) -> dict[str, float]:
        """Return, for each symbol that lacks a quote, the time of the first that it lacks."""
        return {name: one.waiting[0][1] for name, one in self._symbols.items() if one.waiting}

    def newest(self, symbol: str) -> tuple[int, int]:
        """Return the number of the newest quote, and of the newest update heard."""
        one = self._of(symbol)
        return one.sent, one.heard

    def _arrived(
        self, symbol: str, one: _Symbol, at: float, slack_s: float
    ) -> Iterator[tuple[str, str, str, str]]:
        one.arrivals.append(at)
        while at - one.arrivals[0] > 1.0:
            one.arrivals.popleft()
        number = len(one.arrivals)
        self.most_in_1_s = max(self.most_in_1_s, number)
        # One at the begin, one per window, and one that a call brought which was given up while
        # Redis hung, and executed when it went on.
        most = 2 + int((1.0 + slack_s) / self._throttle_s)
        if number > most:
            yield (
                "throttle, by arrival",
                symbol,
                f"{number} updates within 1 s",
                f"at most {most}",
            )

    @staticmethod
    def _is_known(one: _Symbol, number: int) -> None:
        one.known = max(one.known, number)
        while one.waiting and one.waiting[0][0] <= one.known:
            one.waiting.popleft()

    def _of(self, symbol: str) -> _Symbol:
        return self._symbols.setdefault(symbol, _Symbol())
