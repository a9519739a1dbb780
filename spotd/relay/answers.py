"""DRIVES. Single requests: the answer to each, or ``RefusedError``, whatever framework asks.

Must not know connections. The edges (``api`` on aiohttp, ``fastapi``) read requests, ask here, and
send what they are given.
"""

from __future__ import annotations

from typing import Protocol

import msgspec

from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate
from spotd.reasons import Reason
from spotd.relay import protocol
from spotd.relay.limits import Full
from spotd.relay.protocol import SubscribeSpotPricesRequest, SubscribeSpotPricesResponse
from spotd.relay.refused import RefusedError
from spotd.relay.relay import Relay
from spotd.relay.session import refusal

_RETRY_AFTER_S = 2  # where Redis is away


class Prices(Protocol):
    """What answers ``GET /api/spot-prices``: ``spotd.client.SpotClient``."""

    async def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """Return the newest price of each. Raises RedisUnavailableError."""


class Answers:
    """What one relay answers. ``prices`` answers single requests for prices."""

    def __init__(self, relay: Relay, prices: Prices) -> None:
        self._relay = relay
        self._prices = prices

    async def spot_prices(self, symbols: str | None) -> bytes:
        """Return the JSON of the newest prices of ``symbols``, which commas separate.

        "" asks whether a client may come in. None: the query has no such parameter. Raises
        RefusedError.
        """
        wanted = self._symbols_asked(symbols)
        if not wanted and (full := self._relay.full()) is not None:
            raise _full(full)
        try:
            # Without a symbol, it would be the whole market.
            prices = await self._prices.latest(*wanted) if wanted else {}
        except RedisUnavailableError as error:
            raise _redis_away(error) from error
        # By the models, whose JSON has the microseconds that the contract wants.
        raw = {
            symbol: None if price is None else msgspec.Raw(price.to_json())
            for symbol, price in prices.items()
        }
        return msgspec.json.encode({"prices": raw})

    async def subscribe(self, entries: list[str]) -> bytes:
        """Demand what entries mean, and return the JSON of the response. Raises RefusedError."""
        symbols, refused = protocol.symbols_of(entries)
        most = self._relay.limits.symbols
        refused |= dict.fromkeys(symbols[most:], "symbol_limit")
        try:
            wanted = await self._relay.reserve(symbols[:most])
        except RedisUnavailableError as error:
            raise _redis_away(error) from error
        refused |= wanted.refused
        if not wanted.accepted:
            raise RefusedError(422, refusal(refused) or "symbols is empty", refused=refused)
        return msgspec.json.encode(
            SubscribeSpotPricesResponse(
                "success", self._words_for(wanted.accepted), wanted.accepted, refused
            )
        )

    def stream_asked(
        self, symbols: str | None, max_hz: str | None
    ) -> tuple[list[str], float | None]:
        """Return the symbols and the ``max_hz`` of an event stream. Raises RefusedError."""
        wanted = self._symbols_asked(symbols)
        if not wanted:
            raise RefusedError(422, "symbols is empty")
        try:
            return wanted, msgspec.convert(max_hz, protocol.MaxHz | None, strict=False)
        except msgspec.ValidationError as error:
            raise RefusedError(422, f"max_hz: {error}") from error

    def enter(self) -> None:
        """Let a connection in that will ``join`` the relay. Raises RefusedError."""
        full = self._relay.enter()
        if full is not None:
            raise _full(full)

    def _symbols_asked(self, text: str | None) -> list[str]:
        """Return the symbols of a query.

        Raises RefusedError for malformed symbols, for too many, and where the query has no
        parameter ``symbols``: a misspelt one would look like success without prices.
        """
        if text is None:
            raise RefusedError(400, "the query parameter symbols is missing: ?symbols=SPY,QQQ")
        symbols, refused = protocol.symbols_of(filter(None, text.split(",")))
        most = self._relay.limits.symbols
        refused |= dict.fromkeys(symbols[most:], "symbol_limit")
        if refused:
            raise RefusedError(422, refusal(refused), refused=refused)
        return symbols

    def _words_for(self, symbols: list[str]) -> str:
        number = "1 symbol" if len(symbols) == 1 else f"{len(symbols)} symbols"
        words = f"Subscribed to spot prices for {number}"
        if not self._relay.has_daemon:
            words += "; no daemon runs, prices come when one does"
        if not self._relay.demands:
            words += "; this relay demands nothing and shows what is streamed anyway"
        return words


_REQUESTS = msgspec.json.Decoder(SubscribeSpotPricesRequest)


def request_in(body: bytes) -> SubscribeSpotPricesRequest:
    """Return what the body of a POST asks for. Raises RefusedError."""
    try:
        return _REQUESTS.decode(body)
    except msgspec.ValidationError as error:
        raise RefusedError(422, str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RefusedError(400, "the body is not JSON") from error


def _full(full: Full) -> RefusedError:
    return RefusedError(503, full.message, headers={"Retry-After": str(full.retry_after_s)})


def _redis_away(error: RedisUnavailableError) -> RefusedError:
    told = Reason("redis_away", str(error)).for_clients().text
    return RefusedError(503, told, headers={"Retry-After": str(_RETRY_AFTER_S)})
