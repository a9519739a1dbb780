"""Decides when the stream may be tried again: a circuit breaker. Must not sleep or read a clock.

Closed: tries are allowed (their pace is the backoff's business). ``failures`` failures in a row
open it for ``recovery_s``; then one try is let through, half-open: it closes the breaker or
opens it anew.
"""

from __future__ import annotations

from spotd.models import BreakerStateName


class Breaker:
    """The circuit breaker around the stream, ``spot_price_stream``."""

    def __init__(self, *, failures: int, recovery_s: float) -> None:
        self.state: BreakerStateName = "closed"
        self.failures = 0
        self._threshold = failures
        self._recovery_s = recovery_s
        self._open_until = 0.0

    def wait_s(self, now: float) -> float:
        """Seconds until a try is allowed; 0 means now."""
        return max(0.0, self._open_until - now) if self.state == "open" else 0.0

    def attempt(self, now: float) -> None:
        """A try begins. Raises AssertionError while the breaker forbids it."""
        if self.state == "open":
            if now < self._open_until:
                raise AssertionError("a try while the breaker is open")
            self.state = "half_open"

    def failed(self, now: float) -> None:
        """The try, or the connection that came of it, failed."""
        self.failures += 1
        if self.state == "half_open" or self.failures >= self._threshold:
            self.state = "open"
            self._open_until = now + self._recovery_s

    def succeeded(self) -> None:
        """Data or an acknowledgement was seen: being connected alone is no success."""
        self.state = "closed"
        self.failures = 0
