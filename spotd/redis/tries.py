"""Decides which of several addresses is tried when, and when connections are worth dropping.

Pure: ``now`` is monotonic seconds. Must not connect to anything.

A try that hangs is not cancelled when the next one begins, because the network may be slow, not
dead. The first try that succeeds ends the others.
"""

from __future__ import annotations

NEXT_AFTER_S = 0.25  # RFC 8305 recommends this delay between two addresses
# A packet that the network loses is sent again by TCP after 1, 3 and 7 s. As a consequence, a new
# try may get through where an older one still waits.
AGAIN_AFTER_S = 0.5
TRY_S = 3.0
DROP_AGAIN_AFTER_S = 0.5


class Tries:
    """When to try each of ``count`` addresses, numbered from 0, from ``now`` on.

    The next address begins ``NEXT_AFTER_S`` after the one before, or at once if no try is under
    way. When all have begun, those of which no try has failed yet begin again in the same order,
    one every ``AGAIN_AFTER_S``. Each try may take ``try_s`` seconds, and all end when the one that
    began last in the first round has to end.
    """

    def __init__(self, count: int, now: float, *, try_s: float = TRY_S) -> None:
        self.try_s = try_s
        self.ends_at = now + try_s + NEXT_AFTER_S * (count - 1)
        self._first_round = list(range(count))
        self._hanging: list[int] = []  # in the order of their latest begin; none has failed
        self._next_at = now

    def begin(self, now: float, *, idle: bool) -> int | None:
        """Return the address to try now, None for none; ``idle``: no try is under way."""
        if now >= self.ends_at:
            return None
        if self._first_round:
            if now < self._next_at and not idle:
                return None
            number = self._first_round.pop(0)
        elif self._hanging and now >= self._next_at and not idle:
            number = self._hanging.pop(0)
        else:
            return None
        self._hanging.append(number)
        self._next_at = now + (NEXT_AFTER_S if self._first_round else AGAIN_AFTER_S)
        return number

    def failed(self, number: int) -> None:
        """Take in that a try of an address failed: it is not tried again."""
        if number in self._hanging:
            self._hanging.remove(number)

    def wait_s(self, now: float) -> float:
        """Return how long to wait, at most, until ``begin`` is to be asked again."""
        more = bool(self._first_round or self._hanging)
        return max(0.0, (min(self._next_at, self.ends_at) if more else self.ends_at) - now)

    def left_s(self, now: float) -> float:
        """Return how long a try that begins now may take."""
        return max(0.0, min(self.try_s, self.ends_at - now))


class Drops:
    """When all connections are dropped because a server answers that it takes no writes.

    An address that leads to a wrong server for long must not be connected to without a pause. So
    ``DROP_AGAIN_AFTER_S`` lie between two drops.
    """

    def __init__(self) -> None:
        self._dropped_at = float("-inf")

    def is_due(self, now: float) -> bool:
        """Return whether to drop all connections now; it counts as done then."""
        if now - self._dropped_at < DROP_AGAIN_AFTER_S:
            return False
        self._dropped_at = now
        return True
