"""Decides whether the market of a feed is open, by the trading days of the exchange.

The days come from a calendar of US exchanges; this module knows the hours around them. Must not
read the calendar, and must not be taken for the truth about a stream: an exchange may close
without notice. So the hours only decide how soon Alpaca's REST is asked, and what the status says.

All times are local to New York, on a trading day:

============= ========================== ========================== ===========================
feed          open                       extended before            extended after
============= ========================== ========================== ===========================
sip,          the regular session: 9:30  from 4:00                  until 20:00, on a half day
delayed_sip   to 16:00, on a half day                               until 17:00
              to 13:00
iex           the same                   from 8:00                  until 17:00
boats,        20:00 of the evening       never                      never
overnight     before to 4:00
test          always                     never                      never
============= ========================== ========================== ===========================

Sources: Alpaca's page on 24/5 trading, IEX's alert 2015-015, the hours of Blue Ocean ATS, which has
no session in the evening before a day without trading.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from spotd.models import MarketName

NEW_YORK = ZoneInfo("America/New_York")
_REGULAR_CLOSE = time(16)
_ALWAYS_OPEN = frozenset(("test",))
_AT_NIGHT = frozenset(("boats", "overnight"))


@dataclass(frozen=True, slots=True)
class TradingDay:
    """The regular session of one day: when it opens and closes, as times with a zone."""

    opens: datetime
    closes: datetime


@dataclass(frozen=True, slots=True)
class Market:
    """The market at one moment. ``changes_at`` is its next change; None where none is known."""

    name: MarketName | None = None
    changes_at: datetime | None = None


_UNKNOWN = Market()


@dataclass(frozen=True, slots=True)
class TradingHours:
    """The market of one feed over the days of a calendar. Without days, it is not known.

    ``names[i]`` is the market from ``times[i]`` on, until the next of the times, which rise.
    """

    times: tuple[datetime, ...] = ()
    names: tuple[MarketName, ...] = ()
    always_open: bool = False

    def at(self, moment: datetime) -> Market:
        """Return the market at ``moment``, a time with a zone.

        Before the first day of the calendar and after its last one, the market is not known.
        """
        if self.always_open:
            return Market("open")
        following = bisect_right(self.times, moment)
        if following in (0, len(self.times)):
            return _UNKNOWN
        return Market(self.names[following - 1], self.times[following])


def trading_hours(feed: str, days: Iterable[TradingDay]) -> TradingHours:
    """Return the hours of ``feed`` on these trading days, the earliest first."""
    if feed in _ALWAYS_OPEN:
        return TradingHours(always_open=True)
    changes = [change for day in days for change in _changes(feed, day)]
    return TradingHours(tuple(at for at, _ in changes), tuple(name for _, name in changes))


def _changes(feed: str, day: TradingDay) -> Iterator[tuple[datetime, MarketName]]:
    """Yield the changes of a trading day, the first of which may be in the evening before it."""
    closes = day.closes.astimezone(NEW_YORK)
    if feed in _AT_NIGHT:
        yield _local(closes.date() - timedelta(days=1), time(20)), "open"
        yield _local(closes.date(), time(4)), "closed"
        return
    half_day = closes.time() < _REGULAR_CLOSE
    yield _local(closes.date(), time(8) if feed == "iex" else time(4)), "extended"
    yield day.opens, "open"
    yield day.closes, "extended"
    yield _local(closes.date(), time(17) if half_day or feed == "iex" else time(20)), "closed"


def _local(day: date, at: time) -> datetime:
    return datetime.combine(day, at, NEW_YORK)
