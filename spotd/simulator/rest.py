"""The REST side: latest quotes and trades, snapshots, the clock, in Alpaca's own shapes.

Talks HTTP; the values are the simulator's latest, from the market, a replay or `send`.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from aiohttp import web

from spotd.simulator.bell import Bell
from spotd.simulator.journal import Journal, Record, Stats
from spotd.simulator.messages import FEEDS, SYMBOL
from spotd.simulator.protocol import Rules
from spotd.simulator.wire import Message, rfc3339

Latest: TypeAlias = Callable[[str, str, str], Message | None]
"""Feed, type of message and symbol -> the latest one."""

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
    """A request that is not served: the HTTP status and the body's fields."""

    def __init__(self, status: int, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {"message": message}
        if code is not None:
            self.body = {"code": code, "message": message}


class Rest:
    """Alpaca's data API, as far as a price daemon may ask."""

    def __init__(
        self, rules: Rules, latest: Latest, journal: Journal, stats: Stats, bell: Bell
    ) -> None:
        self.rules = rules
        self._latest = latest
        self._journal, self._stats, self._bell = journal, stats, bell
        self._used: Counter[tuple[str, int]] = Counter()

    def add_to(self, app: web.Application) -> None:
        """Put the routes into an application."""
        for path, answer in (
            ("/v2/clock", self._clock),
            ("/v2/stocks/quotes/latest", self._latest_of("q", "quotes", _QUOTE)),
            ("/v2/stocks/trades/latest", self._latest_of("t", "trades", _TRADE)),
            ("/v2/stocks/snapshots", self._snapshots),
            ("/v2/stocks/{symbol}/quotes/latest", self._single("q", "quote", _QUOTE)),
            ("/v2/stocks/{symbol}/trades/latest", self._single("t", "trade", _TRADE)),
            ("/v2/stocks/{symbol}/snapshot", self._snapshot),
        ):
            app.router.add_get(path, self._guarded(answer))

    def _guarded(
        self, answer: Callable[[web.Request], Any]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        """What every request goes through: faults, keys, rate limit, then its answer."""

        async def serve(request: web.Request) -> web.Response:
            self._stats.rest_requests += 1
            headers = dict(request.headers)
            self._journal.add(Record("rest", 0, request.path_qs, headers=headers))
            faults = self.rules.faults
            await self._bell.until(lambda: not faults.rest_hang)
            if faults.rest_delay_s:
                await asyncio.sleep(faults.rest_delay_s)
            if faults.rest_garbage:
                return web.Response(text="<html>a page of some proxy</html>")
            limits = {}
            try:
                key = self._check_key(request)
                limits = self._count(key)
                if faults.rest_status:
                    raise RefusedError(faults.rest_status, _WORDS.get(faults.rest_status, "error"))
                if limits["X-RateLimit-Remaining"] == "-1":
                    limits["X-RateLimit-Remaining"] = "0"
                    raise RefusedError(429, _WORDS[429])
                status, body = 200, answer(request)
            except RefusedError as refused:
                status, body = refused.status, refused.body
                self._stats.rest_refused[status] += 1
            return web.Response(
                body=msgspec.json.encode(body),
                status=status,
                content_type="application/json",
                headers=limits,
            )

        return serve

    def _check_key(self, request: web.Request) -> str:
        key = request.headers.get("APCA-API-KEY-ID", "")
        secret = request.headers.get("APCA-API-SECRET-KEY")
        if secret is None or self.rules.keys.get(key) != secret:
            raise RefusedError(403, "forbidden.")
        return key

    def _count(self, key: str) -> dict[str, str]:
        """Count the request against its minute; remaining is -1 for one too many."""
        limit = self.rules.limits.rest_per_min
        minute = int(time.time()) // 60
        self._used[key, minute] += 1
        remaining = (limit or 10_000) - self._used[key, minute]
        if limit is None:
            remaining = max(0, remaining)
        return {
            "X-RateLimit-Limit": str(limit or 10_000),
            "X-RateLimit-Remaining": str(max(-1, remaining)),
            "X-RateLimit-Reset": str((minute + 1) * 60),
        }

    def _feed(self, request: web.Request) -> str:
        entitled = self.rules.entitled
        feed = request.query.get("feed") or ("sip" if "sip" in entitled else "iex")
        if feed not in FEEDS and feed != "otc":
            raise RefusedError(400, f"code=400, message=invalid feed: {feed}")
        if feed not in entitled:
            words = "recent SIP data" if feed == "sip" else f"{feed} data"
            raise RefusedError(403, f"subscription does not permit querying {words}", 42210000)
        return feed

    def _symbols(self, given: str) -> list[str]:
        """The symbols asked for: the first malformed one sinks the request, by its name."""
        symbols = [each.strip() for each in given.split(",") if each.strip()]
        if not symbols:
            raise RefusedError(400, "code=400, message=symbols is required")
        for symbol in symbols:
            bad = symbol in self.rules.faults.rest_bad_symbols
            if bad or SYMBOL.fullmatch(symbol) is None:
                raise RefusedError(400, f"code=400, message=invalid symbol: {symbol}")
        return list(dict.fromkeys(symbols))

    def _message(self, feed: str, kind: str, symbol: str, names: tuple[str, ...]) -> Message | None:
        """The latest message in REST's key order, or None."""
        faults = self.rules.faults
        if faults.rest_null or symbol in faults.rest_null_symbols:
            return None
        message = self._latest(feed, kind, symbol)
        if message is None:
            return None
        return {
            name: rfc3339(message["t"]) if name == "t" else message[name]
            for name in names
            if name in message
        }

    def _latest_of(
        self, kind: str, wrapper: str, names: tuple[str, ...]
    ) -> Callable[[web.Request], Any]:
        def answer(request: web.Request) -> dict[str, Any]:
            symbols, feed = self._symbols(request.query.get("symbols", "")), self._feed(request)
            found = {symbol: self._message(feed, kind, symbol, names) for symbol in symbols}
            return {wrapper: {symbol: one for symbol, one in found.items() if one is not None}}

        return answer

    def _single(
        self, kind: str, wrapper: str, names: tuple[str, ...]
    ) -> Callable[[web.Request], Any]:
        def answer(request: web.Request) -> dict[str, Any]:
            symbol = self._symbols(request.match_info["symbol"])[0]
            message = self._message(self._feed(request), kind, symbol, names)
            if message is None:
                raise RefusedError(404, f"no {wrapper} found for {symbol}")
            return {"symbol": symbol, wrapper: message}

        return answer

    def _snapshots(self, request: web.Request) -> Mapping[str, Any]:
        """No wrapper key; null for a symbol without data."""
        symbols, feed = self._symbols(request.query.get("symbols", "")), self._feed(request)
        return {symbol: self._parts(feed, symbol) or None for symbol in symbols}

    def _snapshot(self, request: web.Request) -> Mapping[str, Any]:
        symbol = self._symbols(request.match_info["symbol"])[0]
        parts = self._parts(self._feed(request), symbol)
        if not parts:
            raise RefusedError(404, f"no snapshot found for {symbol}")
        return {"symbol": symbol} | parts

    def _parts(self, feed: str, symbol: str) -> dict[str, Any]:
        found = {
            part: self._message(feed, kind, symbol, names)
            for part, (kind, names) in _SNAPSHOT.items()
        }
        return {part: one for part, one in found.items() if one is not None}

    def _clock(self, _request: web.Request) -> dict[str, Any]:
        """The trading API's clock: open, unless the knob says closed."""
        now = datetime.now(UTC)
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
