"""Decides when a subscription has to leave its server, because messages arrive at another one.

Pure: ``now`` is monotonic seconds. Must not talk to anything.

A replica receives every message from its master. A client may therefore read from a replica by
choice. But a master that becomes a replica was replaced, and what is published at its successor
arrives only once the replica follows that one.
"""

from __future__ import annotations

FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 8.0


class Role:
    """The role of the server, as it is seen now and then."""

    def __init__(self) -> None:
        self._was_master = False
        self._left_at: float | None = None  # when connections were dropped last, since the change
        self._pause_s = FIRST_PAUSE_S

    def seen(self, *, is_master: bool, follows: bool, now: float) -> bool:
        """Take in a role. Return whether to drop all connections and connect anew.

        ``follows``: the replica is connected to its master. After the change it is left once in any
        case, and again, after pauses that double, as long as it does not follow a master: the
        address may lead to another server by then.
        """
        if is_master:
            self._was_master, self._left_at, self._pause_s = True, None, FIRST_PAUSE_S
            return False
        if not self._was_master:
            return False
        if self._left_at is not None:
            if follows or now - self._left_at < self._pause_s:
                return False
            self._pause_s = min(2 * self._pause_s, MOST_PAUSE_S)
        self._left_at = now
        return True
