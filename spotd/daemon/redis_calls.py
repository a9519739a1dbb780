"""Owns Redis' health: takes the outcome of every call, logs a failure once and the return once.

Must not call Redis.
"""

from __future__ import annotations

import structlog

from spotd.core.redis_health import RedisHealth, RedisMonitor
from spotd.daemon.value import Value
from spotd.ops.metrics import Metrics
from spotd.redis.port import Outcome

log = structlog.get_logger("spotd.redis")


class RedisCalls:
    """The outcomes of all calls. ``health`` is the one value that says whether Redis answers."""

    def __init__(self, health: Value[RedisHealth], metrics: Metrics) -> None:
        self._health = health
        self._metrics = metrics
        self._monitor = RedisMonitor()

    def outcome(self, outcome: Outcome) -> None:
        """Take in the outcome of a call."""
        if outcome.failure is None:
            calm = self._monitor.health.away is None
            health = self._monitor.answered(outcome.sent_at, outcome.at)
            if not calm:  # an answer changes nothing otherwise
                self._set(health)
        else:
            self._metrics.redis_errors += 1
            self._set(self._monitor.failed(outcome.at, outcome.failure), refused=outcome.refused)

    def lost_data(self) -> None:
        """Take in that Redis has lost what it had stored, although no call failed."""
        log.warning("redis lost data: all is written anew")
        self._set(self._monitor.lost_data())

    def wait(self, until: float) -> None:
        """Take in that a call that failed is not repeated before ``until`` (monotonic seconds)."""
        self._monitor.wait(until)

    def checked(self, now: float) -> None:
        """Take in that time has passed. The leader loop calls this after each of its requests."""
        self._set(self._monitor.checked(now))

    def _set(self, health: RedisHealth, *, refused: bool = False) -> None:
        before = self._health.get()
        if not self._health.set(health):
            return
        if before.away is None and health.away is not None:
            log.warning("redis refuses" if refused else "redis is away", why=health.away)
        elif before.away is not None and health.away is None:
            log.info("redis is back")
