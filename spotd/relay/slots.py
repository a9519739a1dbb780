"""What the hub keeps: messages in ``Cell``s, symbols in ``Slot``s, clients. ``hub`` decides.

The hot path reads and writes these fields directly: hundreds of thousands a second.
"""

from __future__ import annotations

from typing import TypeAlias

from spotd.relay import protocol
from spotd.relay.wire import Wire, encoded


class Cell:
    """The newest message about one thing, in the form of each ``Wire``, made when first needed."""

    __slots__ = ("_kind", "_message", "forms", "raw")

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._message = b""
        self.raw = b""  # what the message carries
        self.forms: list[bytes | None] = []  # empty: there is no message

    def put(self, message: bytes, raw: bytes = b"") -> None:
        """Replace the message."""
        self._message = message
        self.raw = raw
        self.forms = [None] * len(Wire)

    def form(self, wire: Wire) -> bytes:
        """Return the message as it is sent on such a connection."""
        found = self.forms[wire]
        if found is None:
            found = self.forms[wire] = encoded(wire, self._kind, self._message)
        return found

    def clear(self) -> None:
        """Forget the message."""
        self.forms = []


class Slot:
    """One symbol that somebody wants: what is known of it, and who wants it."""

    __slots__ = ("clients", "paced", "price", "state", "symbol", "wanted_until")

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.price = Cell(protocol.UPDATE)
        self.state = Cell("symbol")
        self.clients: dict[Client, None] = {}  # at every change
        self.paced: dict[Client, Pace] = {}  # at most max_hz times a second
        self.wanted_until = 0.0  # also without clients


class Pace:
    """How often one client is told the price of one symbol."""

    __slots__ = ("client", "held", "interval_s", "next_at", "slot")

    def __init__(self, client: Client, slot: Slot, max_hz: float) -> None:
        self.client = client
        self.slot = slot
        self.interval_s = 1 / max_hz
        self.next_at = float("-inf")
        self.held: Entry | None = None  # while a newer price waits for next_at


Entry: TypeAlias = tuple[float, int, Pace]  # of ``held.Held``: the time, an order, whose it is


class Client:
    """One connection, as the hub knows it. Compared by identity."""

    __slots__ = ("batch", "idle", "news", "paces", "prices", "since", "slice", "slots", "wire")

    def __init__(self, wire: Wire, slice_: int) -> None:
        self.wire = wire
        self.slice = slice_
        self.batch = False
        self.idle = True  # neither listed nor blocked
        self.since = 0.0  # when it was listed
        self.slots: dict[str, Slot] = {}
        self.paces: dict[Cell, Pace] = {}
        self.news: dict[Cell, None] = {}  # states and status that it has not been told
        self.prices: dict[Cell, None] = {}  # prices that it has not been told
