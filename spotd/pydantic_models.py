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
