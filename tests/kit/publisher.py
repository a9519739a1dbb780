"""A daemon's part in Redis without a daemon: prices, states and a status, by the contract."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import redis

from spotd.keys import Keys
from spotd.models import (
    DaemonStateName,
    DaemonStatus,
    Gap,
    SpotPriceUpdate,
    SymbolCounts,
    SymbolState,
    SymbolStateName,
    spot_price,
)
from tests.kit.values import Values

AT = datetime(2026, 1, 20, 5, 12, tzinfo=UTC)
KEYS = Keys()

Call: TypeAlias = tuple[str, str, str | bytes, bytes] | tuple[str, str, bytes]


def update_of(symbol: str, seq: int = 1, bid: float = 421.35) -> SpotPriceUpdate:
    """Return an update of ``AT``, with an ask of 0.04 USD above the bid."""
    return spot_price(symbol, bid, round(bid + 0.04, 6), None, AT, seq)


def state_of(
    symbol: str, state: SymbolStateName = "live", reason: str | None = None
) -> SymbolState:
    """Return a state since ``AT``, with a code and some detail where there is a reason."""
    detail = "more words" if reason else None
    return SymbolState(
        symbol=symbol, state=state, reason=reason, code=reason, since=AT, detail=detail
    )


def gap_of(code: str = "interrupted", symbols: int = 3) -> Gap:
    """Return a gap of a second until ``AT``."""
    begins = AT - timedelta(seconds=1)
    return Gap(begins=begins, ends=AT, reason="more words", code=code, symbols=symbols)


def status_of(state: DaemonStateName = "streaming", reason: str | None = None) -> DaemonStatus:
    """Return the status of a daemon as of ``AT``."""
    return DaemonStatus(
        state=state, reason=reason, instance="host-1-ab", version="1.2.3", feed="iex", since=AT,
        at=AT, symbols=SymbolCounts(desired=3, live=2, refused=1), last_message_at=AT,
        lag_ms=12.5, breaker="closed", quotes_received=1234, updates_published=56, reconnects=0,
    )  # fmt: skip


def write_status(server: redis.Redis, status: DaemonStatus, keys: Keys = KEYS) -> None:
    """Write the status of a daemon that leads."""
    server.set(keys.leader, f"{status.instance}:1")
    server.set(keys.status, status.to_json())


def price_calls(symbol: str, *seqs: int, keys: Keys = KEYS) -> Iterator[Call]:
    """Yield the calls to Redis that publish updates of one symbol."""
    for seq in seqs or (1,):
        json = update_of(symbol, seq).to_json()
        yield "HSET", keys.last, symbol, json
        yield "PUBLISH", keys.channel(symbol), json


def state_calls(state: SymbolState, *, keys: Keys = KEYS) -> Iterator[Call]:
    """Yield the calls to Redis that write and announce the state of one symbol."""
    json = state.to_json()
    yield "HSET", keys.states, state.symbol, json
    yield "PUBLISH", keys.events, json


def publish(server: redis.Redis, symbol: str, *seqs: int) -> None:
    """Publish updates of one symbol, blocking this thread."""
    for call in price_calls(symbol, *seqs):
        server.execute_command(*call)  # type: ignore[no-untyped-call]


class Publisher(Values):
    """The publishing side on an event loop."""

    async def publish(self, symbol: str, *seqs: int) -> None:
        """Publish updates of one symbol, all in one round trip."""
        await self._execute(price_calls(symbol, *seqs, keys=self.keys))

    async def write_status(self, status: DaemonStatus) -> None:
        """Write the status of a daemon that leads."""
        await self.redis.set(self.keys.leader, f"{status.instance}:1")
        await self.redis.set(self.keys.status, status.to_json())

    async def announce(self, symbol: str, state: SymbolStateName) -> None:
        """Write and announce the state of one symbol."""
        await self._execute(state_calls(state_of(symbol, state), keys=self.keys))

    async def announce_gap(self, gap: Gap) -> None:
        """Announce a gap."""
        await self.redis.publish(self.keys.events, gap.to_json())

    async def _execute(self, calls: Iterator[Any]) -> None:
        async with self.redis.pipeline(transaction=False) as batch:
            for call in calls:
                batch.execute_command(*call)
            await batch.execute()
