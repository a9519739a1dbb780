"""Decides what ``spotd schema asyncapi`` says: AsyncAPI 3, its schemas made from the models.

The channels of Redis, and the websocket of the relay in both directions, as spotd sees them: it
*sends* prices and *receives* demand. Section 1 of the contract has the keys of Redis, which are no
channels.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import msgspec

from spotd import __version__, json_schema
from spotd.examples import AT, EXAMPLES, STREAMING, UPDATE
from spotd.keys import Keys
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState, rfc3339
from spotd.reasons import Reason
from spotd.relay import close_codes, protocol
from spotd.relay.limits import Limits
from spotd.relay.messages import (
    DaemonAbsent,
    Error,
    Hello,
    Pong,
    RelayState,
    SpotPriceUpdateBatch,
    SpotPriceUpdateMessage,
)
from spotd.relay.protocol import Ping, Problem, Subscribe, Unsubscribe
from spotd.relay.session import refusal

Json: TypeAlias = dict[str, Any]

_AT = rfc3339(AT)
_UPDATE = UPDATE.to_json()
_READY = protocol.relay_status(())
_NO_DAEMON = protocol.relay_status([Reason("no_daemon", "no daemon runs")])
_REFUSED = {"BAD-1": "invalid_symbol"}
_PROBLEM = Problem("invalid_symbol", refusal(_REFUSED), _REFUSED)


class _Message(NamedTuple):
    """A message: its model, when it is sent, and examples as they are written."""

    model: type[msgspec.Struct]
    summary: str
    examples: tuple[bytes, ...]


def _stored(model: type[msgspec.Struct], summary: str) -> _Message:
    """Return a message of Redis: its examples are those of its JSON Schema."""
    return _Message(model, summary, tuple(example.to_json() for example in EXAMPLES[model]))


def _asked(model: type[msgspec.Struct], summary: str, *examples: msgspec.Struct) -> _Message:
    """Return a message of a client."""
    return _Message(model, summary, tuple(map(msgspec.json.encode, examples)))


_PRICES = (_stored(SpotPriceUpdate, "The newest price of the channel's symbol."),)
_EVENTS = (
    _stored(SymbolState, "At every change of a symbol's state."),
    _stored(DaemonStatus, "At every change of the daemon's state, and every 5 s."),
    _stored(Gap, "After every interruption."),
)
_FROM_CLIENT = (
    _asked(
        Subscribe,
        "Ask for symbols.",
        Subscribe(["SPY", "QQQ"], batch=True, max_hz=2),
        Subscribe(["SPY"]),
    ),
    _asked(Unsubscribe, "Ask for symbols no longer.", Unsubscribe(["QQQ"])),
)
_PING = _asked(Ping, "Ask whether the relay is there.", Ping())
_PONG = _Message(Pong, "The answer to a ping.", (protocol.PONG,))
_FROM_RELAY = (
    _Message(
        Hello,
        "First on every connection.",
        (
            protocol.hello(Limits(), STREAMING, STREAMING.to_json(), _READY),
            protocol.hello(Limits(), None, b"", _NO_DAEMON),
        ),
    ),
    _Message(
        SpotPriceUpdateMessage,
        "The newest price of a symbol at once, then every newer one.",
        (protocol.update_message(_UPDATE, _AT),),
    ),
    _Message(
        SpotPriceUpdateBatch,
        "In place of single prices, to a client that takes batches.",
        (protocol.batch_message([_UPDATE], _AT),),
    ),
    *_EVENTS,
    _Message(DaemonAbsent, "While no daemon runs.", (protocol.NO_DAEMON,)),
    _Message(RelayState, "At every change of the relay's own state.", (_READY, _NO_DAEMON)),
    _Message(Error, "When a message of the client is wrong.", (protocol.error(_PROBLEM),)),
)
_ALL = (*_PRICES, *_FROM_CLIENT, _PING, *_FROM_RELAY, _PONG)
_WAKE = "Wake"


def document() -> bytes:
    """Return the document as JSON."""
    return json_schema.encoded(asyncapi())


def asyncapi() -> Json:
    """Return the document as builtins."""
    keys = Keys()
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "spotd",
            "version": __version__,
            "description": _INFO,
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": _servers(),
        "channels": {
            "prices": {
                "address": keys.channel("{symbol}"),
                "title": "Prices of one symbol",
                "description": _PRICES_TEXT,
                "servers": [_ref("servers", "redis")],
                "parameters": {
                    "symbol": {"description": "Upper case.", "examples": ["SPY", "BRK.B"]}
                },
                "messages": _messages(_PRICES),
            },
            "events": {
                "address": keys.events,
                "title": "States, status and gaps",
                "description": "Told apart by `type`. Symbols' states are in the hash "
                f"`{keys.states}` too, the status is in `{keys.status}`.",
                "servers": [_ref("servers", "redis")],
                "messages": _messages(_EVENTS),
            },
            "wake": {
                "address": keys.wake,
                "title": "The demand has changed",
                "description": "Optional: after it spotd reads the demand at once, else within "
                "half a second.",
                "servers": [_ref("servers", "redis")],
                "messages": {_WAKE: _ref("components", "messages", _WAKE)},
            },
            "websocket": {
                "address": "/ws",
                "title": "The websocket of the relay",
                "description": _WEBSOCKET_TEXT,
                "servers": [_ref("servers", "relay")],
                "messages": _messages((*_FROM_CLIENT, _PING, *_FROM_RELAY, _PONG)),
                "bindings": {"ws": _WS_BINDING},
            },
        },
        "operations": {
            "publishPrice": _operation("send", "prices", _PRICES, "Publish a price."),
            "announce": _operation("send", "events", _EVENTS, "Tell what has changed."),
            "readDemand": {
                "action": "receive",
                "channel": _ref("channels", "wake"),
                "summary": "Read the demand now.",
                "messages": [_ref("channels", "wake", "messages", _WAKE)],
            },
            "hearClient": _operation("receive", "websocket", _FROM_CLIENT, "Follow a client."),
            "answerPing": {
                **_operation("receive", "websocket", (_PING,), "Answer a client's ping."),
                "reply": {
                    "channel": _ref("channels", "websocket"),
                    "messages": _message_refs("websocket", (_PONG,)),
                },
            },
            "tellClient": _operation("send", "websocket", _FROM_RELAY, "Tell a client."),
        },
        "components": {
            "schemas": json_schema.components(
                [message.model for message in _ALL], "#/components/schemas/{name}"
            ),
            "messages": {
                **{message.model.__name__: _component(message) for message in _ALL},
                _WAKE: {
                    "name": _WAKE,
                    "title": _WAKE,
                    "summary": "Any text, also an empty one.",
                    "contentType": "text/plain",
                    "payload": {"type": "string"},
                    "examples": [{"payload": ""}],
                },
            },
        },
    }


_INFO = """\
The newest price of each US stock that somebody wants, from one Alpaca stream, on one channel of
Redis per symbol; and the relay, which brings the same to browsers by websocket.

A reader ignores fields, message types and codes that it does not know: all may be added. Nothing is
renamed. The wire contract, version 1, says what is promised and lists the keys of Redis.

The names begin with `SPOTD_KEY_PREFIX` (`spotd:`) and `SPOTD_CHANNEL_PREFIX` (`spot:`); other
settings of these change the addresses here. A symbol is demanded with `SADD spotd:symbols SPY`, or
with a lease that its owner renews: `ZADD spotd:leases <unix time at which it lapses> SPY@owner`.
"""
_PRICES_TEXT = """\
At most once and newest wins: there is no history. To join without a gap: SUBSCRIBE, then
`HGET spotd:last SPY`, then drop messages whose `seq` is not higher than the one held.
"""
_WEBSOCKET_TEXT = f"""\
Text messages, one JSON object each. Those of a client have an `action`, those of the relay a
`type`.

{close_codes.table()}
"""
_WS_BINDING: Json = {
    "method": "GET",
    "query": {
        "type": "object",
        "properties": {
            "token": {
                "type": "string",
                "description": "The token, for clients that can set neither header nor "
                "subprotocol.",
            }
        },
    },
    "bindingVersion": "0.1.0",
}


def _servers() -> Json:
    return {
        "redis": {
            "host": "{host}:{port}",
            "protocol": "redis",
            "description": "Redis or Valkey: `SPOTD_REDIS_URL`.",
            "variables": _host_and_port("6379"),
        },
        "relay": {
            "host": "{host}:{port}",
            "protocol": "ws",
            "description": "`spotd relay`. With `SPOTD_RELAY_TOKEN` it asks for a token: the "
            "header `Authorization: Bearer …`, the subprotocol `bearer.<base64url of the token>` "
            "beside `spotd.v1`, or `?token=…`.",
            "variables": _host_and_port("9811"),
        },
    }


def _host_and_port(port: str) -> Json:
    return {"host": {"default": "127.0.0.1"}, "port": {"default": port}}


def _ref(*path: str) -> dict[str, str]:
    return {"$ref": "#/" + "/".join(path)}


def _messages(messages: tuple[_Message, ...]) -> Json:
    names = [message.model.__name__ for message in messages]
    return {name: _ref("components", "messages", name) for name in names}


def _message_refs(channel: str, messages: tuple[_Message, ...]) -> list[dict[str, str]]:
    return [_ref("channels", channel, "messages", message.model.__name__) for message in messages]


def _operation(action: str, channel: str, messages: tuple[_Message, ...], summary: str) -> Json:
    return {
        "action": action,
        "channel": _ref("channels", channel),
        "summary": summary,
        "messages": _message_refs(channel, messages),
    }


def _component(message: _Message) -> Json:
    name = message.model.__name__
    return {
        "name": name,
        "title": name,
        "summary": message.summary,
        "payload": _ref("components", "schemas", name),
        "examples": [{"payload": msgspec.json.decode(raw)} for raw in message.examples],
    }
