"""Decides between which times no prices came, why, and to how many symbols that happened.

An *interruption* begins when a session ends that served symbols, or when this daemon takes over
from another one, which published last at the time of the highest ``seq``. It ends when each of its
symbols that is still desired is acknowledged again, or refused. Then it is a gap. What fails before
that belongs to the same interruption. An interruption whose symbols all left the demand is none.

Where the stream went on and nothing could be published, that time is a gap too: an outage of Redis
that is longer than ``SHORTEST_OUTAGE_S``, and the time without the leader key, where it had lapsed.
A shorter outage makes a price late, as a busy moment does. What of an outage was before this
daemon's reign is not its to state: where it started without Redis, nobody knows since when.

Where another daemon led meanwhile, that one states the gap before its own term, and this one the
gap before its next term.

``unix_s`` is wall time in seconds, ``now`` monotonic seconds. Must not write anything, and must not
read a clock.
"""

from __future__ import annotations

from dataclasses import dataclass

from spotd.core.demand import Demand
from spotd.core.leadership import KEY_LAPSED, Leadership
from spotd.core.redis_health import RedisHealth
from spotd.core.subscription_state import SubscriptionState
from spotd.models import Gap, utc
from spotd.reasons import Reason
from spotd.symbols import WILDCARD

# Gaps that are kept until they are announced. While Redis is away, more than this may be found.
MOST_KEPT = 16
MOST_SHOWN = 5  # in the status

# Within 1 s of Redis' return the newest prices are out (the wire contract, section 2).
SHORTEST_OUTAGE_S = 1.0

LEADER_CHANGED = Reason("leader_changed", "another daemon published before this one")
_REDIS_AWAY = Reason("redis_away", "Redis did not answer, or took no prices")
# Sessions that brought nothing for a while before they ended.
_ENDED_SILENT = ("ping_timeout", "mute")


@dataclass(frozen=True, slots=True)
class GapsFound:
    """How many gaps were found since the start, and the newest of them, the oldest first."""

    count: int = 0
    recent: tuple[Gap, ...] = ()

    @property
    def shown(self) -> tuple[Gap, ...]:
        """The gaps that the status shows."""
        return self.recent[-MOST_SHOWN:]

    def since(self, count: int) -> tuple[Gap, ...]:
        """Return the gaps behind the first ``count``, as far as they are kept."""
        new = min(self.count - count, len(self.recent))
        return self.recent[len(self.recent) - new :]


@dataclass(slots=True)
class _Interruption:
    """``symbols``: those it concerns; None until the demand of the term is read."""

    reason: Reason
    since_unix_s: float
    symbols: frozenset[str] | None


def silent_since(label: str, last_message_unix_s: float | None, unix_s: float) -> float:
    """Return since when a session brought no prices that ended at ``unix_s``.

    ``label`` is the short name of the ``StreamError`` that ended it.
    """
    if label not in _ENDED_SILENT or last_message_unix_s is None:
        return unix_s
    return min(last_message_unix_s, unix_s)


def why_given_up(*, redis_away: bool) -> Reason:
    """Return why a session was ended that we may not hold any more."""
    return _REDIS_AWAY if redis_away else KEY_LAPSED


class Gaps:
    """The interruption that goes on, if any, and the gaps that were found: ``found``."""

    def __init__(self) -> None:
        self.found = GapsFound()
        self._open: _Interruption | None = None
        self._reign = 0  # for which a change of the leader was dealt with
        self._reigns_since: float | None = None  # in monotonic seconds; None: it never led
        self._term = 0  # the present or last one
        self._led_again_at = float("-inf")  # after a key that had lapsed
        self._outages = 0  # that were dealt with
        self._stated_until = float("-inf")  # unix seconds: the end of the newest gap

    def interrupted(self, served: frozenset[str], reason: Reason, since_unix_s: float) -> None:
        """Take in that a session ended that served these symbols."""
        if self._open is None and served:
            self._open = _Interruption(reason, since_unix_s, served)

    def seen(
        self,
        leadership: Leadership,
        health: RedisHealth,
        demand: Demand,
        subscriptions: SubscriptionState,
        *,
        now: float,
        unix_s: float,
    ) -> GapsFound:
        """Take in how things are. Return the gaps that were found: the same object if none was."""
        if not leadership.may_publish(now):
            return self.found
        if self._reigns_since is None:
            self._reigns_since = now
        if leadership.reign != self._reign:
            self._reign, self._reigns_since = leadership.reign, now
            self._take_over(leadership.begun_after_seq, unix_s)
            self._term, self._outages = leadership.term, health.outages
        if demand.term != leadership.term:
            return self.found
        served = demand.symbols & subscriptions.active
        gone_at = max(health.gone_at, self._reigns_since)
        self._see_unpublished(leadership, health, gone_at, served, now, unix_s)
        interruption = self._open
        if interruption is None:
            return self.found
        symbols = demand.symbols
        if interruption.symbols is not None:
            symbols &= interruption.symbols
        interruption.symbols = symbols = symbols - subscriptions.refused.keys()
        if not symbols:
            self._open = None
        elif WILDCARD in subscriptions.active or symbols <= subscriptions.active:
            self._open = None
            self._find(interruption, len(symbols), unix_s)
        return self.found

    def _see_unpublished(
        self,
        leadership: Leadership,
        health: RedisHealth,
        gone_at: float,
        served: frozenset[str],
        now: float,
        unix_s: float,
    ) -> None:
        """Take in a time in which nothing could be published, if one is over: it is a gap.

        ``gone_at`` is since when the newest outage was in this reign. ``served`` are the symbols of
        which the stream brought prices meanwhile.
        """
        if leadership.term != self._term:
            self._term = leadership.term
            if leadership.lapsed_since is not None:
                self._led_again_at = now
                if health.away is None:  # else the end of the outage tells from when to when
                    since = leadership.lapsed_since
                    self._unpublished(KEY_LAPSED, since, now, served, now, unix_s)
        if health.outages != self._outages:
            self._outages = health.outages
            back_at = health.back_at
            if lapsed := self._led_again_at > gone_at:
                back_at = max(back_at, self._led_again_at)
            if lapsed or back_at - gone_at > SHORTEST_OUTAGE_S:
                self._unpublished(_REDIS_AWAY, gone_at, back_at, served, now, unix_s)

    def _unpublished(
        self,
        reason: Reason,
        begins_at: float,
        ends_at: float,
        served: frozenset[str],
        now: float,
        unix_s: float,
    ) -> None:
        begins, ends = unix_s - (now - begins_at), unix_s - (now - ends_at)
        if self._open is not None:
            self._open.since_unix_s = min(self._open.since_unix_s, begins)
        elif served and ends > self._stated_until:
            self._find(_Interruption(reason, begins, served), len(served), ends)

    def _take_over(self, seq: int | None, unix_s: float) -> None:
        """Begin the interruption that another daemon left, which published up to ``seq``."""
        self._open = None
        if seq is not None:
            # A seq is microseconds since 1970, or more where the clock of its daemon was ahead.
            since_unix_s = min(seq / 1_000_000, unix_s)
            self._open = _Interruption(LEADER_CHANGED, since_unix_s, None)

    def _find(self, interruption: _Interruption, symbols: int, unix_s: float) -> None:
        reason, begins = interruption.reason, interruption.since_unix_s
        self._stated_until = ends = max(begins, unix_s)  # the clock may have been set back
        gap = Gap(
            begins=utc(begins),
            ends=utc(ends),
            reason=reason.text,
            code=reason.code,
            symbols=symbols,
        )
        recent = (*self.found.recent, gap)[-MOST_KEPT:]
        self.found = GapsFound(self.found.count + 1, recent)
