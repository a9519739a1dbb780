"""Decides when Alpaca is tried again: breaker, backoff, connection limit, Retry-After.

Must not sleep, read a clock or draw a random number: ``now`` and ``jitter`` are arguments.

1. A failed session is followed by a pause that doubles with each failure in a row, up to
   ``most_s``. Jitter is added, so that several daemons do not try at the same moment. Neither a
   connection nor an acknowledgement ends the row: otherwise a server that accepts every session
   and closes it at once would always be tried after the shortest pause. A session ends the row if
   it fails ``steady_s`` or later after its first acknowledgement.
2. The circuit breaker ``spot_price_stream`` is closed, open or half open. ``breaker_failures``
   failed sessions without an acknowledgement between them open it for ``breaker_recovery_s``.
   The next try is half open: an acknowledgement closes the breaker, a failure opens it anew.
3. Connection limit (error 406): another session holds the account's one connection. The refused
   session is the new one; the other one is not closed. It may end at any moment, and the server
   frees a session that died without a close frame after about 90 s. So 406 is no failure, for
   the breaker and for the backoff: the pauses are short at first, then ``connection_limit_s``.
   Only a session that is authenticated ends a row of 406.
4. HTTP 429 at the handshake is followed by at least ``rate_limit_s``. Where the server names a
   time (Retry-After), the pause is at least as long, up to ``server_asks_most_s``.
5. The wait of an open breaker belongs to this process, so it outlasts the loss of leadership. A
   pause does not: a new leader tries at once.

Sources: Alpaca's documentation of its stream (406, one connection for an account) and reports of
its users (90 s, 429 at the handshake). Neither says whether a 429 names a time.
"""

from __future__ import annotations

from dataclasses import dataclass

from spotd.models import BreakerStateName

SERVER_ASKS_MOST_S = 300.0  # a longer Retry-After is cut to this
_AT_ONCE = float("-inf")
_MOST_DOUBLINGS = 29  # 2 ** 29 times any pause is far beyond ``most_s``, and a float can hold it


@dataclass(frozen=True, slots=True)
class Pauses:
    """How long the pauses between tries are, in seconds."""

    first_s: float = 0.5  # after the first failure in a row
    most_s: float = 30.0
    jitter_s: float = 0.5  # added to a backoff pause, at most
    limit_first_s: tuple[float, ...] = (2.0, 4.0)  # after the first 406 in a row, the second …
    connection_limit_s: float = 10.0  # … and each later one; the first ones are no longer
    rate_limit_s: float = 10.0  # after HTTP 429, at least
    server_asks_most_s: float = SERVER_ASKS_MOST_S
    steady_s: float = 30.0  # after its first acknowledgement, a session that lasted ends the row


class Pacing:
    """When the next session may be tried. Attributes are to be read only.

    ``breaker``: state of the circuit breaker. ``failures``: number of failed sessions in a row.
    ``next_try_at``: monotonic seconds; minus infinity means at once.
    """

    def __init__(
        self, *, breaker_failures: int, breaker_recovery_s: float, pauses: Pauses | None = None
    ) -> None:
        self.breaker: BreakerStateName = "closed"
        self.failures = 0
        self.next_try_at = _AT_ONCE
        self._breaker_failures = breaker_failures
        self._breaker_recovery_s = breaker_recovery_s
        self._pauses = Pauses() if pauses is None else pauses
        self._open_until = _AT_ONCE  # end of the breaker's last wait
        self._unacknowledged = 0  # sessions failed since the last acknowledgement
        self._limited = 0  # 406 in a row
        self._served_since: float | None = None  # first acknowledgement of this session

    def trying(self, now: float) -> None:
        """Take in that a try begins. Raises AssertionError before ``next_try_at``."""
        if now < self.next_try_at:
            raise AssertionError("a try before its time")
        if self.breaker == "open":
            self.breaker = "half_open"
        self._served_since = None

    def connected(self) -> None:
        """Take in that the session is authenticated: a row of 406 ends."""
        self._limited = 0

    def served(self, now: float) -> bool:
        """Take in that Alpaca acknowledged a request: the breaker closes.

        Return whether that ends an outage: there were failures, or the breaker was not closed.
        """
        recovered = self.breaker != "closed" or self._unacknowledged > 0
        self.breaker = "closed"
        self._unacknowledged = 0
        if self._served_since is None:
            self._served_since = now
        return recovered

    def failed(
        self,
        now: float,
        *,
        rate_limited: bool = False,
        after_s: float | None = None,
        jitter: float,
    ) -> float:
        """Take in that the try, or the session that it opened, failed. Return the pause in seconds.

        ``rate_limited``: by HTTP 429. ``after_s``: the wait that the server asked for.
        ``jitter``: a random number in [0, 1).
        """
        self._count_failure(now)
        pauses = self._pauses
        doublings = min(self.failures - 1, _MOST_DOUBLINGS)
        pause_s = min(pauses.first_s * 2.0**doublings, pauses.most_s) + jitter * pauses.jitter_s
        if rate_limited:
            pause_s = max(pause_s, pauses.rate_limit_s)
        pause_s = max(pause_s, min(after_s or 0.0, pauses.server_asks_most_s))
        return self._pause(now, pause_s)

    def connection_limited(self, now: float, *, jitter: float) -> float:
        """Take in that another session holds the connection (406). Return the pause in seconds.

        The pause varies by up to a fifth; ``jitter`` is a random number in [0, 1).
        """
        self._limited += 1
        most_s = self._pauses.connection_limit_s
        rising_s = (*self._pauses.limit_first_s, most_s)
        pause_s = min(rising_s[min(self._limited, len(rising_s)) - 1], most_s)
        return self._pause(now, pause_s * (0.8 + 0.4 * jitter))

    def leadership_lost(self) -> None:
        """Take in that leadership is lost: the pause ends, the wait of an open breaker does not."""
        self.next_try_at = self._open_until if self.breaker == "open" else _AT_ONCE

    def _count_failure(self, now: float) -> None:
        since, self._served_since = self._served_since, None
        if since is not None and now - since >= self._pauses.steady_s:
            self.failures = 0
        self.failures += 1
        self._unacknowledged += 1
        if self.breaker == "half_open" or self._unacknowledged >= self._breaker_failures:
            self.breaker = "open"
            self._open_until = now + self._breaker_recovery_s

    def _pause(self, now: float, pause_s: float) -> float:
        self.next_try_at = now + pause_s
        if self.breaker == "open":
            self.next_try_at = max(self.next_try_at, self._open_until)
        return max(pause_s, self.next_try_at - now)
