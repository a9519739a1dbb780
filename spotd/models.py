"""The messages of the wire contract, version 1, with their JSON; each field is defined once.

Fields may be added and never renamed. Decoding ignores unknown fields, so that an older client
can read a newer daemon. Must not talk to anything.
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
SymbolStateName = Literal["pending", "live", "stale", "halted", "ended", "refused"]
RefusalReason = Literal[
    "invalid_symbol", "symbol_limit", "wildcard_not_allowed", "refused_by_alpaca"
]
BreakerStateName = Literal["closed", "open", "half_open"]
MarketName = Literal["open", "extended", "closed"]
# A time without a zone is refused, since it cannot be compared with any other time.
Moment = Annotated[datetime, msgspec.Meta(tz=True)]
T = TypeVar("T")


def _none() -> None:
    return None


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

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with ``timestamp`` as a datetime."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return the bytes that spotd publishes for this update."""
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
        """Return the update in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_UPDATE_DECODER, raw)


def spot_price(
    symbol: str,
    bid_price: float,
    ask_price: float,
    last_price: float | None,
    timestamp: datetime,
    seq: int,
) -> SpotPriceUpdate:
    """Return an update with its mid price. ``timestamp`` must have a zone, of any offset."""
    if timestamp.tzinfo is not UTC:
        timestamp = timestamp.astimezone(UTC)
    mid_price = round((bid_price + ask_price) / 2, 6)
    return SpotPriceUpdate(symbol, bid_price, ask_price, mid_price, last_price, timestamp, seq)


def encode_updates(updates: Sequence[SpotPriceUpdate]) -> bytes:
    """Return the JSON of each update, with its timestamp in UTC, and a line feed behind each.

    This is the hot path of publishing. msgspec leaves out microseconds that are zero, and the
    contract does not. As a consequence, one update in a million takes the slower way below.
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
    """The state of one symbol, or of one refused entry of the demand.

    ``reason`` is set for ``refused`` (one of RefusalReason) and ``stale``, and for ``live`` before
    the first quote. ``code`` is its code, one of ``spotd.reasons`` or a newer one; None without a
    reason, and from a daemon that writes none. ``detail`` says more, for a person. ``ended`` is
    announced and never stored.
    """

    symbol: str
    state: SymbolStateName
    reason: str | None
    # A default made by a factory is encoded too, so every state that spotd writes has the field.
    code: str | None = msgspec.field(default_factory=_none)
    since: Moment
    detail: str | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as on ``spotd:events`` and in ``spotd:states``."""
        # When the stream is lost, thousands are encoded at once. The slower encoder is needed only
        # where msgspec would leave out microseconds that are zero.
        return _JSON.encode(self) if self.since.microsecond else _ENCODER.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> SymbolState:
        """Return the state in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_STATE_DECODER, raw)


class SymbolCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The number of desired symbols, and the number in each state.

    ``refused`` counts all refused entries, also those that are not in ``spotd:states``.
    """

    desired: int = 0
    live: int = 0
    refused: int = 0
    pending: int = 0
    stale: int = 0
    halted: int = 0


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="daemon"):
    """The state of the daemon. Times are UTC, ``lag_ms`` is from exchange time to received.

    ``code`` is that of ``reason``, one of ``spotd.reasons`` or a newer one. ``market`` is by the
    feed's exchange calendar, ``market_changes_at`` its next change; None where it is not known.
    """

    state: DaemonStateName
    reason: str | None
    code: str | None = None
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
    market: MarketName | None = None
    market_changes_at: Moment | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as in ``spotd:status``, on ``spotd:events`` and from ``GET /status``."""
        return _ENCODER.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> DaemonStatus:
        """Return the status in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_STATUS_DECODER, raw)


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap"):
    """No prices came between two times, which are UTC.

    ``symbols`` is the number of symbols that it concerns. ``code`` is that of ``reason``, one of
    ``spotd.reasons`` or a newer one.
    """

    begins: Moment = msgspec.field(name="from")
    ends: Moment = msgspec.field(name="to")
    reason: str
    code: str | None = msgspec.field(default_factory=_none)
    symbols: int

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as on ``spotd:events``."""
        return _ENCODER.encode(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> Gap:
        """Return the gap in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_GAP_DECODER, raw)


def utc(unix_s: float) -> datetime:
    """Return a wall-clock time in unix seconds as a datetime in UTC."""
    return datetime.fromtimestamp(unix_s, UTC)


def rfc3339(moment: datetime) -> str:
    """Return a time as RFC 3339 in UTC with microseconds and ``Z``, as in all JSON of spotd."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds")[:26] + "Z"


def _to_dict(value: msgspec.Struct) -> dict[str, object]:
    fields: dict[str, object] = msgspec.to_builtins(value, builtin_types=(datetime,))
    return fields


class _Encoder:
    """Encodes JSON with six digits of microseconds, and without a ``detail`` that is None."""

    def encode(self, value: SymbolState | DaemonStatus | Gap) -> bytes:
        fields = msgspec.to_builtins(value, builtin_types=(datetime,))
        if fields.get("detail", "") is None:
            del fields["detail"]
        for name, field in fields.items():
            if isinstance(field, datetime):
                fields[name] = rfc3339(field)
        return msgspec.json.encode(fields)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | str) -> T:
    """Return what ``raw`` holds. Raise msgspec.DecodeError for anything that is wrong with it."""
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
_GAP_DECODER = msgspec.json.Decoder(Gap)
