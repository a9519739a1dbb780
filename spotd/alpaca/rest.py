"""Talks to Alpaca's REST: fetches the latest quote and trade of symbols that were just subscribed.

alpaca-py's client is synchronous, has no timeout of its own and may sleep between retries. So a
request runs in a daemon thread with a socket timeout, and its caller waits no longer than a
deadline. As a consequence, a hanging server holds one thread, and neither the loop nor the
shutdown. Must not decide whether a snapshot is newer than the stream.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import requests
from alpaca.common.exceptions import APIError
from alpaca.data.enums import DataFeed
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockSnapshotRequest

from spotd.alpaca.retry_after import retry_after_s
from spotd.alpaca.threads import in_daemon_thread
from spotd.core.lag import ClockReading
from spotd.core.messages import Quote, Trade
from spotd.core.pacing import SERVER_ASKS_MOST_S
from spotd.errors import AlpacaRefusedError, SnapshotError
from spotd.settings import Settings

MAX_SYMBOLS_PER_CALL = 100
SOCKET_TIMEOUT_S = 5.0

# HTTP 400 names one bad symbol, and brings no values of the others.
_INVALID_SYMBOL = re.compile(r"invalid symbol:?\s*([^\s\"',}]+)", re.IGNORECASE)
# The digits after microseconds, which datetime cannot hold.
_NANOSECONDS = re.compile(r"(\.\d{6})\d+")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The latest quote and trade of a symbol, however old; None where Alpaca has none."""

    quote: Quote | None
    trade: Trade | None


class Snapshots:
    """REST of one feed. Each call holds a thread until it is answered or times out."""

    def __init__(self, settings: Settings, *, socket_timeout_s: float = SOCKET_TIMEOUT_S) -> None:
        api_key, secret_key = settings.credentials()
        self._client = _Client(
            api_key.get_secret_value(),
            secret_key.get_secret_value(),
            raw_data=True,
            url_override=settings.data_url,
        )
        self._client.socket_timeout_s = socket_timeout_s
        self._quiet_until = float("-inf")  # monotonic seconds: the server asked to wait
        self._host = urlsplit(settings.data_url).netloc.rpartition("@")[2]
        # REST does not know the test feed.
        self._feed = None if settings.feed == "test" else DataFeed(settings.feed)

    async def fetch(self, symbols: Sequence[str], *, deadline_s: float) -> dict[str, Snapshot]:
        """Return latest values of at most 100 symbols, without those that Alpaca does not know.

        ``deadline_s`` is how long the caller waits. Raise AlpacaRefusedError (401, 403: wrong
        keys, or the feed is not in the plan), and SnapshotError when the time is over or the
        request fails. Where the server asks to wait (Retry-After), nothing is asked until then.
        """
        if self._feed is None or not symbols:
            return {}
        if len(symbols) > MAX_SYMBOLS_PER_CALL:
            raise ValueError(f"at most {MAX_SYMBOLS_PER_CALL} symbols a call")
        wait_s = self._quiet_until - time.monotonic()
        if wait_s > 0.0:
            raise SnapshotError(
                f"no latest values: {self._host} asked to wait, for {wait_s:.0f} s more",
                after_s=wait_s,
            )
        try:
            async with asyncio.timeout(deadline_s):
                deadline = time.monotonic() + deadline_s
                return await self._in_thread(symbols, deadline)
        except TimeoutError:
            raise SnapshotError(
                f"no latest values from {self._host} within {deadline_s:g} s"
            ) from None
        except SnapshotError as error:
            if error.after_s is not None:
                self._quiet_until = time.monotonic() + error.after_s
            raise

    @property
    def clock(self) -> ClockReading | None:
        """By how much this machine's clock is ahead of REST's, by the newest answer that told."""
        return self._client.clock

    def close(self) -> None:
        """Close the connections that are kept open between calls."""
        self._client._session.close()

    async def _in_thread(self, symbols: Sequence[str], deadline: float) -> dict[str, Snapshot]:
        call = in_daemon_thread(lambda: self._get(symbols, deadline))
        try:
            return await call
        except RuntimeError as error:
            raise SnapshotError("no latest values: no thread could be started") from error

    def _get(self, symbols: Iterable[str], deadline: float) -> dict[str, Snapshot]:
        """Return the snapshots. The answer is read here in the thread: the loop would be held."""
        return {
            symbol: _snapshot(symbol, fields)
            for symbol, fields in self._ask(symbols, deadline).items()
            if isinstance(fields, dict)
        }

    def _ask(self, symbols: Iterable[str], deadline: float) -> dict[str, Any]:
        """Return REST's answer. Ask again without each symbol that is refused.

        After ``deadline``, in monotonic seconds, the caller has gone, and nothing is asked again.
        """
        wanted = list(symbols)
        while wanted and time.monotonic() < deadline:
            try:
                request = StockSnapshotRequest(symbol_or_symbols=wanted, feed=self._feed)
                return dict(self._client.get_stock_snapshot(request))
            except APIError as error:
                bad = _INVALID_SYMBOL.search(str(error))
                if error.status_code == 400 and bad and bad[1] in wanted:
                    wanted.remove(bad[1])
                    continue
                raise self._translated(error) from error
            except (requests.RequestException, json.JSONDecodeError) as error:
                # The text of requests' errors may hold the whole URL, so only their type is told.
                raise self._failed(type(error).__name__) from error
            except Exception as error:
                # alpaca-py does not check the JSON of a proxy: another type than an object,
                # nesting too deep, a number that is too long.
                raise self._failed(
                    f"the answer has another form ({type(error).__name__})"
                ) from error
        return {}

    def _failed(self, why: str, after_s: float | None = None) -> SnapshotError:
        return SnapshotError(f"no latest values from {self._host}: {why}", after_s=after_s)

    def _translated(self, error: APIError) -> AlpacaRefusedError | SnapshotError:
        status = error.status_code
        if status in (401, 403):
            return AlpacaRefusedError(
                f"Alpaca's REST ({self._host}) refused (HTTP {status}): check the keys, and that "
                "the plan includes the feed of SPOTD_FEED"
            )
        headers = {} if error.response is None else error.response.headers
        after_s = retry_after_s(headers.get("Retry-After", ""), headers.get("Date", ""))
        if after_s is not None:
            after_s = min(after_s, SERVER_ASKS_MOST_S)
        return self._failed(f"HTTP {status}", after_s)


class _Client(StockHistoricalDataClient):  # type: ignore[misc]  # alpaca-py is not typed
    """Upstream's client with a socket timeout and without its retries, between which it sleeps."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.socket_timeout_s = SOCKET_TIMEOUT_S
        self.clock: ClockReading | None = None
        self._retry = 0
        self._session.hooks["response"].append(self._read_clock)

    def _one_request(self, method: str, url: str, opts: dict[str, Any], retry: int) -> Any:
        opts = {**opts, "timeout": self.socket_timeout_s}
        return super()._one_request(method, url, opts, retry)

    def _read_clock(self, response: requests.Response, *_: object, **__: object) -> None:
        """Note the time that an answer tells, whatever else it says. Runs in the call's thread."""
        if "Age" in response.headers:  # a cache kept it, with the time at which it was made
            return
        try:
            told = parsedate_to_datetime(response.headers.get("Date", ""))
        except (TypeError, ValueError, OverflowError):
            return
        if told.tzinfo is None:
            return
        # The header has whole seconds: it is half a second old on average when it is sent.
        sent_unix_s = time.time() - response.elapsed.total_seconds() / 2
        self.clock = ClockReading(sent_unix_s - (told.timestamp() + 0.5), time.monotonic())


def _snapshot(symbol: str, fields: dict[str, Any]) -> Snapshot:
    return Snapshot(
        _read(Quote, symbol, fields.get("latestQuote"), {"bp": 0, "ap": 0}),
        _read(Trade, symbol, fields.get("latestTrade"), {}),
    )


def _read(kind: type[Quote | Trade], symbol: str, fields: object, absent: dict[str, Any]) -> Any:
    """Return a message from REST's JSON, or None where it is malformed."""
    if not isinstance(fields, dict):
        return None
    whole = {**absent, **fields, "S": symbol}
    if isinstance(whole.get("t"), str):
        whole["t"] = _NANOSECONDS.sub(r"\1", whole["t"])
    # REST's objects have no type. A key ``T`` in one must not be taken for it.
    whole["T"] = kind.__struct_config__.tag
    try:
        message = msgspec.convert(whole, kind, strict=True)
        msgspec.json.encode(message)  # fails for text that UTF-8 cannot hold, as publishing would
        return msgspec.structs.replace(message, at=message.at.astimezone(UTC))
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        return None
