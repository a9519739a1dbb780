"""The trading days are read in a thread soon after the start, and the status says the market."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from spotd.core.trading_hours import Market, TradingDay, TradingHours, trading_hours
from spotd.daemon.trading_days import read_trading_days
from spotd.models import MarketName
from tests.daemon.rig import NewRig
from tests.kit.recorder import Recorder
from tests.kit.servers import Server
from tests.kit.waiting import until

SOON = {"trading_days_after_s": 0.0}


async def test_the_status_says_the_market_and_its_next_change(rig: NewRig) -> None:
    """Both are null until the calendar was read."""
    async with rig(timing={"trading_days_after_s": 3_600.0}) as daemon:
        assert (daemon.status["market"], daemon.status["market_changes_at"]) == (None, None)
    async with rig(timing=SOON, read_days=read_trading_days) as daemon:
        await until(lambda: daemon.status["market"], "the calendar")
        status = daemon.status
        at, changes_at = (
            datetime.fromisoformat(status[key]) for key in ("at", "market_changes_at")
        )
        hours = trading_hours("iex", read_trading_days(at))
        assert hours.at(at) == Market(status["market"], changes_at)


async def test_a_change_of_the_market_is_announced(rig: NewRig, server: Server) -> None:
    """The status is written when the market changes, and not only every few seconds."""
    async with (
        Recorder(server.url) as recorder,
        rig(timing={"trading_days_after_s": 3_600.0}, status_every_s=3_600.0) as daemon,
    ):

        def closes(in_: timedelta) -> TradingHours:
            now = datetime.now(UTC)
            times = (now - timedelta(hours=1), now + in_, now + timedelta(hours=2))
            return TradingHours(times, ("open", "extended", "closed"))

        def announced() -> list[str]:
            markets = [event["market"] for event in recorder.events("daemon")]
            return [market for market in dict.fromkeys(markets) if market is not None]

        daemon.daemon.hours.set(closes(timedelta(hours=1)))
        await until(lambda: announced() == ["open"], "the open market")
        daemon.daemon.hours.set(closes(timedelta(seconds=1)))
        await until(lambda: announced() == ["open", "extended"], "the close")


async def test_a_change_while_the_status_is_written_is_announced(
    rig: NewRig, server: Server
) -> None:
    """The status that was written meanwhile, and tells the market before, is written again."""
    async with (
        Recorder(server.url) as recorder,
        rig(timing={"trading_days_after_s": 3_600.0}, status_every_s=3_600.0) as daemon,
    ):

        def last() -> list[str]:
            return [event["market"] for event in recorder.events("daemon")][-1:]

        names: list[MarketName] = ["extended", "closed"]
        for name in names * 3:
            now = datetime.now(UTC)
            at = now + timedelta(milliseconds=30)
            times = (now - timedelta(hours=1), at, now + timedelta(hours=1))
            daemon.daemon.hours.set(TradingHours(times, ("open", name, "open")))
            await until(lambda: last() == [name], f"the {name} market")  # noqa: B023


async def test_a_calendar_that_cannot_be_read_is_no_fault(rig: NewRig) -> None:
    """The market is not known then, and everything else works."""

    def fails(_: datetime) -> tuple[TradingDay, ...]:
        raise LookupError("no such calendar")

    async with rig(timing=SOON, read_days=fails) as daemon:
        await daemon.want("SPY")
        assert daemon.status["market"] is None
        assert daemon.works()


async def test_the_test_feed_needs_no_calendar(rig: NewRig) -> None:
    """Its market is always open."""
    async with rig(feed="test") as daemon:
        assert (daemon.status["market"], daemon.status["market_changes_at"]) == ("open", None)


@pytest.mark.parametrize("now", [datetime(2026, 1, 8, tzinfo=UTC), datetime.now(UTC)])
def test_the_library_knows_a_year_ahead(now: datetime) -> None:
    """Sessions are six and a half hours long, or three and a half on half days."""
    days = read_trading_days(now)
    assert days[0].opens < now < days[-1].closes - timedelta(days=360)
    lengths = {day.closes - day.opens for day in days}
    assert lengths == {timedelta(hours=6.5), timedelta(hours=3.5)}
