"""What one consumer reads: its part of the subscription, its leases, and the newest values.

Must not talk to Redis itself. The two faces, ``AsyncIteration`` and ``SyncIteration``, take from
here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

from spotd.client.joins import Reader, Told
from spotd.client.leases import Leases
from spotd.client.slots import Slots
from spotd.client.subscription import Subscription
from spotd.client.tasks import stop
from spotd.client.telling import Counts
from spotd.errors import RedisUnavailableError
from spotd.models import DaemonStatus, Gap, SpotPriceUpdate, SymbolState

Event = DaemonStatus | SymbolState | Gap
T = TypeVar("T")

log = logging.getLogger("spotd.client")


class Iteration(Generic[T]):
    """One reader of a client's subscription, with a slot per symbol for what is not yet taken.

    ``wake`` is called on the event loop whenever ``take`` may return something else, or ``defect``
    is set: what ended the subscription. Whoever takes closes the iteration then, and raises it.
    """

    def __init__(
        self,
        subscription: Subscription,
        counts: Counts,
        *,
        symbols: Sequence[str] = (),
        leases: Leases | None = None,
        events: bool = False,
        everything: bool = False,
        max_hz: float | None = None,
    ) -> None:
        self.wake: Callable[[], None] = _nothing
        self.closed = False
        self.defect: BaseException | None = None
        self._subscription = subscription
        self._counts = counts
        self._symbols = symbols
        self._leases = leases
        ended = None if leases is None else leases.restore
        self._reader = Reader(self, self._fail, events=events, everything=everything, ended=ended)
        self._slots: Slots[T] = Slots(max_hz=max_hz)
        self._begun = False
        self._opened = False
        self._closing = asyncio.Lock()

    @property
    def opened(self) -> bool:
        """Return whether it has joined."""
        return self._opened

    @property
    def skipped(self) -> int:
        """Return how many values were replaced by newer ones before they were taken."""
        return self._slots.skipped

    async def open(self) -> None:
        """Join. Raises RedisUnavailableError; after later interruptions it joins by itself.

        A call that was cancelled may be made again, and goes on.
        """
        if self._opened:
            return
        if not self._begun:
            if self.closed:
                return
            self._begun = True
            if self._leases is not None:
                self._leases.hold(self._symbols)
            self._subscription.attach(self._reader, self._symbols, waits=True)
        try:
            if self._leases is not None:
                await self._leases.confirm(self._symbols)
            await self._subscription.joined(self._reader)
        except asyncio.CancelledError:
            raise
        except BaseException:
            if self.closed:
                return  # closed meanwhile, which ends an iteration without an error
            await self.aclose()
            raise
        if not self.closed and not self._opened:  # another task may have opened it meanwhile
            self._opened = True
            self._joined()

    def take(self) -> T | None:
        """Return the next value; None if there is none now."""
        return None if self.closed else self._slots.take(time.monotonic())

    def wait_s(self) -> float | None:
        """Return after which seconds to take again, if ``wake`` is not called; None: only then."""
        at = self._slots.next_at()
        return None if at is None else max(0.0, at - time.monotonic())

    async def aclose(self) -> None:
        """End the demand and the reading. May be called twice."""
        held, self.closed = self._begun and not self.closed, True
        self.wake()
        if self._leases is not None and held:
            self._leases.release(self._symbols)
        # A collected iteration is closed in a task of its own, perhaps while the client closes the
        # same iteration. Then both must wait until the leases are gone.
        async with self._closing:
            await self._subscription.detach(self._reader)
            if self._leases is not None:
                await self._leases.settle()

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:
        """Take a price, in an iteration over prices."""

    def state(self, state: SymbolState, raw: bytes) -> None:
        """Take a state, in an iteration over states."""

    def ended(self, symbol: str) -> None:
        """Take the end of a state, in an iteration over states of some symbols."""

    def gap(self, gap: Gap, raw: bytes) -> None:
        """Take a gap, in an iteration over events."""

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:
        """Take the daemon's status, in an iteration over states."""

    def connection(self, connected: bool, why: str) -> None:
        """Take an interruption, after which newer values follow."""

    def _joined(self) -> None:
        """Take note that it has joined."""

    def _put(self, put: Callable[..., None], *value: object) -> None:
        before = self._slots.skipped
        put(*value)
        self._counts.conflated += self._slots.skipped - before
        self.wake()

    def _fail(self, defect: BaseException) -> None:
        self.defect = defect
        self.wake()


class EventIteration(Iteration[Event]):
    """States: first all that are stored, then every change, the newest per symbol, and gaps."""

    def state(self, state: SymbolState, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a state of any symbol or entry."""
        self._put(self._slots.put, state.symbol, state)

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take the status of a daemon; that there is none is not an event."""
        if status is not None:
            # A refused entry may be any string, so the daemon's key is none.
            self._put(self._slots.put, DaemonStatus, status)

    def gap(self, gap: Gap, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a gap. One that waits longer than the next one is replaced by it."""
        self._put(self._slots.put, Gap, gap)


class PriceIteration(Iteration[T]):
    """Prices of some symbols, each newer than the one before it by its ``seq``.

    ``explain`` is asked for which reasons some symbols have no price. The reasons are logged once,
    if there is still none ``warn_after_s`` seconds after joining. Stored prices may be those of a
    daemon that is gone, or that publishes elsewhere. As a consequence, ``explain`` is asked too
    where nothing followed them, and says nothing where the daemon is well.
    """

    def __init__(
        self,
        subscription: Subscription,
        counts: Counts,
        *,
        symbols: Sequence[str],
        explain: Callable[[Sequence[str]], Awaitable[Sequence[str]]],
        warn_after_s: float,
        **options: Any,
    ) -> None:
        super().__init__(subscription, counts, symbols=symbols, **options)
        self._unpriced = set(symbols)
        self._stored_alone = True  # no price came after those that were stored
        self._explain = explain
        self._warn_after_s = warn_after_s
        self._warning: asyncio.Task[None] | None = None

    def price(self, update: SpotPriceUpdate, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a price."""
        if self._unpriced:
            self._unpriced.discard(update.symbol)
        if self._opened:
            self._stored_alone = False
        self._put(self._slots.put_price, update.symbol, update, time.monotonic())

    async def aclose(self) -> None:
        """End the demand and the reading. May be called twice."""
        warning, self._warning = self._warning, None
        if warning is not None:
            await stop(warning)
        await super().aclose()

    def _joined(self) -> None:
        self._warning = asyncio.create_task(self._warn(), name="spotd-client-warning")

    async def _warn(self) -> None:
        await asyncio.sleep(self._warn_after_s)
        unpriced = [symbol for symbol in self._symbols if symbol in self._unpriced]
        if not unpriced and not self._stored_alone:
            return
        try:
            reasons = await self._explain(unpriced)
        except RedisUnavailableError as error:
            reasons = [str(error)]
        if reasons:
            what = "price" if unpriced else "new price"
            text = "; ".join(reasons)
            log.warning("no %s after %g s: %s", what, self._warn_after_s, text)


class StateIteration(PriceIteration[SpotPriceUpdate | SymbolState]):
    """Prices and states of some symbols; no state comes before a price that it speaks of.

    States count only while there is a status and a connection. Without one of them each symbol is
    told as ``stale``, and its state anew when both are back.
    """

    def __init__(self, subscription: Subscription, counts: Counts, **options: Any) -> None:
        super().__init__(subscription, counts, events=True, **options)
        self._states: dict[str, SymbolState] = {}
        self._daemon = False  # whether a status is there
        self._reader.joined = self._tell_all
        self._reader.status.forget()

    def state(self, state: SymbolState, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take a state of a symbol."""
        self._states[state.symbol] = state
        if self._daemon and self._reader.is_joined:
            self._tell(state)

    def ended(self, symbol: str) -> None:
        """Take the end of a state."""
        self.state(SymbolState(symbol=symbol, state="ended", reason=None, since=_now()), b"")

    def status(self, status: DaemonStatus | None, raw: bytes) -> None:  # noqa: ARG002 - as told
        """Take the status; without one, states do not count."""
        before, self._daemon = self._daemon, status is not None
        if self._reader.is_joined and before != self._daemon:
            self._tell_all()

    def connection(self, connected: bool, why: str) -> None:
        """Take an interruption, after which status and states are read anew."""
        if connected:
            return
        self._daemon = False
        self._states.clear()
        self._reader.status.forget()
        for follow in self._reader.follows.values():
            follow.state = Told()
        self._suspect("redis_away", why)

    def _tell_all(self) -> None:
        # Not before the stored prices were told: a state that was announced while these were
        # fetched may speak of them.
        if not self._daemon:
            self._suspect("no_daemon", "no daemon runs")
        for state in self._states.values() if self._daemon else ():
            self._tell(state)

    def _suspect(self, code: str, why: str) -> None:
        since = _now()
        for symbol in self._symbols:
            self._tell(
                SymbolState(symbol=symbol, state="stale", reason=why, code=code, since=since)
            )

    def _tell(self, state: SymbolState) -> None:
        self._put(self._slots.put_state, state.symbol, state)


def _now() -> datetime:
    return datetime.now(UTC)


def _nothing() -> None:
    """Do nothing until a face of the iteration is made."""
