"""The web tier's messages as pydantic models, for FastAPI and for back ends that read them.

Their fields and JSON are those of ``spotd.models`` and of the relay's protocol; a test holds them
equal. What the documents say of a message of ``spotd.models`` is taken from there. Nothing of spotd
loads this module but ``spotd.relay.fastapi``. Must not talk to anything.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    WithJsonSchema,
)

from spotd import models
from spotd.json_schema import components
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


_TOLD = components(
    [models.SpotPriceUpdate, models.SymbolState, models.DaemonStatus, models.Gap],
    "#/components/schemas/{name}",
)


def _describe(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Have a schema say what that of the same message in ``spotd.models`` says."""
    told = _TOLD.get(model.__name__, {})
    schema |= {name: told[name] for name in ("description",) if name in told}
    for name, field in told.get("properties", {}).items():
        words = {key: field[key] for key in ("description", "examples") if key in field}
        schema["properties"][name] |= words


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, use_attribute_docstrings=True, json_schema_extra=_describe
    )


class SpotPriceUpdate(_Model):
    """The newest price of one symbol, in USD."""

    symbol: str
    bid_price: Price
    ask_price: Price
    mid_price: Price
    last_price: Price | None
    timestamp: UtcDatetime
    seq: int = Field(ge=0, lt=2**53)


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
    code: str | None = None
    since: UtcDatetime
    detail: str | None = None


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
    code: str | None = None
    instance: str
    version: str
    feed: str
    since: UtcDatetime
    at: UtcDatetime
    symbols: SymbolCounts
    last_message_at: UtcDatetime | None
    lag_ms: float | None
    breaker: Literal["closed", "open", "half_open"]
    quotes_received: int
    updates_published: int
    reconnects: int
    market: Literal["open", "extended", "closed"] | None = None
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
    code: str | None = None
    symbols: int


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
