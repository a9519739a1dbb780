"""Decides which value one consumer gets next. ``now`` is monotonic seconds.

A slow consumer gets the newest value of each key, instead of a growing backlog: memory is bounded
by the number of keys. Must not talk to anything.
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Generic, TypeVar

T = TypeVar("T")


class Slots(Generic[T]):
    """The newest value of each key, in the order in which the keys have waited.

    ``max_hz``: prices of one symbol are taken at most that often. A state is never held back, and
    a price that came before it is not taken after it. Each call is atomic, since another thread
    may take what the event loop puts.
    """

    def __init__(self, *, max_hz: float | None = None) -> None:
        if max_hz is not None and not max_hz > 0:
            raise ValueError("max_hz must be greater than 0")
        self.skipped = 0  # values that were replaced by newer ones before they were taken
        self._window_s = None if max_hz is None else 1 / max_hz
        self._ready: OrderedDict[object, T] = OrderedDict()
        self._held: dict[str, T] = {}  # prices whose symbol has an open window
        # Symbol -> when its window ends. All windows are of one length, so the first ends first.
        self._windows: OrderedDict[str, float] = OrderedDict()
        self._lock = Lock()

    def put(self, key: object, value: T) -> None:
        """Take in a value that is not a price of a symbol. It waits where its key waits."""
        with self._lock:
            self.skipped += key in self._ready
            self._ready[key] = value

    def put_price(self, symbol: str, value: T, now: float) -> None:
        """Take in a price. It waits where the symbol waits, but behind a state of the symbol."""
        with self._lock:
            if symbol in self._ready:
                self.skipped += 1
                self._ready[symbol] = value
                if (symbol,) in self._ready:
                    self._ready.move_to_end(symbol)
            elif self._windows and self._windows.get(symbol, now) > now:
                self.skipped += symbol in self._held
                self._held[symbol] = value
            else:
                # The window has ended, and a price that it held is not released yet.
                if symbol in self._held:
                    del self._held[symbol]
                    self.skipped += 1
                self._ready[symbol] = value

    def put_state(self, symbol: str, value: T) -> None:
        """Take in a state of a symbol, which waits behind the prices that came before."""
        with self._lock:
            if symbol in self._held:
                self._ready[symbol] = self._held.pop(symbol)
            key = (symbol,)
            self.skipped += key in self._ready
            self._ready[key] = value
            self._ready.move_to_end(key)

    def take(self, now: float) -> T | None:
        """Return the value that has waited longest; None if there is none."""
        with self._lock:
            if self._windows:
                self._release(now)
            if not self._ready:
                return None
            key, value = self._ready.popitem(last=False)
            if self._window_s is not None and isinstance(key, str):
                self._windows[key] = now + self._window_s
                self._windows.move_to_end(key)
            return value

    def next_at(self) -> float | None:
        """Return when to try again, if nothing is put before; None: only then."""
        with self._lock:
            return next(iter(self._windows.values())) if self._held else None

    def _release(self, now: float) -> None:
        while self._windows:
            symbol, ends_at = next(iter(self._windows.items()))
            if ends_at > now:
                return
            del self._windows[symbol]
            if symbol in self._held:
                self._ready[symbol] = self._held.pop(symbol)
