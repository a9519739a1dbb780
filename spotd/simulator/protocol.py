"""What Alpaca's stream answers to what a client says.

Decides, talks to nobody: a message in, messages out, and whether the session ends. Delays and
silences are the transport's affair.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import Any

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
from spotd.simulator.seats import Seats
from spotd.simulator.wire import Message

_Everything = type("_Everything", (), {"__contains__": lambda _self, _symbol: True})


@dataclass(frozen=True)
class Rules:
    """What a session is judged by; the knobs are live."""

    keys: Mapping[str, str]
    entitled: Container[str]
    limits: Limits
    faults: Faults
    seats: Seats


@dataclass(frozen=True)
class Route:
    """Which messages a session gets: per type of message the symbols; equal keys, equal routes."""

    key: tuple[frozenset[str], ...]
    priced: frozenset[str]  # of quotes and trades: what a market has to produce
    by_type: Mapping[str, Container[str]]
    any_type: Container[str]

    def takes(self, message: Message) -> bool:
        """Whether the message goes to the session; unknown types follow their symbol."""
        symbol = message.get("S")
        return symbol is None or symbol in self.by_type.get(message["T"], self.any_type)


@dataclass
class Answer:
    """What to send back, each message in a frame of its own, and whether to close then."""

    messages: list[Message] = field(default_factory=list)
    close: bool = False
    refused: int = 0


def refusal(code: int, *, close: bool = False) -> Answer:
    """An error as the answer."""
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
        """Whether the client has proved who it is."""
        return self.key is not None

    def receive(self, message: Any, now: float) -> Answer:
        """The answer to a decoded message; `now` in monotonic seconds."""
        if not isinstance(message, Mapping):
            return refusal(400)
        match message.get("action"):
            case "auth":
                return self.authenticate(message.get("key"), message.get("secret"), now)
            case "subscribe" | "unsubscribe" if not self.authenticated:
                return refusal(401)
            case "subscribe":
                return self._subscribe(message)
            case "unsubscribe":
                return self._unsubscribe(message)
            case _:
                return refusal(400)

    def authenticate(self, key: object, secret: object, now: float) -> Answer:
        """The answer to a key: 406 keeps the socket open, so that the client may ask again."""
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
        if not rules.seats.take(self.session, (self.feed, key), rules.limits.connections, now):
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
        return self._become(wanted)

    def _unsubscribe(self, message: Mapping[str, Any]) -> Answer:
        asked = self._asked(message)
        if isinstance(asked, int):
            return refusal(asked)
        if self.rules.faults.late_data_s:
            for channel, symbols in asked.items():
                self.late[channel] |= symbols & self.channels[channel]
        return self._become(
            {name: symbols - asked.get(name, set()) for name, symbols in self.channels.items()}
        )

    def _asked(self, message: Mapping[str, Any]) -> dict[str, set[str]] | int:
        """The symbols named per channel, or the code that refuses the whole request."""
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
        if not limits.wildcard and any("*" in symbols for symbols in wanted.values()):
            return True
        if limits.symbols is None:
            return False
        entries = len(quotes | trades) if limits.count == "symbols" else len(quotes) + len(trades)
        return entries > limits.symbols or "*" in quotes or "*" in trades

    def _become(self, wanted: dict[str, set[str]]) -> Answer:
        self.channels = wanted
        for mirror in MIRRORS:
            self.channels[mirror] = set(wanted["trades"])
        self.route = self._route()
        return Answer([self.acknowledgement()])

    def acknowledgement(self) -> Message:
        """The whole state of all channels, in Alpaca's order."""
        names = CHANNELS_OF_TEST if self.feed == "test" else ACKNOWLEDGED
        ack: Message = {"T": "subscription"} | {name: sorted(self.channels[name]) for name in names}
        if self.channels["imbalances"]:
            ack["imbalances"] = sorted(self.channels["imbalances"])
        return ack

    def forget_late(self) -> None:
        """The time in which data still comes after an unsubscribe is over."""
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


def _members(symbols: frozenset[str]) -> Container[str]:
    everything: Container[str] = _Everything()
    return everything if "*" in symbols else symbols
