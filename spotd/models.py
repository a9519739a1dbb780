"""The messages of the wire contract, version 1, with their JSON; each field is defined once.

Fields may be added and never renamed. Decoding ignores unknown fields, so that an older client
can read a newer daemon. What the documents say of a message and of its fields stands here alone:
docstrings and ``told`` become the JSON Schemas (``spotd.json_schema``). Must not talk to anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from spotd.reasons import MEANINGS

DaemonStateName = Literal[
    "starting", "standby", "idle", "connecting", "streaming", "waiting", "stopping"
]
SymbolStateName = Literal["pending", "live", "stale", "halted", "ended", "refused"]
RefusalReason = Literal[
    "invalid_symbol", "symbol_limit", "wildcard_not_allowed", "refused_by_alpaca"
]
BreakerStateName = Literal["closed", "open", "half_open"]
MarketName = Literal["open", "extended", "closed"]
SYMBOL_PATTERN = r"[A-Z]{1,8}(\.[A-Z]{1,4})?"  # Alpaca's own form, e.g. SPY or BRK.B
MAX_ENTRY_CHARS = 64  # of an entry that is no symbol, as it is told
MAX_SEQ = 2**53 - 1  # the largest integer that JavaScript keeps exactly
T = TypeVar("T")


def told(description: str, *examples: object, **rules: object) -> msgspec.Meta:
    """Return what the documents say of a field: words, examples, and keywords of JSON Schema.

    Decoding is as before: a reader does not refuse what breaks these rules.
    """
    return msgspec.Meta(
        description=description, examples=list(examples) or None, extra_json_schema=rules or None
    )


def whole(pattern: str) -> dict[str, object]:
    """Return keywords of JSON Schema: a text is this pattern, from its begin to its end.

    In Python ``$`` matches before a line feed at the end too, so a line feed is refused beside it.
    JavaScript knows no ``\\Z``, and the engines of Go and of Rust know no lookahead.
    """
    return {"pattern": f"^{pattern}$", "not": {"pattern": r"\n"}}


# A time without a zone is refused, since it cannot be compared with any other time.
Moment = Annotated[
    datetime,
    msgspec.Meta(
        tz=True,
        extra_json_schema=whole(
            "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{6}Z"
        ),
    ),
]
Symbol = Annotated[str, told("Upper case.", "SPY", "BRK.B", **whole(SYMBOL_PATTERN))]
Count = Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})]
ReasonCode = Annotated[
    str,
    msgspec.Meta(
        title="ReasonCode",
        description="The word for programs that stands beside each reason. Codes may be added, "
        "so a reader has to expect others.",
        extra_json_schema={
            "anyOf": [
                *(
                    {"const": code, "description": known.meaning}
                    for code, known in MEANINGS.items()
                ),
                whole("[a-z][a-z0-9_]*") | {"description": "A code of a newer spotd."},
            ]
        },
    ),
]
CodeOrNone = Annotated[ReasonCode | None, told("The code of `reason`; null without one.")]


def _none() -> None:
    return None


class SpotPriceUpdate(msgspec.Struct, frozen=True, gc=False):
    """The newest price of one symbol. Prices are in USD.

    Crossed and locked quotes are published as received.
    """

    symbol: Symbol
    bid_price: Annotated[float, told("USD, finite.", 421.35, exclusiveMinimum=0)]
    ask_price: Annotated[float, told("USD, finite.", 421.39, exclusiveMinimum=0)]
    mid_price: Annotated[
        float, told("USD: the mean of bid and ask, rounded to 6 decimals.", 421.37, minimum=0)
    ]
    last_price: Annotated[
        float | None,
        told(
            "USD: the newest trade that sets the last sale; null until one is known.",
            *(421.36, None),
            exclusiveMinimum=0,
        ),
    ]
    timestamp: Annotated[
        Moment,
        told(
            "The exchange time of the newest quote or trade that the update reflects: UTC, with "
            "microseconds.",
            "2026-01-20T05:12:00.000000Z",
        ),
    ]
    seq: Annotated[
        int,
        told(
            "It rises strictly per symbol, over restarts and fail-over too. A reader drops an "
            "update whose seq is not higher than the one it holds.",
            1768885920000123,
            minimum=0,
            maximum=MAX_SEQ,
        ),
    ]

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

    States count only while a daemon writes its status. ``ended`` is announced and never stored.
    """

    symbol: Annotated[
        str,
        told(
            "Upper case; of a refused entry, the entry as it was written, cut at 64 characters.",
            *("SPY", "BRK.B", "spy-usd"),
            maxLength=MAX_ENTRY_CHARS,
        ),
    ]
    state: Annotated[
        SymbolStateName,
        told(
            "`pending`: desired, not yet acknowledged by Alpaca. "
            "`live`: acknowledged, and the stream is delivering. "
            "`stale`: the last price is suspect. "
            "`halted`: trading in it is halted. "
            "`ended`: nobody wants it any more, its fields are gone. "
            "`refused`: not subscribed."
        ),
    ]
    reason: Annotated[
        str | None,
        told(
            "A sentence for a person. Of `refused`, one of `invalid_symbol`, `symbol_limit`, "
            "`wildcard_not_allowed`, `refused_by_alpaca`."
        ),
    ]
    # A default made by a factory is encoded too, so every state that spotd writes has the field.
    code: CodeOrNone = msgspec.field(default_factory=_none)
    since: Annotated[Moment, told("When the state began, UTC.")]
    detail: Annotated[str | None, told("More words for a person.")] = None

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as on ``spotd:events`` and in ``spotd:states``."""
        # When the stream is lost, thousands are encoded at once. msgspec alone writes the same,
        # but for microseconds that are zero, which it leaves out, and for times in other zones.
        plain = self.since.microsecond and self.since.tzinfo is UTC
        return _JSON.encode(self) if plain else _encoded(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> SymbolState:
        """Return the state in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_STATE_DECODER, raw)


class SymbolCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The number of desired symbols, and the number in each state."""

    desired: Count = 0
    live: Count = 0
    refused: Annotated[
        Count, told("All refused entries, also those that are not among the stored states.")
    ] = 0
    pending: Count = 0
    stale: Count = 0
    halted: Count = 0


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="daemon"):
    """The state of the daemon."""

    state: Annotated[
        DaemonStateName,
        told(
            "`starting`: Redis has not answered yet. "
            "`standby`: another daemon leads, or Redis does not answer. "
            "`idle`: leader, nothing desired. "
            "`connecting`: leader, reading the demand, opening the stream, or subscribing. "
            "`streaming`: connected and subscribed. "
            "`waiting`: the next try is timed, or Redis does not answer. "
            "`stopping`: shutting down."
        ),
    ]
    reason: Annotated[str | None, told("A sentence for a person. It never holds a secret.")]
    code: CodeOrNone = None
    instance: Annotated[str, told("Host, process id and a random word.", "host-4711-ab12")]
    version: Annotated[str, told("That of spotd.", "0.1.0")]
    feed: Annotated[str, told("Alpaca's feed.", "iex", "sip")]
    since: Annotated[Moment, told("When the state began, UTC.")]
    at: Annotated[Moment, told("When this was written, UTC.")]
    symbols: SymbolCounts
    last_message_at: Annotated[
        Moment | None, told("When data of Alpaca came last, UTC; null before any.")
    ]
    lag_ms: Annotated[
        float | None,
        told(
            "Milliseconds from exchange time to arrival: the median of the quotes of the last ten "
            "seconds; null without any. Negative where the machine's clock is late.",
            12.5,
        ),
    ]
    breaker: Annotated[BreakerStateName, told("The circuit breaker around the stream.")]
    quotes_received: Annotated[Count, told("Since the daemon's start.")]
    updates_published: Annotated[Count, told("Since the daemon's start.")]
    reconnects: Annotated[Count, told("Since the daemon's start.")]
    market: Annotated[
        MarketName | None, told("By the feed's exchange calendar; null where it is not known.")
    ] = None
    market_changes_at: Annotated[
        Moment | None, told("The next change of `market`, UTC; null where it is not known.")
    ] = None
    gaps: Annotated[
        tuple[Gap, ...],
        told("The newest gaps that this daemon stated since it started, the oldest first."),
    ] = ()

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as in ``spotd:status``, on ``spotd:events`` and from ``GET /status``."""
        return _encoded(self)

    @classmethod
    def from_json(cls, raw: bytes | str) -> DaemonStatus:
        """Return the status in ``raw``. Raise msgspec.DecodeError if ``raw`` is no such JSON."""
        return _decoded(_STATUS_DECODER, raw)


class Gap(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="gap"):
    """No prices came between two times. It is told once, after the interruption."""

    begins: Annotated[Moment, told("UTC.")] = msgspec.field(name="from")
    ends: Annotated[Moment, told("UTC.")] = msgspec.field(name="to")
    reason: Annotated[str, told("A sentence for a person.")]
    code: CodeOrNone = None
    symbols: Annotated[Count, told("The number of symbols that it concerns.")]

    def to_dict(self) -> dict[str, object]:
        """Return the fields of the JSON by their names, with times as datetimes."""
        return _to_dict(self)

    def to_json(self) -> bytes:
        """Return JSON as on ``spotd:events``."""
        return _encoded(self)

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


def _encoded(value: SymbolState | DaemonStatus | Gap) -> bytes:
    """Return JSON whose times are in UTC with six digits of microseconds."""
    fields: dict[str, Any] = _to_dict(value)
    for each in (fields, *fields.get("gaps", ())):
        for name, field in each.items():
            if isinstance(field, datetime):
                each[name] = rfc3339(field)
    return _JSON.encode(fields)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes | str) -> T:
    """Return what ``raw`` holds. Raise msgspec.DecodeError for anything that is wrong with it."""
    try:
        return decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(f"not JSON: {type(error).__name__}") from error


_JSON = msgspec.json.Encoder()
_MICROSECONDS = attrgetter("timestamp.microsecond")
_UPDATE_DECODER = msgspec.json.Decoder(SpotPriceUpdate)
_STATE_DECODER = msgspec.json.Decoder(SymbolState)
_STATUS_DECODER = msgspec.json.Decoder(DaemonStatus)
_GAP_DECODER = msgspec.json.Decoder(Gap)
