"""What is known at one moment: what spotd says, and what is. Plain values; nothing here acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.soak.contradictions import Window
from tests.soak.plan import Hidden, Truth

Json: TypeAlias = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Said:
    """What one daemon said over HTTP."""

    state: str
    code: str | None
    instance: str
    leader: bool
    connected: bool
    ready: bool
    reasons: str
    quotes: int = 0
    trades: int = 0
    published: int = 0
    symbols: Mapping[str, int] = field(default_factory=dict)
    """State to number of symbols, by ``spotd_symbols``."""
    breaker: str = "closed"
    breaker_metric: float = 0.0


@dataclass(frozen=True, slots=True)
class AlpacaSession:
    """An authenticated session, as Alpaca sees it."""

    id: int
    symbols: frozenset[str] = frozenset()
    """Those whose quotes are subscribed."""
    since: Mapping[str, float] = field(default_factory=dict)
    """Symbol to when it was first seen to be subscribed, in monotonic seconds."""


@dataclass(frozen=True, slots=True)
class DaemonNow:
    """One daemon: what it said, None if it did not answer, and what is true of its process."""

    name: str
    said: Said | None = None
    instance: str = ""
    frozen: bool = False
    stopping: bool = False
    """It was asked to stop."""
    acts_since: float = 0.0
    """When it was started or last went on after a freeze, in monotonic seconds."""
    sessions: tuple[AlpacaSession, ...] = ()
    key_seen_at: float = float("-inf")
    """When the leader key was last read as its own, in monotonic seconds."""
    attempted: int = 0
    """The newest session that it opened or tried to open."""
    attempted_at: float = float("-inf")
    published_at: float = float("-inf")
    """When it was last read that its number of published updates had risen."""

    @property
    def subscribed(self) -> frozenset[str]:
        """The symbols that Alpaca sends to it."""
        return frozenset().union(*(session.symbols for session in self.sessions))


@dataclass(frozen=True, slots=True)
class RedisNow:
    """What Redis held when it was read."""

    token: str | None = None
    status: Json | None = None
    states: dict[str, str] = field(default_factory=dict)
    """Symbol to state."""
    last: frozenset[str] = frozenset()
    desired: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Moment:
    """All of it. Times are monotonic seconds."""

    now: float
    daemons: tuple[DaemonNow, ...] = ()
    redis: RedisNow | None = None
    """None: it did not answer."""
    redis_since: float = 0.0
    """Since when it answers, or since when it does not."""
    behind: dict[str, float] = field(default_factory=dict)
    """Symbol to the time of the first quote that no update reflects."""
    calm_since: float | None = None
    """Since when there has been no fault; None: there is one."""
    unread_at: float = float("-inf")
    """When Redis was last found not to answer."""
    hidden: Hidden = field(default_factory=dict)
    """When faults of the stream hid something from spotd, lately and now."""
    relay_ready: bool | None = None

    @property
    def holder(self) -> DaemonNow | None:
        """The daemon whose token the leader key holds, as read."""
        if self.redis is None or not self.redis.token:
            return None
        for daemon in self.daemons:
            if daemon.instance and self.redis.token.startswith(f"{daemon.instance}:"):
                return daemon
        return None

    def hides(self, *truths: Truth) -> tuple[Window, ...]:
        """Return when faults hid any of these from spotd."""
        return tuple(window for truth in truths for window in self.hidden.get(truth, ()))

    def calm_for(self, seconds: float) -> bool:
        """Return whether the last fault ended at least this long ago."""
        return self.calm_since is not None and self.now - self.calm_since >= seconds
