"""Decides what a client's message leads to: answers, symbols to be demanded, the end.

``now`` is monotonic seconds. Must not send, await or read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from spotd.relay import protocol
from spotd.relay.close_codes import TOO_MANY_MESSAGES, CloseCode
from spotd.relay.hub import Hub
from spotd.relay.limits import Bucket, Limits
from spotd.relay.protocol import Ping, Problem, Subscribe, Unsubscribe
from spotd.relay.slots import Client

_BINARY = Problem("not_text", "a message is text, not binary")
_TOO_MANY = Problem("too_many_messages", TOO_MANY_MESSAGES.reason)
_MOST_NAMED = 10  # entries in a sentence; all of them stand beside it
_WHY = {
    "invalid_symbol": "not a symbol",
    "wildcard_not_allowed": "a relay does not show the whole market",
    "symbol_limit": "no room for more symbols",
}


@dataclass(slots=True)
class Answer:
    """What follows from one message."""

    messages: list[bytes] = field(default_factory=list)  # JSON, to the client
    new: list[str] = field(default_factory=list)  # symbols that nobody wanted before
    close: CloseCode | None = None


class Session:
    """One websocket client."""

    __slots__ = ("_bucket", "_client", "_hub")

    def __init__(self, hub: Hub, client: Client, limits: Limits, now: float) -> None:
        self._hub = hub
        self._client = client
        self._bucket = Bucket(limits.messages_per_s, limits.message_burst, now)

    def receive_text(self, raw: bytes, now: float) -> Answer:
        """Take in one text message, which is UTF-8."""
        action = protocol.parse(raw)
        if isinstance(action, Problem):
            return Answer([protocol.error(action)])
        if isinstance(action, Ping):
            return Answer([protocol.PONG])
        symbols, refused = protocol.symbols_of(action.symbols)
        if isinstance(action, Unsubscribe):
            self._hub.unsubscribe(self._client, symbols, now)
            return Answer(_complaint(refused))
        return self._subscribe(action, symbols, refused, now)

    def receive_binary(self) -> Answer:
        """Take in one binary message."""
        return Answer([protocol.error(_BINARY)])

    def admit(self, now: float) -> Answer | None:
        """Count one frame of any kind. Return how the client is refused if it sends too many."""
        if self._bucket.take(now):
            return None
        return Answer([protocol.error(_TOO_MANY)], close=TOO_MANY_MESSAGES)

    def _subscribe(
        self, action: Subscribe, symbols: list[str], refused: dict[str, str], now: float
    ) -> Answer:
        if action.batch is not None:
            self._client.batch = action.batch
        wanted = self._hub.subscribe(self._client, symbols, action.max_hz, now)
        return Answer(_complaint(refused | wanted.refused), wanted.new)


def subscribe_stream(
    hub: Hub, client: Client, symbols: list[str], max_hz: float | None, now: float, unix_s: float
) -> Answer:
    """Have an event stream told of symbols, and at once of those without room.

    The messages of the answer are of the type ``symbol``.
    """
    wanted = hub.subscribe(client, symbols, max_hz, now)
    return Answer([protocol.no_room(symbol, unix_s) for symbol in wanted.refused], wanted.new)


def refusal(refused: dict[str, str]) -> str:
    """Return why symbols are refused, as a sentence for people."""
    told = []
    for reason, words in _WHY.items():
        entries = [entry for entry, why in refused.items() if why == reason]
        if entries:
            named = ", ".join(map(repr, entries[:_MOST_NAMED]))
            more = f" and {len(entries) - _MOST_NAMED} more" if len(entries) > _MOST_NAMED else ""
            told.append(f"{words}: {named}{more}")
    return "; ".join(told)


def _complaint(refused: dict[str, str]) -> list[bytes]:
    if not refused:
        return []
    [code, *others] = sorted(set(refused.values()))
    problem = Problem("refused" if others else code, refusal(refused), refused)
    return [protocol.error(problem)]
