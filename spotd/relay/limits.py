"""Decides whom the relay lets in, and how much each client may ask. ``now`` is monotonic seconds.

Must not await, log or read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

CLOSE_S = 2.0  # for a client to answer a close frame, and to read what was sent before
GOODBYE_S = 2.5  # for all clients, when the relay stops


@dataclass(frozen=True, slots=True)
class Limits:
    """What one relay grants.

    ``hello`` tells ``symbols``, ``total_symbols``, ``message_bytes`` and ``messages_per_s``.
    """

    symbols: int = 200  # of one client
    total_symbols: int | None = None  # of all clients together
    message_bytes: int = 65_536
    messages_per_s: int = 10
    message_burst: int = 50
    clients: int = 10_000
    connects_per_s: int = 1_000


class Bucket:
    """A token bucket: ``burst`` at once, then ``per_s``."""

    __slots__ = ("_at", "_burst", "_left", "_per_s")

    def __init__(self, per_s: float, burst: float, now: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._left = burst
        self._at = now

    def take(self, now: float) -> bool:
        """Take one token. Return False where no token is left."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Full(NamedTuple):
    """Why a connection is not let in: a sentence, and when to try again, in seconds."""

    message: str
    retry_after_s: int


class Admission:
    """Counts connections that stay (websockets and event streams)."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._connects = Bucket(limits.connects_per_s, limits.connects_per_s, now)
        self.clients = 0

    def full(self) -> Full | None:
        """Return why no connection may come in, however few do. None: there is room."""
        return Full("the relay is full", 5) if self.clients >= self._limits.clients else None

    def enter(self, now: float) -> Full | None:
        """Let a connection in and count it, or return why not."""
        full = self.full()
        if full is None and not self._connects.take(now):
            full = Full("too many connections at once", 1)
        if full is None:
            self.clients += 1
        return full

    def leave(self) -> None:
        """Count a connection that has ended."""
        self.clients -= 1
