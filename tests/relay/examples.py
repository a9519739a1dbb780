"""Updates, states and status as spotd writes them, for tests of the web tier."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from spotd.models import DaemonStatus, SpotPriceUpdate, SymbolCounts, SymbolState, spot_price
from spotd.relay.settings import RelaySettings

NOON = datetime(2026, 1, 20, 12, 0, tzinfo=UTC)


def price(symbol: str, seq: int, bid: float = 421.35) -> SpotPriceUpdate:
    """Return an update of a symbol."""
    return spot_price(symbol, bid, bid + 0.04, None, NOON, seq)


def state(symbol: str, name: str = "live") -> SymbolState:
    """Return a state of a symbol."""
    return SymbolState(symbol=symbol, state=name, reason=None, since=NOON)  # type: ignore[arg-type]


def status(feed: str = "iex") -> DaemonStatus:
    """Return the status of a daemon that streams."""
    return DaemonStatus(
        state="streaming",
        reason=None,
        instance="host-1-ab12",
        version="0.1.0",
        feed=feed,
        since=NOON,
        at=NOON,
        symbols=SymbolCounts(desired=1, live=1),
        last_message_at=NOON,
        lag_ms=1.5,
        breaker="closed",
        quotes_received=1,
        updates_published=1,
        reconnects=0,
    )


def settings_of(**fields: Any) -> RelaySettings:
    """Return the defaults but for these fields; ``relay_token`` as text."""
    if "relay_token" in fields:
        fields["relay_token"] = SecretStr(fields["relay_token"])
    return RelaySettings(**fields)
