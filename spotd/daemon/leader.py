"""Holds or awaits the leader lease, and says when a term begins and ends.

A term that ends because Redis is away keeps the prices: nobody else can publish meanwhile. One
that ends because another daemon leads forgets them: they are older than what it publishes.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog

from spotd.daemon.shared import Shared
from spotd.errors import RedisUnavailableError
from spotd.redis.port import LeaderKeyAnswer, RedisPort

_STANDBY_LOOKS_EVERY_S = 0.5
_RETRY_S = 0.2
_CALM_S = 0.75  # longer than any loop waits before it tries a failed call again

log = structlog.get_logger("spotd.leader")


class LeaderLoop:
    """The one loop that talks about the leader key."""

    def __init__(self, shared: Shared, redis: RedisPort, instance: str) -> None:
        self._shared = shared
        self._redis = redis
        self._instance = instance
        self._leading = False
        self._former = ""  # the token of our last term, unless somebody else led since
        self._answered = True  # the last look
        self._rewritten = False  # since the first of the failed calls
        self._errors = 0  # failed calls of all loops, at the last look
        self._calm_since = 0.0
        shared.token = self._new_token()

    async def run(self) -> None:
        """Renew while leading, look for a free key otherwise, for ever."""
        while True:
            pause_s = await self._look()
            until = self._shared.lease.until
            if self._leading:
                pause_s = min(pause_s, max(0.0, until - time.monotonic()))
            await self._shared.bells.leader.wait(pause_s)
            self._check_expiry()

    async def _look(self) -> float:
        """One attempt to lead or to go on leading. Gives the pause until the next, in seconds."""
        shared = self._shared
        sent_at = time.monotonic()
        try:
            # A leader waits for the answer no longer than its lease lasts.
            limit = shared.lease.until if self._leading else None
            async with asyncio.timeout_at(limit):
                answer = await self._redis.lead(
                    shared.token, shared.lease.ttl_s, former=self._former
                )
        except (RedisUnavailableError, TimeoutError) as error:
            if shared.redis_failed(str(error) or "no answer within the lease"):
                log.warning("redis is away", why=str(error))
            shared.facts.lease_works = False
            self._answered = False
            self._check_expiry()
            return _RETRY_S
        shared.facts.lease_works = True
        shared.facts.started = True
        if answer.held == "another":
            self._another_leads()
        else:
            shared.lease.granted(sent_at)
            shared.seq = max(shared.seq, answer.highest_seq or 0)
            if answer.held == "acquired":
                self._begin_term(answer)
        self._redis_works()
        return self._pause_s()

    def _pause_s(self) -> float:
        shared = self._shared
        if not self._leading:
            pause_s = _STANDBY_LOOKS_EVERY_S
        elif shared.lease.holds(time.monotonic()):
            pause_s = shared.lease.renew_every_s
        else:
            # The answer came so late that the key may have lapsed since: not to be relied on.
            return 0.0
        return pause_s if shared.facts.redis_error is None else min(pause_s, _RETRY_S)

    def _begin_term(self, answer: LeaderKeyAnswer) -> None:
        shared = self._shared
        by_us = (answer.published_by or "").startswith(f"{self._instance}:")
        if answer.highest_seq is not None and not by_us:
            shared.market.forget()
        # Named in an earlier term: another leader may publish them since. The report loop finds
        # out what is to go now, once the demand is read.
        shared.to_drop.clear()
        shared.conflator.now = time.monotonic()
        shared.market.republish()
        shared.term += 1
        self._former = ""
        self._leading = shared.facts.leader = True
        log.info("leading", term=shared.term, token=shared.token)
        self._ring()

    def _another_leads(self) -> None:
        shared = self._shared
        shared.lease.refused()
        shared.market.forget()
        self._end_term("another daemon is the leader")
        self._former = ""

    def _check_expiry(self) -> None:
        """By our own clock, whatever Redis says later."""
        if self._leading and not self._shared.leads():
            self._end_term("the lease lapsed before it was renewed")

    def _end_term(self, why: str) -> None:
        shared = self._shared
        if self._leading:
            self._leading = shared.facts.leader = False
            # What was sent under the old token and arrives late must not be taken for ours.
            self._former, shared.token = shared.token, self._new_token()
            log.warning("not leading any more", why=why)
            self._ring()
        shared.bells.report.ring()

    def _redis_works(self) -> None:
        """A look was answered. Redis is back when, besides, no loop's call failed for a while.

        Where it refuses one thing for ever, and renews the lease, it is not back: so that is
        logged once, too.
        """
        shared = self._shared
        if shared.facts.redis_error is None:
            return
        if not self._answered:
            self._answered = True
            self._rewrite()
        now = time.monotonic()
        if shared.metrics.redis_errors != self._errors:
            self._errors, self._calm_since = shared.metrics.redis_errors, now
        if now - self._calm_since < _CALM_S:
            return
        shared.facts.redis_error = None
        log.info("redis is back")
        if not self._rewritten:
            self._rewrite()
        self._rewritten = False
        self._ring()

    def _rewrite(self) -> None:
        """Redis may have lost what was written: all that is known goes out again."""
        self._rewritten = True
        self._shared.conflator.now = time.monotonic()
        self._shared.market.republish()
        self._shared.rewrite += 1
        self._ring()

    def _new_token(self) -> str:
        return f"{self._instance}:{uuid.uuid4().hex[:8]}"

    def _ring(self) -> None:
        bells = self._shared.bells
        for bell in (bells.demand, bells.stream, bells.publish, bells.report):
            bell.ring()
