"""A source of prices that a test drives: it says what Redis would say."""

from __future__ import annotations

from spotd.errors import RedisUnavailableError
from spotd.models import SpotPriceUpdate, SymbolStateName
from spotd.relay.relay import Relay
from tests.kit.publisher import state_of, status_of, update_of


class TestSource:
    """What ``Follower`` and ``SpotClient`` are to a relay, without Redis."""

    __test__ = False  # not a class of tests

    def __init__(self, relay: Relay) -> None:
        self.followed: set[str] = set()
        self.confirmed: list[str] = []
        self.away = False
        self.stored: dict[str, SpotPriceUpdate] = {}
        self._relay = relay
        relay.attach(self)

    # What the relay asks

    def add(self, *symbols: str) -> None:
        """Follow, and tell what is stored."""
        self.followed.update(symbols)
        for symbol in symbols:
            if symbol in self.stored:
                self.price(symbol, self.stored[symbol].seq)

    def remove(self, *symbols: str) -> None:
        """Follow no longer."""
        self.followed.difference_update(symbols)

    async def confirm(self, *symbols: str) -> None:
        """Say that the demand is written, unless Redis is away."""
        if self.away:
            raise RedisUnavailableError("Redis at 127.0.0.1:6379 does not answer")
        self.confirmed += symbols

    async def latest(self, *symbols: str) -> dict[str, SpotPriceUpdate | None]:
        """Return what is stored, unless Redis is away."""
        if self.away:
            raise RedisUnavailableError("Redis at 127.0.0.1:6379 does not answer")
        return {symbol: self.stored.get(symbol) for symbol in symbols}

    # What a test says

    def price(self, symbol: str, seq: int, bid: float = 421.35) -> None:
        """Have a price come from Redis."""
        self.stored[symbol] = update = update_of(symbol, seq, bid)
        if symbol in self.followed:
            self._relay.price(update, update.to_json())

    def state(self, symbol: str, name: SymbolStateName = "live") -> None:
        """Have a state come from Redis."""
        state = state_of(symbol, name)
        self._relay.state(state, state.to_json())

    def status(self) -> None:
        """Have a daemon's status come from Redis."""
        status = status_of()
        self._relay.status(status, status.to_json())

    def ready(self) -> None:
        """Have Redis joined, and a daemon run."""
        self._relay.connection(True, "")
        self.status()
