"""What a simulator was asked to subscribe and to unsubscribe, and how such messages look."""

from __future__ import annotations

from itertools import product
from string import ascii_uppercase

from spotd.simulator import Simulator
from tests.kit.values import Json

STATUSES = {"action": "subscribe", "statuses": ["*"]}


def many(count: int) -> list[str]:
    """Return symbols in alphabetical order."""
    return ["".join(letters) for letters in product(ascii_uppercase, repeat=3)][:count]


def subscribe(*symbols: str) -> Json:
    """Return the message that subscribes quotes and trades."""
    return {"action": "subscribe", "quotes": list(symbols), "trades": list(symbols)}


def unsubscribe(*symbols: str) -> Json:
    """Return the message that unsubscribes quotes and trades."""
    return {"action": "unsubscribe", "quotes": list(symbols), "trades": list(symbols)}


def asked(sim: Simulator) -> list[Json]:
    """Return every message of every session after its authentication, in order."""
    return [one for one in sim.received.messages() if one["action"] != "auth"]


def asked_symbols(sim: Simulator) -> list[Json]:
    """Return the messages about symbols, without those about statuses."""
    return [one for one in asked(sim) if "statuses" not in one]
