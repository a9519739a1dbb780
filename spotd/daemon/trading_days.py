"""Reads the trading days of the US exchanges from a calendar library, once a day.

The library is imported in a thread, after the start: it costs 0.2 s of CPU, which no start has to
wait for. It is read again each day because its calendars end about a year ahead, and a new version
of the library is read after a restart only.

Must not decide what the days mean: ``core.trading_hours`` does.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeAlias

import structlog

from spotd.alpaca.threads import in_daemon_thread
from spotd.core.trading_hours import TradingDay, TradingHours, trading_hours
from spotd.daemon.value import Value

FIRST_AFTER_S = 2.0
_EVERY_S = 24 * 3_600.0
_RETRY_S = 3_600.0
_READ_S = 60.0
_BEFORE = timedelta(days=7)
_AHEAD = timedelta(days=370)
_EXCHANGE = "XNYS"  # Nasdaq, Cboe and IEX keep the same days

ReadDays: TypeAlias = Callable[[datetime], tuple[TradingDay, ...]]

log = structlog.get_logger("spotd.trading_days")


def read_trading_days(now: datetime) -> tuple[TradingDay, ...]:
    """Return the trading days from a week before ``now`` to a year ahead. Takes 0.2 s at first."""
    import exchange_calendars  # type: ignore[import-untyped]  # noqa: PLC0415 - see above

    calendar = exchange_calendars.get_calendar(
        _EXCHANGE, start=(now - _BEFORE).date(), end=(now + _AHEAD).date()
    )
    days = tuple(
        TradingDay(opens.to_pydatetime(), closes.to_pydatetime())
        for opens, closes in zip(calendar.opens, calendar.closes, strict=True)
    )
    # What was imported is never garbage; see ``daemon.process``.
    gc.freeze()
    return days


class TradingDaysLoop:
    """The loop that reads the trading days. It owns ``hours``, those of the feed."""

    def __init__(
        self,
        feed: str,
        *,
        hours: Value[TradingHours],
        read: ReadDays = read_trading_days,
        first_after_s: float = FIRST_AFTER_S,
    ) -> None:
        self._feed = feed
        self._hours = hours
        self._read = read
        self._first_after_s = first_after_s

    async def run(self) -> None:
        """Read soon after the start, and then each day."""
        await asyncio.sleep(self._first_after_s)
        failed = False
        while True:
            try:
                async with asyncio.timeout(_READ_S):
                    days = await in_daemon_thread(lambda: self._read(datetime.now(UTC)))
            except Exception as error:  # noqa: BLE001 - the library's own, and of what it stands on
                if not failed:
                    log.warning("no trading days: the market is not known", why=repr(error))
                failed = True
                await asyncio.sleep(_RETRY_S)
                continue
            if failed:
                log.info("trading days are known again")
            failed = False
            self._hours.set(trading_hours(self._feed, days))
            await asyncio.sleep(_EVERY_S)
