"""What a call of the command gave, and prices to show."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import NamedTuple

import redis

from spotd.keys import Keys
from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolCounts, SymbolState

AT = datetime(2026, 1, 20, 5, 12, tzinfo=UTC)
KEYS = Keys()


class Outcome(NamedTuple):
    """Exit code and what was written where."""

    code: int
    out: str
    err: str


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def until(condition: Callable[[], object], within_s: float = 15.0) -> None:
    """Wait for a condition, and fail when it does not come true in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def update_of(symbol: str, seq: int = 1, mid: float = 421.37) -> SpotPriceUpdate:
    """An update as the daemon would publish it."""
    return SpotPriceUpdate(
        symbol=symbol,
        bid_price=round(mid - 0.02, 6),
        ask_price=round(mid + 0.02, 6),
        mid_price=mid,
        last_price=None,
        timestamp=AT,
        seq=seq,
    )


def publish(server: redis.Redis, symbol: str, seq: int = 1) -> None:
    """What the daemon does with a price."""
    json = update_of(symbol, seq).to_json()
    server.hset(KEYS.last, symbol, json)
    server.publish(KEYS.channel(symbol), json)


def state_of(symbol: str, state: str = "live", reason: str | None = None) -> SymbolState:
    """A state as the daemon would write it."""
    return SymbolState(
        symbol=symbol,
        state=state,  # type: ignore[arg-type]
        reason=reason,
        since=AT,
        detail="more words" if reason else None,
    )


def status_of(state: str = "streaming", reason: str | None = None) -> DaemonStatus:
    """A status as the daemon would write it."""
    return DaemonStatus(
        state=state,  # type: ignore[arg-type]
        reason=reason, instance="host-1-ab", version="1.2.3", feed="iex", since=AT,
        at=AT, symbols=SymbolCounts(desired=3, live=2, refused=1), last_message_at=AT,
        lag_ms=12.5, breaker="closed", quotes_received=1234, updates_published=56, reconnects=0,
    )  # fmt: skip
