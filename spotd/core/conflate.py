"""Decides which symbols may be published now: one slot per symbol, newest wins.

The throttle rule of the wire contract, in four sentences. At most one update of a symbol in any
window. The first after a quiet window goes out at once. The newest of the rest goes out when
the window ends. No symbol delays another.

A window opens when Redis has *answered* (``settle``), not when an update was emitted: whatever
Redis took for the call, two updates of a symbol are then never closer than the window. What was
answered together has one window together, and the window is as long for all symbols, so windows
end in the order in which they opened: a FIFO of batches, no heap, and one timer for its head.
While Redis is away nothing settles, so every symbol that changed stays ready, once, with its
newest value. Memory is bounded by the number of symbols.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime
from enum import IntEnum

from spotd.core.messages import Quote


class Phase(IntEnum):
    """Where a slot stands between quiet and published."""

    QUIET = 0  # nothing to publish, no window open
    READY = 1  # changed, and may go out
    HELD = 2  # taken: Redis has not answered yet, or did so less than a window ago


# An enumeration's member is looked up in many steps, and these are needed for every update.
_QUIET, _READY, _HELD = Phase.QUIET, Phase.READY, Phase.HELD


class Slot:
    """The newest price of one symbol, and whether it changed since it was last taken."""

    # The numbers themselves, not the message they came in: replacing a message would free five
    # objects that nobody touched for a while, which at thousands of symbols costs as much again.
    __slots__ = (
        "ask",
        "bid",
        "changed",
        "due_at",
        "fresh_quote",
        "last_price",
        "phase",
        "quoted_at",
        "sold_at",
        "symbol",
    )

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self.bid = 0.0
        self.ask = 0.0
        self.quoted_at: datetime | None = None  # None: no two-sided quote is known yet
        self.last_price: float | None = None
        self.sold_at: datetime | None = None
        self.changed = False
        self.fresh_quote = False  # its quote came from the stream and is not published yet
        self.phase = _QUIET
        self.due_at = 0.0  # since when it has been ready

    @property
    def quote(self) -> Quote | None:
        """The newest two-sided quote."""
        if self.quoted_at is None:
            return None
        return Quote(self.symbol, self.bid, self.ask, self.quoted_at)

    @quote.setter
    def quote(self, quote: Quote) -> None:
        self.bid = quote.bid
        self.ask = quote.ask
        self.quoted_at = quote.at

    def clear(self) -> None:
        """Forget every price. An open window stays open: a symbol that returns is throttled."""
        self.quoted_at = self.last_price = self.sold_at = None
        self.bid = self.ask = 0.0
        self.changed = self.fresh_quote = False


class Conflator:
    """Holds the order of slots that are ready and of windows that are open."""

    def __init__(self, window_s: float) -> None:
        self.ready: deque[Slot] = deque()  # to be read; only this class changes it
        self.now = 0.0  # told by whoever is about to offer, once for many slots
        self._window_s = window_s
        self._windows: deque[tuple[float, Sequence[Slot]]] = deque()

    def offer(self, slot: Slot) -> None:
        """A slot holds something new. The caller counts what that replaced."""
        if slot.phase is _READY and not slot.changed:
            # Cleared while it waited: what it holds now has not waited yet.
            self.ready.remove(slot)
            slot.phase = _QUIET
        slot.changed = True
        if slot.phase is _QUIET:
            slot.phase = _READY
            slot.due_at = self.now
            self.ready.append(slot)

    def take(self, now: float, limit: int) -> list[Slot]:
        """Emit at most ``limit`` changed slots whose window is over, longest waiting first.

        They are in flight until they are given to ``settle``. ``now`` may jump ahead.
        """
        self._end_windows(now)
        ready = self.ready
        taken: list[Slot] = []
        while ready and len(taken) < limit:
            slot = ready.popleft()
            if slot.changed:
                slot.phase = _HELD
                slot.changed = slot.fresh_quote = False
                taken.append(slot)
            else:  # cleared while it waited
                slot.phase = _QUIET
        return taken

    def settle(self, taken: Sequence[Slot], now: float, *, delivered: bool) -> None:
        """Redis answered at ``now``, or it is not known whether it got them.

        What may or may not have been published counts as both: its window opens, and it has
        changed, so that its newest value goes out again.
        """
        if not delivered:
            for slot in taken:
                if slot.quoted_at is not None:
                    slot.changed = slot.fresh_quote = True
        if taken:
            self._windows.append((now + self._window_s, taken))
        self._end_windows(now)

    def next_at(self) -> float | None:
        """When ``take`` may next have something; None while nothing changed or is windowed.

        Minus infinity means at once.
        """
        if self.ready:
            return float("-inf")
        return self._windows[0][0] if self._windows else None

    def next_together(self) -> int:
        """How many slots have the window that ends next."""
        return len(self._windows[0][1]) if self._windows else 0

    def end_all_windows(self) -> None:
        """Give up the throttle: what is left must go out now, or never."""
        self._end_windows(float("inf"))

    def _end_windows(self, now: float) -> None:
        windows = self._windows
        while windows and windows[0][0] <= now:
            end, slots = windows.popleft()
            for slot in slots:
                if slot.changed:
                    slot.phase = _READY
                    slot.due_at = end
                    self.ready.append(slot)
                else:
                    slot.phase = _QUIET
