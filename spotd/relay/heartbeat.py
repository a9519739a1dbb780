"""Decides when a connection is pinged, and when it is given up. ``now`` is monotonic seconds.

A browser answers pings by itself, also while its page hangs. A client that reads nothing keeps its
connection for a while: it may be a laptop that wakes up.
"""

from __future__ import annotations

from enum import Enum, auto

from spotd.relay.wire import Wire

PING_EVERY_S = 20.0
COMMENT_EVERY_S = 15.0
GIVE_UP_S = 60.0  # without anything heard since a ping, or without anything read


class Beat(Enum):
    """What to do for a connection now."""

    NOTHING = auto()
    PING = auto()  # of event streams: a comment
    GIVE_UP = auto()


class Heartbeat:
    """One connection."""

    __slots__ = ("_asked_at", "_beat_at", "_blocked_at", "_every_s", "_hears")

    def __init__(self, wire: Wire, now: float) -> None:
        # An event stream never answers, and behind an edge that is handed messages its server
        # pings, and keeps the answers for itself.
        self._hears = wire is Wire.WEBSOCKET
        self._every_s = PING_EVERY_S if self._hears else COMMENT_EVERY_S
        self._beat_at = now
        self._asked_at: float | None = None  # the first ping since something was heard
        self._blocked_at: float | None = None

    def heard(self) -> None:
        """Bytes came from the client."""
        self._asked_at = None

    def blocked(self, now: float) -> None:
        """What was written does not leave: the client does not read."""
        self._blocked_at = now

    def unblocked(self) -> None:
        """All that was written has left."""
        self._blocked_at = None

    def beat(self, now: float) -> Beat:
        """Return what to do now."""
        if self._blocked_at is not None:
            # What would be written now would only wait behind the rest.
            return Beat.GIVE_UP if now - self._blocked_at >= GIVE_UP_S else Beat.NOTHING
        if self._asked_at is not None and now - self._asked_at >= GIVE_UP_S:
            return Beat.GIVE_UP
        if now - self._beat_at < self._every_s:
            return Beat.NOTHING
        self._beat_at = now
        if self._hears and self._asked_at is None:
            self._asked_at = now
        return Beat.PING
