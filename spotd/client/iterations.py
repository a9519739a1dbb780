"""Iterations over prices and events: a slot per symbol, which the newest value takes.

A consumer that is slow gets the newest values, instead of a growing backlog: memory is bounded by
the number of symbols. Must not talk to Redis itself.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Sequence
from typing import Generic, TypeVar

from spotd.client.joins import Reader
from spotd.client.leases import Leases
from spotd.client.subscription import Subscription
from spotd.client.telling import Counts
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

Event = DaemonStatus | SymbolState | Gap
T = TypeVar("T")


class Iteration(Generic[T]):
    """One consumer of a client's subscription: ``next`` takes the slot that has waited longest."""

    def __init__(
        self,
        subscription: Subscription,
        counts: Counts,
        *,
        symbols: Sequence[str] = (),
        leases: Leases | None = None,
        everything: bool = False,
    ) -> None:
        self._subscription = subscription
        self._counts = counts
        self._symbols = symbols
        self._leases = leases
        self._reader = Reader(self, self._fail, everything=everything)
        self._slots: OrderedDict[object, T] = OrderedDict()
        self._ready = asyncio.Event()
        self._holding = False
        self._closed = False
        self._closing = asyncio.Lock()
        self._defect: BaseException | None = None

    async def open(self) -> None:
        """Join. Raises RedisUnavailableError; after later interruptions it joins by itself."""
        if self._leases is not None:
            self._holding = True
            self._leases.hold(self._symbols)
        self._subscription.attach(self._reader, self._symbols, waits=True)
        if self._leases is not None:
            await self._leases.confirm(self._symbols)
        await self._subscription.joined(self._reader)

    async def next(self) -> T | None:
        """Return the next value, as soon as there is one; None once the iteration is closed."""
        while not self._closed:
            if self._slots:
                return self._slots.popitem(last=False)[1]
            if self._defect is not None:
                raise self._defect
            self._ready.clear()
            await self._ready.wait()
        return None

    async def aclose(self) -> None:
        """End the demand and the reading; a waiting ``next`` returns None."""
        self._closed = True
        self._ready.set()
        if self._leases is not None and self._holding:
            self._holding = False
            self._leases.release(self._symbols)
        # The event loop closes a collected iterator in a task of its own, perhaps while the client
        # closes the same iteration. Then both must wait until the leases are gone.
        async with self._closing:
            await self._subscription.detach(self._reader)
            if self._leases is not None:
                await self._leases.settle()

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Take a price, in an iteration over prices."""

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Take a state, in an iteration over events."""

    def ended(self, symbol: str) -> None:
        """Pass over the end of a state, which ``state`` is told as an event."""

    def gap(self, gap: Gap, raw: bytes) -> None:
        """Take a gap, in an iteration over events."""

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """Take the daemon's status, in an iteration over events."""

    def connection(self, connected: bool, why: str) -> None:
        """Pass over an interruption, after which newer values follow."""

    def take(self, key: object, value: T) -> None:
        """Put a value into the slot of its key."""
        if key in self._slots:
            self._counts.conflated += 1
        self._slots[key] = value
        self._ready.set()

    def _fail(self, defect: BaseException) -> None:
        self._defect = defect
        self._ready.set()


class PriceIteration(Iteration[SpotPriceUpdate]):
    """Prices of some symbols, each newer than the one before it by its ``seq``."""

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a price."""
        self.take(update.symbol, update)


class EventIteration(Iteration[Event]):
    """States: first all that are stored, then every change, the newest per symbol, and gaps."""

    def state(self, state: SymbolState, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a state of any symbol or entry."""
        self.take(state.symbol, state)

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take the status of a daemon; that there is none is not an event."""
        if status is not None:
            # A refused entry may be any string, so the daemon's key is none.
            self.take(DaemonStatus, status)

    def gap(self, gap: Gap, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a gap. One that waits longer than the next one is replaced by it."""
        self.take(Gap, gap)
