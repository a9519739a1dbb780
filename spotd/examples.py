"""One example of each kind of message, as the documents show them. Must not talk to anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TypeAlias

from spotd.models import (
    DaemonStatus,
    Gap,
    SpotPriceUpdate,
    SymbolCounts,
    SymbolState,
    spot_price,
)

Message: TypeAlias = SpotPriceUpdate | SymbolState | DaemonStatus | Gap

AT = datetime(2026, 1, 20, 5, 12, tzinfo=UTC)

UPDATE = spot_price("SPY", 421.35, 421.39, 421.36, AT, 1_768_885_920_000_123)
LIVE = SymbolState(symbol="SPY", state="live", reason=None, since=AT)
STREAMING = DaemonStatus(
    state="streaming",
    reason=None,
    instance="host-4711-ab12",
    version="0.1.0",
    feed="iex",
    since=AT,
    at=AT + timedelta(seconds=3),
    symbols=SymbolCounts(desired=3, live=2, refused=1),
    last_message_at=AT + timedelta(seconds=2.9),
    lag_ms=12.5,
    breaker="closed",
    quotes_received=48_210,
    updates_published=1_290,
    reconnects=0,
    market="open",
    market_changes_at=AT + timedelta(hours=3),
)
INTERRUPTION = Gap(
    begins=AT,
    ends=AT + timedelta(seconds=4.25),
    reason="the connection to Alpaca was lost",
    code="interrupted",
    symbols=3,
)

EXAMPLES: dict[type, tuple[Message, ...]] = {
    SpotPriceUpdate: (UPDATE, spot_price("BRK.B", 478.1, 478.2, None, AT, 1_768_885_920_000_124)),
    SymbolState: (
        LIVE,
        SymbolState(
            symbol="SPY",
            state="stale",
            reason="the stream brings no prices, though REST knows newer ones",
            code="mute",
            since=AT,
        ),
        SymbolState(
            symbol="spy-usd",
            state="refused",
            reason="invalid_symbol",
            code="invalid_symbol",
            since=AT,
            detail="a symbol is 1 to 8 letters, optionally a dot and 1 to 4 more",
        ),
    ),
    DaemonStatus: (STREAMING,),
    Gap: (INTERRUPTION,),
}
