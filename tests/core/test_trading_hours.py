"""When the market of a feed is open: days of each kind, to the minute, in New York's time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spotd.core.trading_hours import NEW_YORK, Market, TradingDay, TradingHours, trading_hours
from spotd.daemon.trading_days import read_trading_days
from spotd.models import MarketName

FEEDS = ("iex", "sip", "delayed_sip", "boats", "overnight")


def at(text: str) -> datetime:
    """Return the time in New York that is written as ``2026-01-05 09:30``."""
    return datetime.fromisoformat(text).replace(tzinfo=NEW_YORK).astimezone(UTC)


def day(text: str, closes: str = "16:00") -> TradingDay:
    """Return the trading day of this date, whose regular session opens at 9:30."""
    return TradingDay(at(f"{text} 09:30"), at(f"{text} {closes}"))


@cache
def days_of(year: int) -> tuple[TradingDay, ...]:
    """Return the days of the real calendar, so that a change of the library that matters is seen.

    The two years that are asked for hold for good.
    """
    return read_trading_days(datetime(year, 1, 8, tzinfo=UTC))


# time in New York; what it is on sip, iex and overnight; when that changes next on sip
MOMENTS: dict[str, tuple[str, MarketName, MarketName, MarketName, str]] = {
    "before all": ("2026-01-05 03:59", "closed", "closed", "open", "2026-01-05 04:00"),
    "early": ("2026-01-05 04:00", "extended", "closed", "closed", "2026-01-05 09:30"),
    "IEX opens": ("2026-01-05 08:00", "extended", "extended", "closed", "2026-01-05 09:30"),
    "the open": ("2026-01-05 09:30", "open", "open", "closed", "2026-01-05 16:00"),
    "noon": ("2026-01-05 12:00", "open", "open", "closed", "2026-01-05 16:00"),
    "the close": ("2026-01-05 16:00", "extended", "extended", "closed", "2026-01-05 20:00"),
    "IEX closes": ("2026-01-05 17:00", "extended", "closed", "closed", "2026-01-05 20:00"),
    "the night begins": ("2026-01-05 20:00", "closed", "closed", "open", "2026-01-06 04:00"),
    "Friday night": ("2026-01-09 20:00", "closed", "closed", "closed", "2026-01-12 04:00"),
    "Saturday": ("2026-01-10 12:00", "closed", "closed", "closed", "2026-01-12 04:00"),
    "Sunday night": ("2026-01-11 20:00", "closed", "closed", "open", "2026-01-12 04:00"),
    "the eve of a holiday": ("2026-01-18 21:00", "closed", "closed", "closed", "2026-01-20 04:00"),
    "a holiday": ("2026-01-19 12:00", "closed", "closed", "closed", "2026-01-20 04:00"),
    "the night behind it": ("2026-01-19 21:00", "closed", "closed", "open", "2026-01-20 04:00"),
    "a half day at noon": ("2026-11-27 12:59", "open", "open", "closed", "2026-11-27 13:00"),
    "its close": ("2026-11-27 13:00", "extended", "extended", "closed", "2026-11-27 17:00"),
    "its end": ("2026-11-27 17:00", "closed", "closed", "closed", "2026-11-30 04:00"),
    "Christmas": ("2026-12-25 12:00", "closed", "closed", "closed", "2026-12-28 04:00"),
    # Clocks go forward on 8 March and back on 1 November, both on a Sunday.
    "the Friday before it": ("2026-03-06 09:30", "open", "open", "closed", "2026-03-06 16:00"),
    "summer time begins": ("2026-03-08 20:00", "closed", "closed", "open", "2026-03-09 04:00"),
    "the first summer day": ("2026-03-09 09:30", "open", "open", "closed", "2026-03-09 16:00"),
    "summer time ends": ("2026-11-01 20:00", "closed", "closed", "open", "2026-11-02 04:00"),
    "the first winter day": ("2026-11-02 09:30", "open", "open", "closed", "2026-11-02 16:00"),
}  # fmt: skip


@pytest.mark.parametrize(("when", "sip", "iex", "night", "changes"), MOMENTS.values(), ids=MOMENTS)
def test_the_market_at_a_moment(
    when: str, sip: MarketName, iex: MarketName, night: MarketName, changes: str
) -> None:
    """Weekends, holidays, half days and both changes of the clocks are as the exchanges keep."""
    moment = at(when)
    days = days_of(2026)
    assert trading_hours("sip", days).at(moment) == Market(sip, at(changes))
    assert trading_hours("delayed_sip", days).at(moment) == Market(sip, at(changes))
    assert trading_hours("iex", days).at(moment).name == iex
    assert trading_hours("overnight", days).at(moment).name == night
    assert trading_hours("boats", days).at(moment).name == night


@pytest.mark.parametrize(
    ("when", "utc"),
    [
        ("2026-03-06 09:30", "14:30"),
        ("2026-03-09 09:30", "13:30"),
        ("2026-10-30 16:00", "20:00"),
        ("2026-11-02 16:00", "21:00"),
    ],
)
def test_the_clocks_of_new_york_count(when: str, utc: str) -> None:
    """The same local time is another one in UTC after the clocks were changed."""
    assert at(when).strftime("%H:%M") == utc
    hours = trading_hours("sip", days_of(2026))
    moment = at(when)
    assert hours.at(moment).name != hours.at(moment - timedelta(seconds=1)).name


def test_a_night_with_a_change_of_the_clocks_has_its_own_length() -> None:
    """The session of the night ends at 4:00 of the new time."""
    night = trading_hours("boats", [day("2026-03-08"), day("2026-03-09")]).at(
        at("2026-03-08 20:30")
    )
    assert night == Market("open", datetime(2026, 3, 9, 8, 0, tzinfo=UTC))


def test_a_day_of_mourning_is_in_the_calendar() -> None:
    """On 9 January 2025 the exchanges were closed by an announcement of ten days before."""
    assert trading_hours("sip", days_of(2025)).at(at("2025-01-09 12:00")).name == "closed"


def test_the_test_feed_is_always_open() -> None:
    """It brings made-up quotes at any time, with and without a calendar."""
    for days in ((), days_of(2026)):
        assert trading_hours("test", days).at(at("2026-12-25 03:00")) == Market("open", None)


@pytest.mark.parametrize("feed", FEEDS)
def test_what_the_calendar_does_not_cover_is_not_known(feed: str) -> None:
    """Without days, before the first one and after the last one, nothing is guessed."""
    assert TradingHours().at(at("2026-01-05 12:00")) == Market(None, None)
    hours = trading_hours(feed, [day("2026-01-05")])
    assert hours.at(at("2026-01-02 12:00")) == Market(None, None)
    assert hours.at(at("2026-01-06 12:00")) == Market(None, None)


@pytest.mark.parametrize("feed", FEEDS)
def test_the_calendar_reaches_a_year_ahead(feed: str) -> None:
    """A daemon that reads it once a day never comes to its end."""
    hours = trading_hours(feed, days_of(2026))
    assert hours.at(at("2026-01-02 12:00")).name is not None
    assert hours.at(at("2027-01-05 12:00")).name is not None


@given(st.floats(0, 360), st.sampled_from(FEEDS))
def test_the_next_change_is_the_next(days: float, feed: str) -> None:
    """Up to the change the market is the same, and from it on another."""
    hours = trading_hours(feed, days_of(2026))
    now = at("2026-01-04 00:00") + timedelta(days=days)
    market = hours.at(now)
    assert market.changes_at is not None
    assert market.changes_at > now
    middle = now + (market.changes_at - now) / 2
    assert hours.at(middle) == market
    assert hours.at(market.changes_at - timedelta(microseconds=1)) == market
    assert hours.at(market.changes_at).name != market.name


@pytest.mark.parametrize(
    ("feed", "minutes"), [("iex", 1950), ("sip", 1950), ("boats", 2400), ("overnight", 2400)]
)
def test_a_plain_week_has_five_sessions(feed: str, minutes: int) -> None:
    """A day is open for six and a half hours, a night for eight."""
    numbers = (9, 12, 13, 14, 15, 16, 20)
    hours = trading_hours(feed, [day(f"2026-01-{number:02}") for number in numbers])
    sunday = at("2026-01-11 00:00")
    moments = (sunday + timedelta(minutes=minute) for minute in range(7 * 24 * 60))
    assert sum(hours.at(moment).name == "open" for moment in moments) == minutes
