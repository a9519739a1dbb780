"""Decides which client gets what, and when it is due. Newest wins, everywhere.

Every thing that is told (the price of a symbol, its state, the daemon's status) is a ``Cell`` that
holds its newest message, encoded once for all clients. A client has the cells that it has not been
told yet. A cell that changes before it is told is told once, with its newest value. As a
consequence, memory is bounded by clients times symbols, and a client that reads slowly never gets
old prices.

A client with something to be told is *listed* in its slice of the tick. ``due`` hands out the
listed clients of a slice, ``take`` what to send. A client whose connection still holds bytes is
*blocked*: it is not listed until they have left.

``now`` is monotonic seconds, ``unix_s`` wall time. Must not await, send or read a clock.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from spotd.models import rfc3339, utc
from spotd.relay import protocol
from spotd.relay.held import Held
from spotd.relay.limits import Limits
from spotd.relay.slots import Cell, Client, Pace, Slot
from spotd.relay.tick import SLICES
from spotd.relay.wire import Wire, encoded

RESERVED_S = 60.0  # a symbol that was asked for by POST; the contract's lease
LINGER_S = 3.0  # a symbol whose last client has left: a page that is loaded again wants it


@dataclass(slots=True)
class Counts:
    """What the hub has done since the start."""

    messages: int = 0  # handed out
    updates: int = 0  # prices in them
    skipped: int = 0  # prices that newer ones replaced before they were handed out


class Wanted(NamedTuple):
    """What follows from asking for symbols."""

    accepted: list[str]
    new: list[str]  # of these, what nobody wanted before: to be demanded
    refused: dict[str, str]  # symbol: why


class Hub:
    """All symbols and all clients of one relay."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._slots: dict[str, Slot] = {}
        self._left: dict[str, Slot] = {}  # slots without clients
        self._clients: set[Client] = set()
        self._next_slice = 0
        self._due: list[dict[Client, None]] = [{} for _ in range(SLICES)]
        self._listed = 0
        self._held = Held()
        self._daemon = Cell("daemon")
        self._relay = Cell("relay")
        self._gap = Cell("gap")
        self.counts = Counts()

    # Clients

    @property
    def clients(self) -> int:
        """How many clients there are."""
        return len(self._clients)

    @property
    def blocked(self) -> int:
        """How many clients have not taken what was sent. Looks at each client."""
        return sum(not client.idle for client in self._clients) - self._listed

    @property
    def symbols(self) -> int:
        """How many symbols are wanted."""
        return len(self._slots)

    def join(self, wire: Wire) -> Client:
        """Take in a new client. Slices get clients in turn."""
        client = Client(wire, self._next_slice)
        self._next_slice = (self._next_slice + 1) % SLICES
        self._clients.add(client)
        return client

    def leave(self, client: Client, now: float) -> None:
        """Forget a client. May be called twice."""
        self.unsubscribe(client, list(client.slots), now)
        self._unlist(client)
        client.idle = False  # never listed again
        self._clients.discard(client)

    def subscribe(
        self, client: Client, symbols: Iterable[str], max_hz: float | None, now: float
    ) -> Wanted:
        """Have a client told of symbols: what is known of new ones at once, then every change.

        Symbols that it has already get the ``max_hz`` named now, and nothing else happens to them.
        A client that has left wants nothing: its connection may end before its first message is
        read, and nobody would end its demand.
        """
        wanted = Wanted([], [], {})
        if client not in self._clients:
            return wanted
        for symbol in symbols:
            if symbol not in client.slots and len(client.slots) >= self._limits.symbols:
                wanted.refused[symbol] = "symbol_limit"
                continue
            slot = self._slot(symbol, wanted)
            if slot is None:
                continue
            self._set_pace(client, slot, max_hz)
            if symbol not in client.slots:
                client.slots[symbol] = slot
                self._left.pop(symbol, None)
                self._tell_all(client, slot)
        if client.idle and (client.news or client.prices):
            self._list(client, now)
        return wanted

    def unsubscribe(self, client: Client, symbols: Iterable[str], now: float) -> None:
        """Have a client told of symbols no longer, not even what waits."""
        for symbol in symbols:
            slot = client.slots.pop(symbol, None)
            if slot is None:
                continue
            slot.clients.pop(client, None)
            self._end_pace(client, slot)
            client.prices.pop(slot.price, None)
            client.news.pop(slot.state, None)
            if not slot.clients and not slot.paced:
                slot.wanted_until = max(slot.wanted_until, now + LINGER_S)
                self._left[symbol] = slot

    def reserve(self, symbols: Iterable[str], now: float) -> Wanted:
        """Have symbols wanted for ``RESERVED_S``, also without a client."""
        wanted = Wanted([], [], {})
        for symbol in symbols:
            slot = self._slot(symbol, wanted)
            if slot is not None:
                slot.wanted_until = now + RESERVED_S
                if not slot.clients and not slot.paced:
                    self._left[symbol] = slot
        return wanted

    def lapse(self, now: float) -> list[str]:
        """Forget symbols that nobody wants any more, and return them: their demand ends."""
        gone = [symbol for symbol, slot in self._left.items() if slot.wanted_until <= now]
        for symbol in gone:
            del self._left[symbol]
            del self._slots[symbol]
        return gone

    # What is told

    def price(self, symbol: str, raw: bytes, now: float, unix_s: float) -> None:
        """Take in the newest price of a symbol. The source passes on no older one."""
        slot = self._slots.get(symbol)
        if slot is None:
            return
        cell = slot.price
        cell.put(protocol.update_message(raw, rfc3339(utc(unix_s))), raw)
        for client in slot.clients:
            if cell in client.prices:
                self.counts.skipped += 1
                continue
            client.prices[cell] = None
            if client.idle:
                self._list(client, now)
        for client, pace in slot.paced.items():
            if pace.held is not None or cell in client.prices:
                self.counts.skipped += 1
            elif pace.next_at > now:
                self._held.add(pace)
            else:
                self._add_price(client, cell, now)

    def state(self, symbol: str, raw: bytes, now: float) -> None:
        """Take in the newest state of a symbol."""
        slot = self._slots.get(symbol)
        if slot is not None:
            slot.state.put(raw)
            self._tell(slot, slot.state, now)

    def ended(self, symbol: str, now: float, unix_s: float) -> None:
        """Take in that a symbol is streamed no longer: its last price does not count any more."""
        slot = self._slots.get(symbol)
        if slot is None:
            return
        for client in slot.clients:
            client.prices.pop(slot.price, None)
        for client, pace in slot.paced.items():
            client.prices.pop(slot.price, None)
            self._held.drop(pace)
        slot.price.clear()
        slot.state.put(protocol.ended(symbol, unix_s))
        self._tell(slot, slot.state, now)

    def daemon(self, raw: bytes | None, now: float) -> None:
        """Take in the daemon's status; None: no daemon runs."""
        self._daemon.put(protocol.NO_DAEMON if raw is None else raw)
        self._tell_everybody(self._daemon, now)

    def gap(self, raw: bytes, now: float) -> None:
        """Take in a gap: the present clients are told, later ones are not."""
        self._gap.put(raw)
        self._tell_everybody(self._gap, now)

    def relay(self, raw: bytes, now: float) -> None:
        """Take in the relay's own status."""
        self._relay.put(raw)
        self._tell_everybody(self._relay, now)

    # Serving

    @property
    def listed(self) -> bool:
        """Whether any client is due in the present tick."""
        return self._listed > 0

    @property
    def held_until(self) -> float | None:
        """When the next price that ``max_hz`` holds back is due, or before."""
        return self._held.next_at

    def release(self, now: float) -> None:
        """List the clients whose ``max_hz`` lets them have their next price."""
        for pace in self._held.due(now):
            self._add_price(pace.client, pace.slot.price, now)

    def due(self, slice_: int) -> dict[Client, None]:
        """Return the listed clients of a slice, which are then listed no longer.

        ``take`` has to follow for each.
        """
        due, self._due[slice_] = self._due[slice_], {}
        self._listed -= len(due)
        return due

    def take(self, client: Client, now: float, timestamp: str) -> list[bytes]:
        """Return what a client has not been told yet, each message as its wire has it.

        ``timestamp`` is that of a batch, as JSON writes times.
        """
        wire = client.wire
        parts = [cell.form(wire) for cell in client.news]
        if client.prices:
            self.counts.updates += len(client.prices)
            if client.batch:
                raws = [cell.raw for cell in client.prices]
                message = protocol.batch_message(raws, timestamp)
                parts.append(encoded(wire, protocol.BATCH, message))
            else:
                parts += [cell.forms[wire] or cell.form(wire) for cell in client.prices]
            if client.paces:
                for cell in client.prices:
                    if (pace := client.paces.get(cell)) is not None:
                        pace.next_at = now + pace.interval_s
            client.prices.clear()
        client.news.clear()
        client.idle = True
        self.counts.messages += len(parts)
        return parts

    def block(self, client: Client) -> None:
        """Do not list a client until ``unblock``: its connection holds bytes."""
        self._unlist(client)
        client.idle = False

    def unblock(self, client: Client, now: float) -> None:
        """List a client again, if something waits for it."""
        if client in self._clients:
            client.idle = True
            if client.news or client.prices:
                self._list(client, now)

    # Within

    def _slot(self, symbol: str, wanted: Wanted) -> Slot | None:
        """Return the slot of a symbol, made if there is room, and note it in ``wanted``."""
        slot = self._slots.get(symbol)
        if slot is None:
            most = self._limits.total_symbols
            if most is not None and len(self._slots) >= most:
                wanted.refused[symbol] = "symbol_limit"
                return None
            slot = self._slots[symbol] = Slot(symbol)
            wanted.new.append(symbol)
        wanted.accepted.append(symbol)
        return slot

    def _set_pace(self, client: Client, slot: Slot, max_hz: float | None) -> None:
        self._end_pace(client, slot)
        if max_hz is None:
            slot.clients[client] = None
        else:
            slot.clients.pop(client, None)
            slot.paced[client] = client.paces[slot.price] = Pace(client, slot, max_hz)

    def _end_pace(self, client: Client, slot: Slot) -> None:
        pace = slot.paced.pop(client, None)
        if pace is not None:
            del client.paces[slot.price]
            if pace.held is not None:
                # The price is not lost: a client that stays subscribed is told it now.
                self._held.drop(pace)
                client.prices[slot.price] = None

    def _tell_all(self, client: Client, slot: Slot) -> None:
        """Note for a client that is new to a symbol what is known of it."""
        if slot.state.forms:
            client.news[slot.state] = None
        if slot.price.forms:
            client.prices[slot.price] = None

    def _tell(self, slot: Slot, cell: Cell, now: float) -> None:
        for client in (*slot.clients, *slot.paced):
            self._add_news(client, cell, now)

    def _tell_everybody(self, cell: Cell, now: float) -> None:
        for client in self._clients:
            self._add_news(client, cell, now)

    def _add_news(self, client: Client, cell: Cell, now: float) -> None:
        client.news[cell] = None
        if client.idle:
            self._list(client, now)

    def _add_price(self, client: Client, cell: Cell, now: float) -> None:
        client.prices[cell] = None
        if client.idle:
            self._list(client, now)

    def _list(self, client: Client, now: float) -> None:
        client.idle = False
        client.since = now
        self._due[client.slice][client] = None
        self._listed += 1

    def _unlist(self, client: Client) -> None:
        due = self._due[client.slice]
        if client in due:
            del due[client]
            self._listed -= 1
