"""Decides what the facts mean: the daemon's state, and what readiness lacks.

Everything that spotd says of itself is derived from one ``Facts``. Each value in it has one owner,
and nothing else goes in.

Must not write anything, and must not read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spotd.core.demand import Demand
from spotd.core.lag import LagState
from spotd.core.leadership import Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.subscription_state import SubscriptionState
from spotd.models import BreakerStateName, DaemonStateName

Phase = Literal["closed", "connecting", "open", "waiting"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream. ``reason`` is the sentence that says why it is ``waiting``.

    ``closed``: we have no right to a stream, or need none yet. ``open``: it is authenticated.
    ``waiting``: it is down and the next try is timed.
    """

    phase: Phase = "closed"
    reason: str | None = None
    subscriptions: SubscriptionState = field(default_factory=SubscriptionState)
    breaker: BreakerStateName = "closed"

    @property
    def serves(self) -> bool:
        """Whether the stream is open and brings prices of any symbol."""
        return self.phase == "open" and bool(self.subscriptions.active)


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known at one moment."""

    leadership: Leadership = field(default_factory=Leadership)
    redis: RedisHealth = field(default_factory=RedisHealth)
    demand: Demand = field(default_factory=Demand)
    stream: StreamState = field(default_factory=StreamState)
    halted: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    lag: LagState = field(default_factory=LagState)
    stopping: bool = False


def daemon_state(facts: Facts, now: float) -> tuple[DaemonStateName, str | None]:  # noqa: PLR0911
    """Return the daemon's state, and the sentence that explains it.

    Source: the wire contract, section 4. The state is none of ``starting`` and ``standby`` exactly
    while we may publish, and ``streaming`` only while we are subscribed and Redis answers.
    """
    leadership, redis, demand, stream = facts.leadership, facts.redis, facts.demand, facts.stream
    if facts.stopping:
        return "stopping", None
    if not leadership.may_publish(now):
        if not leadership.started:
            return "starting", redis.away
        if leadership.another:
            return "standby", redis.away or "another daemon is the leader"
        return "standby", redis.away or "the leader key lapsed before it was renewed"
    if redis.away is not None:
        return "waiting", redis.away
    if not demand.symbols:
        if demand.term != leadership.term:
            return "connecting", "reading the demand"
        if demand.unreadable is not None:
            return "connecting", demand.unreadable
        return "idle", None
    if stream.phase == "waiting":
        return "waiting", stream.reason
    if stream.phase != "open":
        return "connecting", None
    if stream.subscriptions.active:
        doubt = facts.lag.behind or facts.lag.clock
        return "streaming", demand.unreadable if doubt is None else doubt.text
    if stream.subscriptions.all_refused:
        return "streaming", "every desired symbol is refused"
    return "connecting", "subscribing"


def not_ready_because(facts: Facts, now: float) -> list[str]:
    """Return the reasons against being ready; none means ready.

    Ready is a leader with a working stream or nothing desired, or a standby whose requests for
    the leader key are answered.
    """
    if facts.stopping:
        return ["stopping"]
    reasons = []
    if facts.redis.away is not None:
        reasons.append(f"redis: {facts.redis.away}")
    if not facts.leadership.may_publish(now):
        if not facts.leadership.started:
            reasons.append("leadership: Redis has not said yet who leads")
        elif not facts.leadership.answered:
            reasons.append("leadership: the last request for the leader key failed")
        return reasons
    stream = facts.stream
    if not facts.demand.symbols:
        if facts.demand.term != facts.leadership.term:
            reasons.append("demand: not read yet")
        elif facts.demand.unreadable is not None:
            reasons.append(f"demand: {facts.demand.unreadable}")
    elif stream.phase == "waiting":
        reasons.append(f"stream: {stream.reason}")
    elif stream.phase != "open":
        reasons.append("stream: connecting")
    elif not stream.subscriptions.active and not stream.subscriptions.all_refused:
        reasons.append("stream: no symbol is acknowledged yet")
    elif facts.lag.behind is not None:
        reasons.append(str(facts.lag.behind))
    return reasons
