"""The messages that a relay sends to its clients, each field defined once (contract, section 8).

SymbolState, DaemonStatus and Gap come beside them as the daemon wrote them. Prices are written
without these models, on the hot path of ``protocol``. Must not talk to anything.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from spotd.models import DaemonStatus, Moment, SpotPriceUpdate, told

RefusedEntries = dict[
    str,
    Annotated[
        str,
        told(
            "`invalid_symbol`, `wildcard_not_allowed` or `symbol_limit`; others may be added.",
            "invalid_symbol",
        ),
    ],
]


class RelayState(msgspec.Struct, frozen=True, tag_field="type", tag="relay"):
    """How the relay itself stands. It is told in ``hello`` and at every change."""

    state: Annotated[
        str,
        told(
            "`ready`, or the code of what is wrong: `redis_away`, `no_daemon`. Codes may be added.",
            *("ready", "no_daemon"),
        ),
    ]
    reason: Annotated[
        str | None,
        told("The code, a colon and a sentence; null if ready.", "no_daemon: no daemon runs"),
    ]


class HelloLimits(msgspec.Struct, frozen=True):
    """What the relay grants to one client."""

    symbols: Annotated[int, told("Symbols of one client.", 200, minimum=1)]
    total_symbols: Annotated[
        int | None, told("Symbols of all clients together; null without a limit.", minimum=1)
    ]
    message_bytes: Annotated[int, told("A longer message ends the connection.", 65_536, minimum=1)]
    messages_per_s: Annotated[int, told("Messages of the client a second.", 10, minimum=1)]


class Hello(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="hello"):
    """The first message of every connection. Feed, delay and daemon are null without a daemon."""

    version: Annotated[int, told("That of the wire contract.", 1)]
    limits: HelloLimits
    feed: Annotated[str | None, told("Alpaca's feed.", "iex")]
    delay_s: Annotated[
        int | None, told("Seconds by which the feed is behind the exchange.", 0, 900, minimum=0)
    ]
    simulated: (
        Annotated[bool, told("True: the prices are made up, whatever the feed.")]
        | msgspec.UnsetType
    ) = msgspec.UNSET
    daemon: DaemonStatus | None
    relay: RelayState


class SpotPriceUpdateMessage(
    msgspec.Struct, frozen=True, tag_field="type", tag="spot_price_update"
):
    """A price. The newest known one of a symbol comes at once, then every newer one."""

    update: SpotPriceUpdate
    timestamp: Annotated[Moment, told("When the relay heard it, UTC.")]


class SpotPriceUpdateBatch(
    msgspec.Struct, frozen=True, tag_field="type", tag="spot_price_update_batch"
):
    """Several prices, sent to a client that asked for batches."""

    updates: list[SpotPriceUpdate]
    timestamp: Annotated[Moment, told("When it was sent, UTC.")]


class DaemonAbsent(msgspec.Struct, frozen=True, tag_field="type", tag="daemon"):
    """It is sent in place of a DaemonStatus while no daemon runs."""

    state: Literal["absent"]
    code: Literal["no_daemon"]
    reason: Annotated[str, told("A sentence for a person.", "no daemon runs")]


class Error(msgspec.Struct, frozen=True, tag_field="type", tag="error", omit_defaults=True):
    """A message of the client is wrong. The connection stays, unless there are too many."""

    code: Annotated[
        str,
        told(
            "`not_json`, `not_text`, `wrong_message`, `too_many_messages`, the reason of the "
            "refused entries, or `refused` where their reasons differ. Codes may be added.",
            *("wrong_message", "invalid_symbol"),
        ),
    ]
    message: Annotated[str, told("A sentence for a person.")]
    refused: Annotated[
        RefusedEntries,
        told("Entries that are not symbols or find no room. The others are subscribed to."),
    ] = {}


class Pong(msgspec.Struct, frozen=True, tag_field="type", tag="pong"):
    """The answer to ``ping``."""
