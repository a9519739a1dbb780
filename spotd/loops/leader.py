"""Holds or awaits the leader lease, and says when a term begins and ends.

A term that ends because Redis is away keeps the prices: nobody else can publish meanwhile. One
that ends because another daemon leads forgets them: they are older than what it publishes.
"""

from __future__ import annotations

import asyncio
import time
import uuid

import structlog

from spotd.adapters.redis import LeaseAnswer, RedisPort
from spotd.errors import RedisUnavailableError
from spotd.loops.shared import Shared

_STANDBY_LOOKS_EVERY_S = 0.5
_RETRY_S = 0.2

log = structlog.get_logger("spotd.leader")


class LeaderLoop:
    """The one loop that talks about the leader key."""

    def __init__(self, shared: Shared, redis: RedisPort, instance: str) -> None:
        self._shared = shared
        self._redis = redis
        self._instance = instance
        self._leading = False
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
                answer = await self._redis.lead(shared.token, shared.lease.ttl_s)
        except (RedisUnavailableError, TimeoutError) as error:
            if shared.redis_failed(str(error) or "no answer within the lease"):
                log.warning("redis is away", why=str(error))
            shared.facts.lease_works = False
            self._check_expiry()
            return _RETRY_S
        self._redis_is_back()
        shared.facts.lease_works = True
        shared.facts.started = True
        if not answer.granted:
            self._another_leads()
            return _STANDBY_LOOKS_EVERY_S
        shared.lease.granted(sent_at)
        if answer.acquired:
            self._begin_term(answer)
        if not shared.lease.holds(time.monotonic()):
            # The answer came so late that the key may have lapsed since: not to be relied on.
            return 0.0
        return shared.lease.renew_every_s

    def _begin_term(self, answer: LeaseAnswer) -> None:
        shared = self._shared
        if answer.highest_seq not in (None, shared.seq):
            shared.market.forget()
        shared.seq = max(shared.seq, answer.highest_seq or 0)
        shared.market.republish()
        shared.term += 1
        self._leading = shared.facts.leader = True
        log.info("leading", term=shared.term, token=shared.token)
        self._ring()

    def _another_leads(self) -> None:
        shared = self._shared
        shared.lease.refused()
        shared.market.forget()
        self._end_term("another daemon is the leader")

    def _check_expiry(self) -> None:
        """By our own clock, whatever Redis says later."""
        if self._leading and not self._shared.leads():
            self._end_term("the lease lapsed before it was renewed")

    def _end_term(self, why: str) -> None:
        shared = self._shared
        if self._leading:
            self._leading = shared.facts.leader = False
            # What was sent under the old token and arrives late must not be taken for ours.
            shared.token = self._new_token()
            log.warning("not leading any more", why=why)
            self._ring()
        shared.bells.report.ring()

    def _redis_is_back(self) -> None:
        shared = self._shared
        if shared.facts.redis_error is None:
            return
        shared.facts.redis_error = None
        log.info("redis is back")
        # It may have lost what was written: every known price goes out again.
        shared.market.republish()
        shared.rewrite += 1
        self._ring()

    def _new_token(self) -> str:
        return f"{self._instance}:{uuid.uuid4().hex[:8]}"

    def _ring(self) -> None:
        bells = self._shared.bells
        for bell in (bells.demand, bells.stream, bells.publish, bells.report):
            bell.ring()
