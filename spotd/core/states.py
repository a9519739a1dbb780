"""Decides what the facts mean: the daemon's state, and what readiness lacks.

Everything that spotd says of itself is derived from one ``Facts``. Each value in it has one owner,
and nothing else goes in.

Must not write anything, and must not read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from spotd.core.channels import Channels
from spotd.core.demand import PROMPT_UP_TO, Demand
from spotd.core.interruptions import INTERRUPTED, why_connecting
from spotd.core.lag import LagState
from spotd.core.leadership import ANOTHER_LEADS, KEY_LAPSED, Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.subscription_state import SubscriptionState
from spotd.models import BreakerStateName, DaemonStateName
from spotd.reasons import Reason

Phase = Literal["closed", "connecting", "open", "waiting"]


@dataclass(frozen=True, slots=True)
class StreamState:
    """The stream. ``reason`` says why it is ``waiting``, or ``connecting`` after a failure.

    ``closed``: we have no right to a stream, or need none yet. ``open``: it is authenticated.
    ``waiting``: it is down and the next try is timed. ``stale`` is why prices that an earlier
    session brought are suspect. It stays until the next session that was open has ended.
    """

    phase: Phase = "closed"
    reason: Reason | None = None
    subscriptions: SubscriptionState = field(default_factory=SubscriptionState)
    breaker: BreakerStateName = "closed"
    stale: Reason = INTERRUPTED

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
    channels: Channels = field(default_factory=Channels)
    halted: frozenset[str] = frozenset()
    mute: frozenset[str] = frozenset()
    lag: LagState = field(default_factory=LagState)
    quoted: frozenset[str] = frozenset()  # symbols that have a quote
    stopping: bool = False


_STOPPING = Reason("stopping", "the daemon was asked to stop")
_KEY_FREE = Reason("leader_key_free", "no daemon holds the leader key yet")
_KEY_FAILED = Reason("leader_key_failed", "the last request for the leader key failed")
_LEADER_UNKNOWN = Reason("leader_unknown", "Redis has not said yet who leads")
_READING_DEMAND = Reason("reading_demand", "reading the demand")
_CONNECTING = why_connecting(None)
_SUBSCRIBING = Reason("subscribing", "no symbol is acknowledged yet")
_ALL_REFUSED = Reason("all_refused", "every desired symbol is refused")


def daemon_state(facts: Facts, now: float) -> tuple[DaemonStateName, Reason | None]:
    """Return the daemon's state, and the reason that explains it.

    Source: the wire contract, section 4. The state is none of ``starting`` and ``standby`` exactly
    while we may publish, and ``streaming`` only while we are subscribed and Redis answers.
    """
    leadership, away = facts.leadership, _away(facts)
    if facts.stopping:
        return "stopping", _STOPPING
    if not leadership.may_publish(now):
        if not leadership.started:
            return "starting", away or _LEADER_UNKNOWN
        return "standby", _why_standby(facts, away, now)
    return _leader_state(facts) if away is None else ("waiting", away)


def _why_standby(facts: Facts, away: Reason | None, now: float) -> Reason:
    leadership = facts.leadership
    if away is not None:
        kept = facts.stream.phase == "open" and leadership.may_hold(now)
        return away._replace(text=f"{away.text}; the stream is kept") if kept else away
    if leadership.free:
        return _KEY_FREE
    return ANOTHER_LEADS if leadership.another else KEY_LAPSED


def _leader_state(facts: Facts) -> tuple[DaemonStateName, Reason | None]:
    """Return the state of a leader whose Redis answers."""
    demand, stream, unreadable = facts.demand, facts.stream, _unreadable(facts)
    if not demand.symbols:
        if demand.term != facts.leadership.term:
            return "connecting", _READING_DEMAND
        if unreadable is not None:
            return "connecting", unreadable
        return "idle", _channels(facts) or _crowded(facts)
    if stream.phase == "waiting":
        return "waiting", stream.reason
    if stream.phase != "open":
        return "connecting", stream.reason or _CONNECTING
    if stream.subscriptions.active:
        lag = facts.lag
        flaw = unreadable or lag.behind or _channels(facts) or lag.clock or _crowded(facts)
        return "streaming", flaw
    if stream.subscriptions.all_refused:
        return "streaming", unreadable or _ALL_REFUSED
    return "connecting", _SUBSCRIBING


def not_ready_because(facts: Facts, now: float) -> list[Reason]:
    """Return the reasons against being ready; none means ready.

    Ready is a leader that can read the whole demand, with a working stream or nothing desired, or a
    standby whose requests for the leader key are answered. Wakes are optional: the demand is read
    without them too.
    """
    if facts.stopping:
        return [_STOPPING]
    leadership = facts.leadership
    away = _away(facts)
    reasons = [] if away is None else [away]
    if leadership.may_publish(now):
        state, reason = _leader_state(facts)
        unreadable = _unreadable(facts)
        if state in ("waiting", "connecting") and reason is not None:
            reasons.append(reason)
        if unreadable is not None and unreadable not in reasons:
            reasons.append(unreadable)
        if state == "streaming" and facts.lag.behind is not None:
            reasons.append(facts.lag.behind)
    elif not leadership.started:
        reasons.append(_LEADER_UNKNOWN)
    elif not leadership.answered:
        reasons.append(_KEY_FAILED)
    return reasons


def shows_ready(state: str, code: str | None) -> bool:
    """Return whether a leader that writes this state, with the code of its reason, is ready.

    It says what ``not_ready_because`` said when the leader wrote its status.
    """
    return state in ("idle", "streaming") and code not in ("demand_unreadable", "lagging")


def _away(facts: Facts) -> Reason | None:
    away = facts.redis.away
    return None if away is None else Reason("redis_away", away)


def _unreadable(facts: Facts) -> Reason | None:
    unreadable = facts.demand.unreadable
    return None if unreadable is None else Reason("demand_unreadable", unreadable)


def _channels(facts: Facts) -> Reason | None:
    channels = facts.channels
    if channels.other_leader is not None:
        return Reason(
            "two_leaders",
            f"another daemon ({channels.other_leader}) publishes on the same channels, from "
            "another database or with another key prefix",
        )
    if channels.unheard is not None:
        return Reason("wake_unheard", f"cannot listen to the wake channel: {channels.unheard}")
    return None


def _crowded(facts: Facts) -> Reason | None:
    refused = facts.demand.refused_count
    if refused <= PROMPT_UP_TO:
        return None
    return Reason(
        "demand_crowded",
        f"{refused:,} entries of the demand name no symbol, so its changes are seen late",
    )
