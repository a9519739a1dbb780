"""Decides what the daemon's own channels tell: whether wakes are heard, and whether it is alone.

Pub/sub knows no database numbers. As a consequence, daemons with the same prefixes in two databases
of one server each lead, and publish on the same channels. So do daemons in one database that differ
in their key prefix alone. Each leader says its token on ``leaders:spot:`` whenever it renews its
key, so all of them hear it.

Must not talk to Redis.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

UNHEARD_AFTER_S = 3.0


@dataclass(frozen=True, slots=True)
class Channels:
    """What the channels tell at one moment.

    ``unheard``: why no wake can be heard although Redis answers, a sentence. ``other_leader``: the
    token of a daemon that leads too, and publishes on our channels.
    """

    unheard: str | None = None
    other_leader: str | None = None


class ChannelMonitor:
    """The one owner of what the channels tell.

    ``is_ours`` says whether a token is of this daemon. Each method returns the value after what it
    was told: the same object as before while nothing changed.
    """

    def __init__(self, is_ours: Callable[[str], bool], *, ttl_s: float) -> None:
        """``ttl_s`` is that of our leader key, which is renewed several times meanwhile."""
        self.channels = Channels()
        self._is_ours = is_ours
        self._ttl_s = ttl_s
        self._failing_since: float | None = None
        self._other: tuple[str, int, float] | None = None  # token, our term, and when it was heard
        self._other_until = 0.0

    def listening(self) -> Channels:
        """Take in that the channels are listened to."""
        self._failing_since = None
        return self._set(unheard=None)

    def failed(self, now: float, why: str, *, refused: bool, away: bool) -> Channels:
        """Take in that the channels cannot be listened to. ``away``: no other call is answered.

        A refusal is said at once, since it stays until somebody changes it. Another failure may
        pass by itself, and is said after ``UNHEARD_AFTER_S``.
        """
        self._other = None
        if away:
            self._failing_since = None
            return self._set(unheard=None, other_leader=None)
        if self._failing_since is None:
            self._failing_since = now
        if refused or now - self._failing_since >= UNHEARD_AFTER_S:
            return self._set(unheard=self.channels.unheard or why, other_leader=None)
        return self._set(other_leader=None)

    def announced(self, token: str, now: float, *, term: int | None) -> Channels:
        """Take in that a leader says its token. ``term`` is that of our leadership, None without.

        The leader of our own database cannot renew its key once we have it, but what it said before
        may arrive late. So another leader is one that is heard twice in one term of ours.
        """
        if term is None or (self._other is not None and self._other[1] != term):
            self._other = None
            self._set(other_leader=None)
        if term is None:
            return self.channels
        if self._is_ours(token):
            return self._set(other_leader=None) if now >= self._other_until else self.channels
        before, self._other = self._other, (token, term, now)
        if before is None or before[0] != token:
            return self.channels
        # Its TTL may be longer than ours. It is gone after three renewals that did not come.
        self._other_until = now + max(self._ttl_s, 3 * (now - before[2]))
        return self._set(other_leader=token)

    def _set(self, **changed: str | None) -> Channels:
        channels = replace(self.channels, **changed)
        if channels != self.channels:
            self.channels = channels
        return self.channels
