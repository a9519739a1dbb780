"""The answers of Alpaca's stream to the messages of a client.

Decides: a message goes in; the messages to send, and whether the session ends, come out. Must not
talk. The stream adds the delays, and withholds answers where a fault says so.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

from spotd.simulator.connection_slots import ConnectionSlots
from spotd.simulator.knobs import Faults, Limits
from spotd.simulator.messages import (
    ACKNOWLEDGED,
    CHANNEL_OF,
    CHANNELS_OF_TEST,
    MIRRORS,
    SYMBOL,
    error,
    success,
)
from spotd.simulator.wire import Message


@dataclass(frozen=True)
class Rules:
    """The facts that decide the answers. The knobs may change at any time."""

    keys: Mapping[str, str]
    entitled: Container[str]
    limits: Limits
    faults: Faults
    slots: ConnectionSlots


@dataclass(frozen=True)
class Route:
    """Which messages a session receives. Routes with equal keys are equal."""

    key: tuple[frozenset[str], ...]
    priced: frozenset[str]
    """The symbols of quotes and trades, which a market has to produce."""
    by_type: Mapping[str, Container[str]]
    any_type: Container[str]

    def takes(self, message: Message) -> bool:
        """Return whether the session receives a message.

        It receives a message of an unknown type if any channel has the message's symbol.
        """
        symbol = message.get("S")
        return symbol is None or symbol in self.by_type.get(message["T"], self.any_type)


@dataclass
class Answer:
    """Messages to send back, each in a frame of its own, and whether to close afterwards."""

    messages: list[Message] = field(default_factory=list)
    close: bool = False
    refused: int = 0
    """The code of a refusal."""


def refusal(code: int, *, close: bool = False) -> Answer:
    """Return an error as the answer."""
    return Answer([error(code)], close=close, refused=code)


class Conversation:
    """One session's state: authenticated or not, and the symbols of every channel."""

    def __init__(self, session: int, feed: str, rules: Rules) -> None:
        self.session = session
        self.feed = feed
        self.rules = rules
        self.key: str | None = None
        self.channels: dict[str, set[str]] = {name: set() for name in CHANNEL_OF.values()}
        self.late: dict[str, set[str]] = {name: set() for name in CHANNEL_OF.values()}
        self.route = self._route()

    @property
    def authenticated(self) -> bool:
        """Whether the client sent a right key."""
        return self.key is not None

    def receive(self, message: Any, now: float) -> Answer:
        """Return the answer to a decoded message; `now` is monotonic seconds."""
        if not isinstance(message, Mapping):
            return refusal(400)
        match message.get("action"):
            case "auth":
                return self._authenticate(message.get("key"), message.get("secret"), now)
            case "subscribe" | "unsubscribe" if not self.authenticated:
                return refusal(401)
            case "subscribe":
                return self._subscribe(message)
            case "unsubscribe":
                return self._unsubscribe(message)
            case _:
                return refusal(400)

    def _authenticate(self, key: object, secret: object, now: float) -> Answer:
        """Return the answer to a key. 406 never closes, so that the client may ask again."""
        rules = self.rules
        if self.authenticated:
            return refusal(403)
        if not isinstance(key, str) or not isinstance(secret, str):
            return refusal(400)
        close = rules.limits.close_after_refused_auth
        if rules.faults.auth_error:
            return refusal(rules.faults.auth_error, close=close and rules.faults.auth_error != 406)
        if rules.keys.get(key) != secret:
            return refusal(402, close=close)
        if self.feed not in rules.entitled:
            return refusal(409, close=close)
        if not rules.slots.take(self.session, (self.feed, key), rules.limits.connections, now):
            return refusal(406)
        self.key = key
        return Answer([success("authenticated")])

    def _subscribe(self, message: Mapping[str, Any]) -> Answer:
        if self.rules.faults.subscribe_error:
            return refusal(self.rules.faults.subscribe_error)
        asked = self._asked(message)
        if isinstance(asked, int):
            return refusal(asked)
        if not asked and not self.rules.limits.empty_subscribe:
            return refusal(400)
        omitted = self.rules.faults.ack_omits
        wanted = {
            channel: self.channels[channel] | (asked.get(channel, set()) - omitted)
            for channel in self.channels
        }
        if self._exceeds(wanted):
            return refusal(405)
        return self._change_to(wanted)

    def _unsubscribe(self, message: Mapping[str, Any]) -> Answer:
        asked = self._asked(message)
        if isinstance(asked, int):
            return refusal(asked)
        if self.rules.faults.late_data_s:
            for channel, symbols in asked.items():
                self.late[channel] |= symbols & self.channels[channel]
        return self._change_to(
            {name: symbols - asked.get(name, set()) for name, symbols in self.channels.items()}
        )

    def _asked(self, message: Mapping[str, Any]) -> dict[str, set[str]] | int:
        """Return the symbols named per channel, or the code that refuses the whole request."""
        asked: dict[str, set[str]] = {}
        for channel, symbols in message.items():
            if channel == "action":
                continue
            if channel not in self.channels:
                return 410
            if not isinstance(symbols, list) or not all(map(self._well_formed, symbols)):
                return 400
            if symbols and not self._available(channel):
                return 410
            if symbols and channel not in MIRRORS:
                asked[channel] = set(symbols)
        return asked

    def _well_formed(self, symbol: object) -> bool:
        if not isinstance(symbol, str) or symbol in self.rules.faults.bad_symbols:
            return False
        return symbol == "*" or SYMBOL.fullmatch(symbol) is not None

    def _available(self, channel: str) -> bool:
        if channel in self.rules.faults.unavailable_channels:
            return False
        return self.feed != "test" or channel in CHANNELS_OF_TEST

    def _exceeds(self, wanted: Mapping[str, set[str]]) -> bool:
        limits = self.rules.limits
        quotes, trades = wanted["quotes"], wanted["trades"]
        if limits.symbols is None:
            return False
        entries = len(quotes | trades) if limits.count == "symbols" else len(quotes) + len(trades)
        return entries > limits.symbols or "*" in quotes or "*" in trades

    def _change_to(self, wanted: dict[str, set[str]]) -> Answer:
        self.channels = wanted
        for mirror in MIRRORS:
            self.channels[mirror] = set(wanted["trades"])
        self.route = self._route()
        return Answer([self._acknowledgement()])

    def _acknowledgement(self) -> Message:
        """Return the whole state of all channels, in Alpaca's order."""
        names = CHANNELS_OF_TEST if self.feed == "test" else ACKNOWLEDGED
        ack: Message = {"T": "subscription"} | {name: sorted(self.channels[name]) for name in names}
        if self.channels["imbalances"]:
            ack["imbalances"] = sorted(self.channels["imbalances"])
        return ack

    def forget_late(self) -> None:
        """Stop sending late data of symbols that were unsubscribed."""
        for symbols in self.late.values():
            symbols.clear()
        self.route = self._route()

    def _route(self) -> Route:
        sets = {
            name: frozenset(symbols | self.late[name]) for name, symbols in self.channels.items()
        }
        return Route(
            key=tuple(sets.values()),
            priced=sets["quotes"] | sets["trades"],
            by_type={kind: _members(sets[name]) for kind, name in CHANNEL_OF.items()},
            any_type=_members(frozenset().union(*sets.values())),
        )


class _Everything:
    """Contains every symbol, as `*` does."""

    def __contains__(self, _symbol: object) -> bool:
        return True


def _members(symbols: frozenset[str]) -> Container[str]:
    return _Everything() if "*" in symbols else symbols
