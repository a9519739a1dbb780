"""The REST side: latest quotes, snapshots and the market clock, in Alpaca's own shapes.

Talks HTTP; the values are the latest messages that the market, a replay or a test sent.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from spotd.simulator.changes import Changes
from spotd.simulator.clock import Clock
from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.latest import LatestMessages
from spotd.simulator.messages import FEEDS, SYMBOL
from spotd.simulator.protocol import Rules
from spotd.simulator.rate_limit import RateLimit
from spotd.simulator.wire import Message, rfc3339

Route: TypeAlias = Callable[[web.Request], Mapping[str, Any]]
"""A request -> the body of its answer; raises `RefusedError`."""

_QUOTE = ("t", "ax", "ap", "as", "bx", "bp", "bs", "c", "z")
_TRADE = ("t", "x", "p", "s", "c", "i", "z")
_BAR = ("t", "o", "h", "l", "c", "v", "n", "vw")
_SNAPSHOT = {
    "latestTrade": ("t", _TRADE),
    "latestQuote": ("q", _QUOTE),
    "minuteBar": ("b", _BAR),
    "dailyBar": ("d", _BAR),
    "prevDailyBar": ("prev", _BAR),
}


class RefusedError(Exception):
    """A request that is refused, with the HTTP status and the body of the answer."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message}
        if code is not None:
            self.body = {"code": code, "message": message}


class Rest:
    """The routes of Alpaca's data and trading API that a price daemon may use."""

    def __init__(
        self,
        rules: Rules,
        latest: LatestMessages,
        journal: Journal,
        stats: Stats,
        changes: Changes,
        clock: Clock,
    ) -> None:
        self.rules = rules
        self._latest = latest
        self._clock = clock
        self._journal, self._stats, self._changes = journal, stats, changes
        self._rate_limit = RateLimit()

    def add_to(self, app: web.Application) -> None:
        """Add the routes to an application."""
        for path, route in (
            ("/v2/clock", self._market_clock),
            ("/v2/stocks/quotes/latest", self._quotes),
            ("/v2/stocks/snapshots", self._snapshots),
        ):
            app.router.add_get(path, self._served(route))

    def _served(self, route: Route) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Return a handler that records a request, applies the faults, and answers."""

        async def serve(request: web.Request) -> web.Response:
            self._stats.rest_requests += 1
            headers = dict(request.headers)
            self._journal.add(Record("rest", 0, request.path_qs, headers=headers))
            faults = self.rules.faults
            await self._changes.until(lambda: not faults.rest_hang)
            if faults.rest_delay_s:
                await asyncio.sleep(faults.rest_delay_s)
            if faults.rest_garbage:
                return web.Response(text="<html>a page of some proxy</html>")
            answer = self._answer(route, request)
            answer.headers["Date"] = formatdate(self._clock.wall_ns() / 1e9, usegmt=True)
            return answer

        return serve

    def _answer(self, route: Route, request: web.Request) -> web.Response:
        """Return the answer to a request: its key, the rate limit and the faults may refuse it."""
        headers: dict[str, str] = {}
        status = self.rules.faults.rest_status
        try:
            key = self._checked_key(request)
            limit = self.rules.limits.rest_per_min
            allowed, headers = self._rate_limit.count(key, limit, time.time())
            if status:
                raise RefusedError(status, _WORDS.get(status, "error"))
            if not allowed:
                raise RefusedError(429, _WORDS[429])
            status, body = 200, route(request)
        except RefusedError as refused:
            status, body = refused.status, refused.body
        return web.Response(
            body=msgspec.json.encode(body),
            status=status,
            content_type="application/json",
            headers=headers,
        )

    def _checked_key(self, request: web.Request) -> str:
        key = request.headers.get("APCA-API-KEY-ID", "")
        secret = request.headers.get("APCA-API-SECRET-KEY")
        if secret is None or self.rules.keys.get(key) != secret:
            raise RefusedError(403, "forbidden.")
        return key

    def _feed(self, request: web.Request) -> str:
        """Return the feed asked for, or the best one of the plan."""
        entitled = self.rules.entitled
        feed = request.query.get("feed") or ("sip" if "sip" in entitled else "iex")
        if feed not in FEEDS and feed != "otc":
            raise RefusedError(400, f"code=400, message=invalid feed: {feed}")
        if feed not in entitled:
            words = "recent SIP data" if feed == "sip" else f"{feed} data"
            raise RefusedError(403, f"subscription does not permit querying {words}", 42210000)
        return feed

    def _symbols(self, request: web.Request) -> list[str]:
        """Return the symbols asked for. The first malformed one refuses the whole request."""
        given = request.query.get("symbols", "").split(",")
        symbols = [each.strip() for each in given if each.strip()]
        if not symbols:
            raise RefusedError(400, "code=400, message=symbols is required")
        for symbol in symbols:
            bad = symbol in self.rules.faults.rest_bad_symbols
            if bad or SYMBOL.fullmatch(symbol) is None:
                raise RefusedError(400, f"code=400, message=invalid symbol: {symbol}")
        return list(dict.fromkeys(symbols))

    def _message(self, feed: str, kind: str, symbol: str, names: tuple[str, ...]) -> Message | None:
        """Return the latest message in REST's key order, or None."""
        faults = self.rules.faults
        if faults.rest_null or symbol in faults.rest_null_symbols:
            return None
        message = self._latest.of(feed, kind, symbol, self._clock.wall_ns())
        if message is None:
            return None
        return {
            name: rfc3339(message["t"]) if name == "t" else message[name]
            for name in names
            if name in message
        }

    def _quotes(self, request: web.Request) -> Mapping[str, Any]:
        """Return the latest quotes; a symbol without data is absent."""
        symbols, feed = self._symbols(request), self._feed(request)
        found = {symbol: self._message(feed, "q", symbol, _QUOTE) for symbol in symbols}
        return {"quotes": {symbol: one for symbol, one in found.items() if one is not None}}

    def _snapshots(self, request: web.Request) -> Mapping[str, Any]:
        """Return snapshots, without a wrapper key; a symbol without data is null."""
        symbols, feed = self._symbols(request), self._feed(request)
        return {symbol: self._snapshot(feed, symbol) or None for symbol in symbols}

    def _snapshot(self, feed: str, symbol: str) -> dict[str, Any]:
        found = {
            part: self._message(feed, kind, symbol, names)
            for part, (kind, names) in _SNAPSHOT.items()
        }
        return {part: one for part, one in found.items() if one is not None}

    def _market_clock(self, _request: web.Request) -> Mapping[str, Any]:
        """Return the trading API's clock: open, unless the knob says closed."""
        now = datetime.fromtimestamp(self._clock.wall_ns() / 1e9, UTC)
        tomorrow = now + timedelta(days=1)
        return {
            "timestamp": _in_new_york(now),
            "is_open": not self.rules.faults.market_closed,
            "next_open": _in_new_york(tomorrow, 9, 30),
            "next_close": _in_new_york(tomorrow, 16, 0),
        }


def _in_new_york(moment: datetime, hour: int | None = None, minute: int = 0) -> str:
    local = moment.astimezone(ZoneInfo("America/New_York"))
    if hour is not None:
        local = local.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return local.isoformat()


_WORDS = {
    401: "unauthorized.",
    403: "forbidden.",
    404: "endpoint not found.",
    429: "too many requests.",
    500: "internal server error",
    502: "bad gateway",
    503: "service unavailable",
    504: "gateway timeout",
}
