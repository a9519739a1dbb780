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
    message_bytes: int = 65_536
    messages_per_s: int = 10
    message_burst: int = 50
    total_symbols: int | None = None  # of all clients together
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
        """Take one token. Return False where there is none."""
        # A clock that does not advance must not take tokens away.
        passed = max(0.0, now - self._at)
        self._at = max(now, self._at)
        self._left = min(self._burst, self._left + passed * self._per_s)
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def wait_s(self) -> float:
        """Return the seconds from the last ``take`` until there is a token."""
        return max(0.0, 1 - self._left) / self._per_s


class Full(NamedTuple):
    """Why a connection is not let in: a word, a sentence, and when to try again, in seconds."""

    code: str
    message: str
    retry_after_s: int


class Admission:
    """Counts connections that stay (websockets and event streams)."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._connects = Bucket(limits.connects_per_s, limits.connects_per_s, now)
        self.clients = 0

    def enter(self, now: float) -> Full | None:
        """Let a connection in and count it, or say why not."""
        if self.clients >= self._limits.clients:
            return Full("too_many_clients", "the relay is full", 5)
        if not self._connects.take(now):
            # Whole seconds, as Retry-After has them, and at least one.
            return Full(
                "too_many_connects",
                "too many connections at once",
                int(self._connects.wait_s()) + 1,
            )
        self.clients += 1
        return None

    def leave(self) -> None:
        """Count a connection that has ended."""
        self.clients -= 1
