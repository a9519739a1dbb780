"""Alpaca's stream messages, as far as spotd reads them. Decides nothing.

Each struct names exactly the fields in use: msgspec skips the others without building them. The
one-letter wire names are in Alpaca's documentation of real-time stock pricing data. ``at`` is
exchange time with its zone, rounded from nanoseconds to microseconds.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import field

_Time = Annotated[datetime, msgspec.Meta(tz=True)]


class Quote(msgspec.Struct, frozen=True, gc=False, tag_field="T", tag="q"):
    """A best bid and offer, USD. A side that nobody quotes has price 0."""

    symbol: str = field(name="S")
    bid: float = field(name="bp")
    ask: float = field(name="ap")
    at: _Time = field(name="t")


class Trade(msgspec.Struct, frozen=True, gc=False, tag_field="T", tag="t"):
    """A trade, USD, with the conditions and the tape that say whether it sets the last sale."""

    symbol: str = field(name="S")
    price: float = field(name="p")
    at: _Time = field(name="t")
    conditions: tuple[str, ...] = field(name="c", default=())
    tape: str = field(name="z", default="")
    id: int | None = field(name="i", default=None)
    exchange: str = field(name="x", default="")


class TradingStatus(msgspec.Struct, frozen=True, gc=False, tag_field="T", tag="s"):
    """A halt, a resumption, or another change of how a symbol trades."""

    symbol: str = field(name="S")
    code: str = field(name="sc")
    tape: str = field(name="z", default="")
    at: _Time | None = field(name="t", default=None)


class Correction(msgspec.Struct, frozen=True, gc=False, tag_field="T", tag="c"):
    """A trade was corrected. Alpaca sends this to all who subscribe to trades.

    ``id`` names the trade as it was; the other fields are those of the corrected trade. Whether
    ``at`` is the time of the trade or of the correction is not documented.
    """

    symbol: str = field(name="S")
    id: int | None = field(name="oi", default=None)
    price: float = field(name="cp", default=0.0)
    exchange: str = field(name="x", default="")
    conditions: tuple[str, ...] = field(name="cc", default=())
    tape: str = field(name="z", default="")
    corrected_id: int | None = field(name="ci", default=None)
    at: _Time | None = field(name="t", default=None)


class Cancel(msgspec.Struct, frozen=True, gc=False, tag_field="T", tag="x"):
    """A trade was cancelled or was an error. Alpaca sends this to all who subscribe to trades.

    Whether ``at`` is the time of the trade or of its cancellation is not documented.
    """

    symbol: str = field(name="S")
    id: int | None = field(name="i", default=None)
    exchange: str = field(name="x", default="")
    at: _Time | None = field(name="t", default=None)


class Success(msgspec.Struct, frozen=True, tag_field="T", tag="success"):
    """``connected`` or ``authenticated``."""

    msg: str


class Error(msgspec.Struct, frozen=True, tag_field="T", tag="error"):
    """A refusal. Alpaca's documentation has a table of the codes."""

    code: int
    msg: str = ""


class Acknowledgement(msgspec.Struct, frozen=True, tag_field="T", tag="subscription"):
    """The whole list of what this connection is subscribed to."""

    quotes: list[str] = []
    trades: list[str] = []
    statuses: list[str] = []


DataMessage = Quote | Trade | TradingStatus | Correction | Cancel
Control = Success | Error | Acknowledgement
Message = DataMessage | Control
