"""Asks Redis for the leader key, and owns what this daemon may do.

Must not decide who leads: ``core.leadership`` does. The end of a term is one change of the value,
made by a timer of this loop. After a freeze another loop may run before that timer, so every loop
that sends checks ``may_publish`` in the same turn.
"""

from __future__ import annotations

import asyncio
import time

import structlog

from spotd.core.leadership import RETRY_S, Change, LeaderKey, Leadership, feed_in
from spotd.core.redis_health import RedisHealth
from spotd.daemon.prices import Prices
from spotd.daemon.redis_calls import RedisCalls
from spotd.daemon.value import Value, WakeUp, beat_before
from spotd.errors import RedisUnavailableError
from spotd.redis.port import Outcome, RedisPort

log = structlog.get_logger("spotd.leader")


class LeaderLoop:
    """The one loop that asks for the leader key. ``wake_up`` makes it ask at once."""

    def __init__(
        self,
        port: RedisPort,
        key: LeaderKey,
        *,
        ttl_s: float,
        feed: str,
        leadership: Value[Leadership],
        health: Value[RedisHealth],
        calls: RedisCalls,
        prices: Prices,
    ) -> None:
        self._port = port
        self._key = key
        self._ttl_s = ttl_s
        self._feed = feed
        self._leader_seen: str | None = None  # the token of another daemon
        self._leadership = leadership
        self._health = health
        self._calls = calls
        self._prices = prices
        self.wake_up = WakeUp()
        health.wakes(self.wake_up)

    async def run(self) -> None:
        """Renew the key while leading, and try to get it otherwise."""
        while True:
            await self._ask()
            self._calls.checked(time.monotonic())
            calm = self._health.get().away is None
            await self.wake_up.wait(beat_before(self._key.next_try_at(calm=calm)))

    async def _ask(self) -> None:
        self._apply(self._key.checked(time.monotonic()))
        request = self._key.request(time.monotonic())
        leadership, stored = self._leadership.get(), self._prices.seq.stored
        try:
            # A leader waits for the answer no longer than its right lasts.
            async with asyncio.timeout_at(leadership.publish_until if leadership.leads else None):
                answer = await self._port.lead(
                    request.token,
                    self._ttl_s,
                    former=request.former,
                    claim_unix_s=request.claim_unix_s,
                )
        except RedisUnavailableError:
            self._apply(self._key.failed(time.monotonic()))
        except TimeoutError:
            now = time.monotonic()
            why = "Redis did not answer before the leader key lapsed"
            self._calls.outcome(Outcome(request.sent_at, now, why))
            self._apply(self._key.failed(now))
        else:
            self._see_leader(answer.leader)
            lost = self._prices.seq.told(stored, answer.highest_seq)
            if lost and answer.held == "renewed":  # any other answer begins or ends a term
                self._calls.lost_data()
            self._apply(self._key.answered(request, answer, time.monotonic()))
            if (claims_at := self._key.claims_at) is not None:
                # Redis may answer this request, which writes nothing, and refuse that one.
                self._calls.wait(claims_at + RETRY_S)

    def _see_leader(self, token: str | None) -> None:
        """Say it where another daemon leads that streams another feed, once for each token."""
        before, self._leader_seen = self._leader_seen, token
        if token is None or token == before or (feed := feed_in(token)) in (None, self._feed):
            return
        log.warning(
            "the leader streams another feed: give the daemons of each feed their own "
            "SPOTD_KEY_PREFIX and SPOTD_CHANNEL_PREFIX",
            feed=self._feed,
            feed_of_leader=feed,
            token=token,
        )

    def _apply(self, change: Change) -> None:
        """Carry out a change, and publish its value in the same turn."""
        if change.ends is not None:
            log.warning("not leading any more", why=change.ends.text)
        if change.forget:
            self._prices.forget()
        if change.begins:
            self._prices.begin_term()
            log.info("leading", term=change.leadership.term, token=change.leadership.token)
        self._leadership.set(change.leadership)
