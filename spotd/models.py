"""What spotd says to the world, each field defined once, with its JSON.

The shapes are the wire contract, version 1: anything may be added, nothing renamed. Decoding
ignores unknown fields, so an older client reads a newer daemon.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Literal, TypeVar

import msgspec

DaemonStateName = Literal[
    "starting", "standby", "idle", "connecting", "streaming", "waiting", "stopping"
]
SymbolStateName = Literal["pending", "live", "stale", "halted", "refused"]
RefusalReason = Literal[
    "invalid_symbol", "symbol_limit", "wildcard_not_allowed", "refused_by_alpaca"
]
BreakerStateName = Literal["closed", "open", "half_open"]
# A time without a zone is refused: it could not be compared with any other.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
T = TypeVar("T")


class SpotPriceUpdate(msgspec.Struct, frozen=True, gc=False):
    """The newest price of one symbol. Prices are USD.

    ``bid_price`` and ``ask_price`` are positive and finite (crossed and locked quotes pass as
    received); ``mid_price`` is their mean, rounded to 6 decimals; ``last_price`` is the newest
    trade that sets the last sale, None until one is known; ``timestamp`` is the exchange time
    (UTC) of the newest quote or trade that the update reflects; ``seq`` rises strictly per
    symbol, over restarts and fail-over too.
    """

    symbol: str
    bid_price: float
    ask_price: float
    mid_price: float
    last_price: float | None
    timestamp: Moment
    seq: int

    def to_json(self) -> bytes:
        """The bytes that spotd publishes for this update."""
        same = spot_price(
            self.symbol,
            self.bid_price,
            self.ask_price,
            self.last_price,
            self.timestamp,
            self.seq,
        )
        return encode_updates((same,))[:-1]

    @classmethod
    def from_json(cls, raw: bytes | str) -> SpotPriceUpdate:
        """Decode one message. Raises msgspec.DecodeError where it is not such an update."""
        return _decoded(_UPDATE_DECODER, raw)


def spot_price(
    symbol: str,
    bid_price: float,
    ask_price: float,
    last_price: float | None,
    timestamp: datetime,
    seq: int,
) -> SpotPriceUpdate:
    """An update with its mid price; ``timestamp`` has a zone, of whatever offset."""
    if timestamp.tzinfo is not UTC:
        timestamp = timestamp.astimezone(UTC)
    mid_price = round((bid_price + ask_price) / 2, 6)
    return SpotPriceUpdate(symbol, bid_price, ask_price, mid_price, last_price, timestamp, seq)


def encode_updates(updates: Sequence[SpotPriceUpdate]) -> bytes:
    """The JSON of each update, its timestamp in UTC, and a line feed behind each.

    The publishing side's hot path. msgspec leaves out microseconds that are zero, the contract
    does not: those, one in a million, get their digits put back.
    """
    lines = _JSON.encode_lines(updates)
    if all(map(_MICROSECONDS, updates)):
        return lines
    return b"".join(map(_with_microseconds, lines.splitlines(keepends=True)))


def _with_microseconds(line: bytes) -> bytes:
    head, end, tail = line.rpartition(b'Z"')
    return line if head[-7:-6] == b"." else head + b".000000" + end + tail


class SymbolState(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="symbol", omit_defaults=True
):
    """How one symbol, or one refused entry of the demand, stands.

    ``reason`` is set for ``refused`` (one of RefusalReason) and may say why for ``stale``;
    ``detail`` says more, for a person.
    """

    symbol: str
    state: SymbolStateName
    reason: str | None
    since: Moment
    detail: str | None = None

    def to_json(self) -> bytes:
        """JSON as on ``spotd:events`` and in ``spotd:states``."""
        # Thousands at once when the stream is lost: the slower way only where a zero is missing.
        return _JSON.encode(self) if self.since.microsecond else _ENCODER.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> SymbolState:
        """Decode. Raises msgspec.DecodeError where it is not such a state."""
        return _decoded(_STATE_DECODER, raw)


class SymbolCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many symbols are desired, and how many of those stand in which state.

    ``refused`` counts all refused entries, also those that ``spotd:states`` has no room for.
    """

    desired: int = 0
    live: int = 0
    refused: int = 0
    pending: int = 0
    stale: int = 0
    halted: int = 0


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="daemon"):
    """How the daemon stands. Times are UTC, ``lag_ms`` is exchange time to received."""

    state: DaemonStateName
    reason: str | None
    instance: str
    version: str
    feed: str
    since: Moment
    at: Moment
    symbols: SymbolCounts
    last_message_at: Moment | None
    lag_ms: float | None
    breaker: BreakerStateName
    quotes_received: int
    updates_published: int
    reconnects: int

    def to_json(self) -> bytes:
        """JSON as in ``spotd:status``, on ``spotd:events`` and from ``GET /status``."""
        return _ENCODER.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> DaemonStatus:
        """Decode. Raises msgspec.DecodeError where it is not such a status."""
        return _decoded(_STATUS_DECODER, raw)


def utc(unix_s: float) -> datetime:
    """A wall-clock time, in unix seconds, as the models carry it."""
    return datetime.fromtimestamp(unix_s, UTC)


def rfc3339(moment: datetime) -> str:
    """RFC 3339 in UTC with microseconds and ``Z``, as all JSON of spotd writes times."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


class _Encoder:
    """JSON with fixed microseconds; ``detail`` is left out where there is none."""

    def encode(self, value: SymbolState | DaemonStatus) -> bytes:
        fields = msgspec.to_builtins(value, builtin_types=(datetime,))
        if fields.get("detail", "") is None:
            del fields["detail"]
        for name, field in fields.items():
            if isinstance(field, datetime):
                fields[name] = rfc3339(field)
        return msgspec.json.encode(fields)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | str) -> T:
    """Decode, with one error for all that may be wrong with foreign bytes."""
    try:
        return decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not JSON: {type(error).__name__}") from error


_JSON = msgspec.json.Encoder()
_MICROSECONDS = attrgetter("timestamp.microsecond")
_ENCODER = _Encoder()
_UPDATE_DECODER = msgspec.json.Decoder(SpotPriceUpdate)
_STATE_DECODER = msgspec.json.Decoder(SymbolState)
_STATUS_DECODER = msgspec.json.Decoder(DaemonStatus)
