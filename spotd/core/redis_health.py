"""Decides from the outcomes of calls whether Redis is away, and when it is back.

Must not call Redis. The outcome of each call of each loop comes here, and nobody else judges it.

An *episode* begins with the first call that fails, and Redis counts as away until it ends:

- The first answer to a call that was sent after the latest failure is the *return*. Redis may
  have been restarted without its data, so ``returns`` rises and everything is written anew.
- A call that fails after that answer belongs to the same episode. Redis may, for example, renew
  the leader key and refuse to publish, as long as it is out of memory.
- The episode ends when no call failed for ``calm_s`` after an answer. If calls failed after the
  return, what was written then may be lost too: ``returns`` rises a second time.

So ``returns`` rises at most twice in an episode, however often calls fail and are answered, and
at least once after the last failure. ``away`` changes at most once in ``calm_s``.

An episode that is over is an *outage*: from the last answer before it to the first answer behind
its last failure.

A Redis that was restarted between two calls fails none of them. Where its data tells that it lost
some, ``returns`` rises too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

_NEVER = float("-inf")


@dataclass(frozen=True, slots=True)
class RedisHealth:
    """What is known of Redis at one moment.

    ``away``: why Redis counts as away, a sentence; None: calm. ``returns`` rises whenever Redis
    may have lost what was written: everything must be written anew. ``outages`` counts those that
    are over, and the newest was from ``gone_at`` to ``back_at``, in monotonic seconds.
    """

    away: str | None = None
    returns: int = 0
    outages: int = field(default=0, compare=False)
    gone_at: float = field(default=_NEVER, compare=False)
    back_at: float = field(default=_NEVER, compare=False)


class RedisMonitor:
    """The one owner of Redis' health.

    Each method returns the health after what it was told: the same object as before while nothing
    changed. ``now`` must not fall from one call to the next.
    """

    def __init__(self, calm_s: float = 0.75) -> None:
        """``calm_s``: longer than a loop waits before it repeats a failed call. ``wait`` else."""
        self.health = RedisHealth()
        # When ``checked`` may change something; None: only an outcome can. To be read only.
        self.check_at: float | None = None
        self._calm_s = calm_s
        self._answered_at = _NEVER  # the latest answer before this episode
        self._back_at = _NEVER  # the first answer after the latest failure
        self._failed_at = _NEVER  # the latest failure
        self._reason_seen_at = _NEVER  # the latest failure for the reason that ``away`` names
        self._returned = False  # in this episode
        self._failed_since_return = False

    def failed(self, now: float, why: str) -> RedisHealth:
        """Take in that a call failed, or was given up, as noticed at ``now``. Return the health."""
        self._failed_at = now
        self.check_at = None
        # A failure before the return needs no second rewrite: the return itself is still to come.
        self._failed_since_return = self._returned
        # Where Redis refuses two commands for two reasons, ``away`` must not alternate between
        # them at each failure. So a reason stays until it was not seen for ``calm_s``.
        stays = self.health.away is not None and now - self._reason_seen_at < self._calm_s
        if why == self.health.away:
            self._reason_seen_at = now
        elif not stays:
            self._reason_seen_at = now
            self.health = replace(self.health, away=why)
        return self.health

    def answered(self, sent_at: float, now: float) -> RedisHealth:
        """Take in that Redis answered at ``now`` a call of ``sent_at``. Return the health.

        An answer to a call that was sent before the latest failure was noticed changes nothing:
        Redis may have gone away after it had answered.
        """
        if self.health.away is None:
            self._answered_at = now
            return self.health
        if sent_at <= self._failed_at:
            return self.health
        if self.check_at is None:
            self._back_at = now
            self.check_at = now + self._calm_s
        if not self._returned:
            self._returned = True
            self.health = replace(self.health, returns=self.health.returns + 1)
        return self.checked(now)

    def wait(self, until: float) -> None:
        """Take in that a call that failed is not repeated before ``until``, so nothing is calm."""
        if self.check_at is not None:
            self.check_at = max(self.check_at, until)

    def lost_data(self) -> RedisHealth:
        """Take in that Redis answers and has lost what it had stored. Return the health."""
        self.health = replace(self.health, returns=self.health.returns + 1)
        return self.health

    def checked(self, now: float) -> RedisHealth:
        """Take in that time passed. Return the health."""
        if self.check_at is None or now < self.check_at:
            return self.health
        returns = self.health.returns + int(self._failed_since_return)
        self.health = RedisHealth(
            returns=returns,
            outages=self.health.outages + 1,
            gone_at=self._answered_at,
            back_at=self._back_at,
        )
        self._answered_at = now
        self.check_at = None
        self._returned = self._failed_since_return = False
        return self.health
