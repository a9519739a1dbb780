"""What 0.1 reads: the shapes of its messages, as its client and its daemon decoded them.

Frozen. Every field that stands here is there, with this type, in what any later release writes.
0.1 counted a message that does not decode as malformed, and went on.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

import msgspec

Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class SpotPriceUpdate(msgspec.Struct, frozen=True):
    """A message of ``spot:SPY``, and a field of ``spotd:last``."""

    symbol: str
    bid_price: float
    ask_price: float
    mid_price: float
    last_price: float | None
    timestamp: Moment
    seq: int


class SymbolState(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="symbol"):
    """A field of ``spotd:states``, and a message of ``spotd:events``."""

    symbol: str
    state: Literal["pending", "live", "stale", "halted", "refused"]
    reason: str | None
    since: Moment
    detail: str | None = None


class SymbolCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The counts of a status."""

    desired: int
    live: int
    refused: int
    pending: int
    stale: int
    halted: int


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="daemon"):
    """The value of ``spotd:status``, and a message of ``spotd:events``."""

    state: Literal["starting", "standby", "idle", "connecting", "streaming", "waiting", "stopping"]
    reason: str | None
    instance: str
    version: str
    feed: str
    since: Moment
    at: Moment
    symbols: SymbolCounts
    last_message_at: Moment | None
    lag_ms: float | None
    breaker: Literal["closed", "open", "half_open"]
    quotes_received: int
    updates_published: int
    reconnects: int


REFUSALS = {"invalid_symbol", "symbol_limit", "wildcard_not_allowed", "refused_by_alpaca"}

read_update = msgspec.json.Decoder(SpotPriceUpdate).decode
read_state = msgspec.json.Decoder(SymbolState).decode
read_status = msgspec.json.Decoder(DaemonStatus).decode
read_event = msgspec.json.Decoder(SymbolState | DaemonStatus).decode
