"""The web tier's messages as pydantic models, for FastAPI and for back ends that read them.

Their fields and JSON are those of ``spotd.models`` and of the relay's protocol; a test holds them
equal. Nothing of spotd loads this module but ``spotd.relay.fastapi``. Must not talk to anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from spotd.models import rfc3339


def _in_utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)


Price: TypeAlias = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""USD, finite and greater than 0."""

UtcDatetime: TypeAlias = Annotated[
    AwareDatetime,
    AfterValidator(_in_utc),
    PlainSerializer(rfc3339, str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A time in UTC; in JSON RFC 3339 with microseconds and ``Z``. One without a zone is refused."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class SpotPriceUpdate(_Model):
    """The newest price of one symbol, in USD."""

    symbol: str
    """Upper case."""
    bid_price: Price
    ask_price: Price
    mid_price: Price
    """The mean of bid and ask, rounded to 6 decimals."""
    last_price: Price | None
    """The newest trade that sets the last sale; null until one is known."""
    timestamp: UtcDatetime
    """The exchange time of the newest quote or trade that the update reflects."""
    seq: int = Field(ge=0, lt=2**53)
    """It rises strictly per symbol."""


class SpotPriceUpdateMessage(_Model):
    """A price as websockets and event streams carry it. ``timestamp``: when the relay heard it."""

    type: Literal["spot_price_update"]
    update: SpotPriceUpdate
    timestamp: UtcDatetime


class SymbolState(_Model):
    """How far the price of a symbol can be trusted."""

    type: Literal["symbol"]
    symbol: str
    state: Literal["pending", "live", "stale", "halted", "ended", "refused"]
    reason: str | None
    """For a person."""
    code: str | None = None
    """That of the reason, for programs; codes may be added."""
    since: UtcDatetime
    detail: str | None = None
    """More words for a person."""


class SymbolCounts(_Model):
    """The number of desired symbols, and the number in each state."""

    desired: int = 0
    live: int = 0
    refused: int = 0
    pending: int = 0
    stale: int = 0
    halted: int = 0


class DaemonStatus(_Model):
    """The state of the daemon."""

    type: Literal["daemon"]
    state: Literal["starting", "standby", "idle", "connecting", "streaming", "waiting", "stopping"]
    reason: str | None
    """For a person."""
    code: str | None = None
    """That of the reason, for programs; codes may be added."""
    instance: str
    version: str
    feed: str
    since: UtcDatetime
    at: UtcDatetime
    symbols: SymbolCounts
    last_message_at: UtcDatetime | None
    lag_ms: float | None
    """From exchange time to received, over the last seconds."""
    breaker: Literal["closed", "open", "half_open"]
    quotes_received: int
    updates_published: int
    reconnects: int
    market: Literal["open", "extended", "closed"] | None = None
    """By the feed's exchange calendar; null where it is not known."""
    market_changes_at: UtcDatetime | None = None
    gaps: tuple[Gap, ...] = ()
    """The newest gaps that this daemon stated since it started, the oldest first."""


class Gap(_Model):
    """No prices came between two times. It is told once."""

    model_config = ConfigDict(validate_by_name=True, serialize_by_alias=True)

    type: Literal["gap"]
    begins: UtcDatetime = Field(alias="from")
    ends: UtcDatetime = Field(alias="to")
    reason: str
    """For a person."""
    code: str | None = None
    """That of the reason, for programs; codes may be added."""
    symbols: int
    """How many symbols it concerns."""


class SubscribeSpotPricesRequest(_Model):
    """Body of ``POST /api/positions/subscribe-spot-prices``."""

    symbols: list[str]


class SubscribeSpotPricesResponse(_Model):
    """Its answer, and that of every request that fails."""

    status: Literal["success", "error"]
    message: str
    symbols: list[str]
    refused: dict[str, str]
    """Entries that are not streamed, each with the reason."""


class SpotPricesResponse(_Model):
    """Answer of ``GET /api/spot-prices``: the newest price of each symbol, null without one."""

    prices: dict[str, SpotPriceUpdate | None]
