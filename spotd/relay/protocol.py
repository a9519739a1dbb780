"""Decides what the messages between relay and client mean, in both directions.

Section 8 of the contract. A client's message becomes an action, or a ``Problem`` that is told to
the client. Must not know connections.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, cast

import msgspec
from msgspec.structs import replace

from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState, told, utc
from spotd.reasons import Code, Reason
from spotd.relay.limits import Limits
from spotd.relay.messages import (
    DaemonAbsent,
    Error,
    Hello,
    HelloLimits,
    Pong,
    RefusedEntries,
    RelayState,
)
from spotd.symbols import Refusal, as_written, symbol_of

VERSION = 1
MaxHz = Annotated[
    float,
    msgspec.Meta(
        ge=0.01,
        le=1000,
        description="At most this many updates a second of each symbol that is asked for. The "
        "newest is never lost.",
        examples=[2],
    ),
]
Entries = Annotated[list[str], told("Trimmed and upper-cased by the relay.", ["SPY", "QQQ"])]

UPDATE = "spot_price_update"
BATCH = "spot_price_update_batch"
PONG = msgspec.json.encode(Pong())
NO_DAEMON = msgspec.json.encode(DaemonAbsent("absent", "no_daemon", "no daemon runs"))

# Of the feeds that come late; all others are sent as they happen.
_DELAYS_S = {"delayed_sip": 900}


class Subscribe(msgspec.Struct, frozen=True, tag_field="action", tag="subscribe"):
    """Ask for symbols. To ask again for a symbol replaces its ``max_hz``."""

    symbols: Entries
    batch: Annotated[
        bool | None,
        told("Whether the client takes batches. It is kept until it is named again."),
    ] = None
    max_hz: MaxHz | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag_field="action", tag="unsubscribe"):
    """Ask for symbols no longer."""

    symbols: Entries


class Ping(msgspec.Struct, frozen=True, tag_field="action", tag="ping"):
    """Ask whether the relay is there."""


Action = Subscribe | Unsubscribe | Ping


class Problem(msgspec.Struct, frozen=True):
    """What is wrong with a client's message: a code for programs, a sentence for people."""

    code: str
    message: str
    refused: dict[str, str] = {}  # symbol, or entry as written: why


class SubscribeSpotPricesRequest(msgspec.Struct, frozen=True):
    """Body of ``POST /api/positions/subscribe-spot-prices``."""

    symbols: Entries


class SubscribeSpotPricesResponse(msgspec.Struct, frozen=True):
    """The answer to a subscription over HTTP, and to every request that fails."""

    status: Literal["success", "error"]
    message: Annotated[str, told("A sentence for a person.")]
    symbols: Annotated[list[str], told("The symbols that are demanded.", ["SPY", "QQQ"])]
    refused: Annotated[RefusedEntries, told("The other entries, each with its reason.")]


class SpotPricesResponse(msgspec.Struct, frozen=True):
    """Answer of ``GET /api/spot-prices``: the newest price of each symbol, null without one."""

    prices: dict[str, SpotPriceUpdate | None]


_ACTIONS = msgspec.json.Decoder(Action)


def parse(raw: bytes) -> Action | Problem:
    """Return what a client's text message asks for."""
    try:
        action: Action = _ACTIONS.decode(raw)
    except msgspec.ValidationError as error:
        return Problem("wrong_message", str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Problem("not_json", "a message is one JSON object")
    return action


def symbols_of(entries: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Return the symbols that entries mean, each once, and the others with their reason."""
    symbols: dict[str, None] = {}
    refused: dict[str, str] = {}
    for entry in entries:
        raw = entry.encode("utf-8", "replace")
        found = symbol_of(raw)
        if isinstance(found, Refusal):
            refused[as_written(raw)] = found.reason
        else:
            symbols[found] = None
    return list(symbols), refused


# What the server sends


def hello(
    limits: Limits,
    status: DaemonStatus | None,
    raw: bytes,
    relay: bytes,
    *,
    simulated: bool = False,
) -> bytes:
    """Return the first message of every connection.

    ``raw`` is the status as the daemon wrote it, ``relay`` the relay's own (``relay_status``).
    ``simulated``: the prices are made up, whatever feed the daemon names.
    """
    feed = None if status is None else status.feed
    return msgspec.json.encode(
        Hello(
            version=VERSION,
            limits=HelloLimits(
                limits.symbols, limits.total_symbols, limits.message_bytes, limits.messages_per_s
            ),
            feed=feed,
            delay_s=None if feed is None else _DELAYS_S.get(feed, 0),
            simulated=True if simulated else msgspec.UNSET,
            # msgspec encodes what is there. So the bytes are passed on, with fields of a newer
            # daemon too.
            daemon=None if status is None else cast("DaemonStatus", msgspec.Raw(raw)),
            relay=cast("RelayState", msgspec.Raw(relay)),
        )
    )


def relay_status(reasons: Iterable[Reason]) -> bytes:
    """Return how the relay stands: its ``state`` is ``ready``, or the code of the first reason."""
    first = next(iter(reasons), None)
    state = "ready" if first is None else first.code
    reason = None if first is None else str(first.for_clients())
    return msgspec.json.encode(RelayState(state, reason))


def update_message(raw: bytes, timestamp: str) -> bytes:
    """Return one update, ``raw`` as spotd published it. ``timestamp``: when the relay heard it."""
    return b'{"type":"spot_price_update","update":%b,"timestamp":"%b"}' % (raw, timestamp.encode())


def batch_message(raws: Iterable[bytes], timestamp: str) -> bytes:
    """Return several updates in one message."""
    return b'{"type":"spot_price_update_batch","updates":[%b],"timestamp":"%b"}' % (
        b",".join(raws),
        timestamp.encode(),
    )


def ended(symbol: str, unix_s: float) -> bytes:
    """Return the SymbolState of a symbol that is not streamed any more."""
    return SymbolState(symbol=symbol, state="ended", reason=None, since=utc(unix_s)).to_json()


def no_room(symbol: str, unix_s: float) -> bytes:
    """Return the SymbolState of a symbol that the relay has no room for."""
    why = "symbol_limit"
    return SymbolState(
        symbol=symbol, state="refused", reason=why, code=why, since=utc(unix_s)
    ).to_json()


def error(problem: Problem) -> bytes:
    """Return the message that tells a client what was wrong."""
    return msgspec.json.encode(Error(problem.code, problem.message, problem.refused))


def for_clients(raw: bytes, value: SymbolState | DaemonStatus | Gap) -> bytes:
    """Return ``raw``, what was decoded as ``value``, without the address of Redis in its reason.

    It can be sent on as it is (``one_line``).
    """
    shown = replace(value, reason=_reason_for_clients(value))
    if isinstance(shown, DaemonStatus):
        gaps = [replace(gap, reason=_reason_for_clients(gap)) for gap in shown.gaps]
        shown = replace(shown, gaps=tuple(gaps))
    return one_line(raw, value) if shown == value else shown.to_json()


def _reason_for_clients(value: SymbolState | DaemonStatus | Gap) -> str | None:
    if value.code is None or value.reason is None:
        return value.reason
    return Reason(cast("Code", value.code), value.reason).for_clients().text


def one_line(raw: bytes, value: SpotPriceUpdate | SymbolState | DaemonStatus | Gap) -> bytes:
    """Return ``raw``, what was decoded as ``value``, if it can be sent on as it is.

    A line break would end a server-sent event, and bytes that are not UTF-8 would end a websocket.
    spotd writes neither, other publishers may. Then the value is written anew.
    """
    if raw.isascii() and b"\n" not in raw and b"\r" not in raw:
        return raw
    return value.to_json()
