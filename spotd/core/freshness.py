"""Decides whether a silent stream is mute: open and alive, and yet without its prices.

Must not ask REST itself, and must not know whether a session is open: its caller asks only while
one is.

Silence alone proves nothing, because a closed market is silent for hours. So after a silence, and
after each further one of the same length, Alpaca's REST is asked for the same symbols. If REST
knows prices that the stream should have brought, and the stream brings nothing within the grace
either, the stream is mute: the symbols go stale, REST's prices are taken, and the stream is opened
anew. Without the grace, a quote that is on its way to both would look like a mute stream.

The market decides only how long a silence is. The verdict is REST's word: when an exchange closes
without notice, REST knows nothing new either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import nlargest

from spotd.core.market import is_two_sided
from spotd.core.messages import Quote
from spotd.models import MarketName

# Stream and REST show the same feed, so REST may be ahead by what arrives between two reads.
MUTE_SLACK = timedelta(seconds=5)
_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What REST's answer means.

    ``suspected``: the symbols whose price the stream withheld; without any, the market is silent.
    ``unpriced``: those asked about that have no price yet, so REST's is to be taken at once.
    """

    suspected: tuple[str, ...] = ()
    unpriced: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SilenceTimes:
    """How long a silence lasts before REST is asked, by the market, and the grace, in seconds."""

    open_s: float = 10.0
    extended_s: float = 30.0
    closed_s: float = 300.0
    unknown_s: float = 30.0
    grace_s: float = 10.0

    def silence_s(self, market: MarketName | None) -> float:
        """Return how long a silence lasts in this market."""
        match market:
            case "open":
                return self.open_s
            case "extended":
                return self.extended_s
            case "closed":
                return self.closed_s
        return self.unknown_s


_NOTHING = Judgement()


class Silence:
    """How long the stream has been silent, and what follows from it.

    ``data_at`` is when data last came or a session was opened, in monotonic seconds. The hot path
    sets it at each frame, and nobody else may set it.
    """

    def __init__(self, times: SilenceTimes | None = None) -> None:
        self.data_at = _NEVER
        self._times = SilenceTimes() if times is None else times
        self._asked_at = _NEVER  # when REST last answered, or could not be asked
        self._suspected_at: float | None = None

    def check_at(self, market: MarketName | None) -> float:
        """Return when to ask REST, in monotonic seconds; minus infinity before a session."""
        return max(self.data_at, self._asked_at) + self._times.silence_s(market)

    @property
    def judge_at(self) -> float | None:
        """When the grace of a suspicion is over, in monotonic seconds; None without one."""
        return None if self._suspected_at is None else self._suspected_at + self._times.grace_s

    def opened(self, now: float) -> None:
        """Take in that a new session is open: its silence begins now."""
        self.data_at = now

    def due(self, market: MarketName | None, now: float) -> bool:
        """Return whether REST is to be asked now, provided that a session is open."""
        return now >= self.check_at(market)

    @staticmethod
    def choose(
        prices: Iterable[tuple[str, datetime | None, datetime | None]], most: int
    ) -> list[str]:
        """Return the symbols to ask REST about, at most ``most``.

        ``prices``: symbol, time of its quote, time that its price reflects; None without a price.
        Only a symbol with a price can show that the stream is mute, most likely one whose price
        moved lately. So symbols without a price get a quarter of the room, and what the others
        leave free.
        """
        priced: list[tuple[datetime, str]] = []
        unpriced: list[str] = []
        for symbol, quoted_at, reflected_at in prices:
            if quoted_at is None or reflected_at is None:
                unpriced.append(symbol)
            else:
                priced.append((reflected_at, symbol))
        room = most - min(len(unpriced), most // 4)
        chosen = [symbol for _, symbol in nlargest(room, priced, key=lambda price: price[0])]
        return chosen + unpriced[: most - len(chosen)]

    def judge(
        self,
        asked: Mapping[str, datetime | None],
        found: Mapping[str, Quote | None],
        now: float,
        *,
        asked_at: float,
    ) -> Judgement:
        """Return what the answer means that REST gave at ``now`` to a request of ``asked_at``.

        ``asked``: the symbols that REST was asked about, with the time of the quote that we hold
        *now*, None without one: a snapshot may have come while REST was asked. ``found``: REST's
        quotes; a symbol may be missing.

        The answer is void if data came or a session was opened since ``asked_at``.
        """
        if self.data_at >= asked_at:
            return _NOTHING
        self._asked_at = now
        suspected = tuple(
            symbol
            for symbol, stream_at in asked.items()
            if stream_at is not None and is_ahead(found.get(symbol), stream_at)
        )
        if suspected:
            self._suspected_at = now
        unpriced = tuple(symbol for symbol, stream_at in asked.items() if stream_at is None)
        return Judgement(suspected, unpriced)

    def judge_mute(self, now: float) -> bool | None:
        """Return whether the suspected stream is mute. Return None while that is not known.

        Data since the suspicion, or a new session, end it.
        """
        since = self._suspected_at
        if since is None or self.data_at >= since:
            self._suspected_at = None
            return False
        if now < since + self._times.grace_s:
            return None
        self._suspected_at = None
        self._asked_at = now  # until the session has ended, there is nothing more to ask
        return True

    def could_not_ask(self, now: float) -> None:
        """Take in that REST did not answer: it is asked again after another silence."""
        self._asked_at = now


def is_ahead(quote: Quote | None, stream_at: datetime) -> bool:
    """Return whether REST holds a quote that the stream should have brought.

    A one-sided quote proves nothing: the stream may have brought it, but it is never kept.
    """
    return (
        quote is not None
        and is_two_sided(quote.bid, quote.ask)
        and quote.at - stream_at > MUTE_SLACK
    )
