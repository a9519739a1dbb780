"""Publishes what the conflator emits: one call under way, the next batch gathers meanwhile.

A batch is made of the prices at the moment it is sent. A symbol that Redis did not take stays
ready, once, so the newest price wins here too. This loop alone writes and drops fields of
``spotd:last``. As a consequence, a call that is under way cannot bring a dropped symbol back.

Must not decide when something is due, how large a batch may be, or what a ``seq`` is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import islice
from operator import attrgetter

import structlog

from spotd.core.conflate import Slot
from spotd.core.leadership import Leadership
from spotd.core.prices import reflected_at
from spotd.core.publishing import BatchSize, SeqCounter, wait_s
from spotd.core.redis_health import RedisHealth
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.models import encode_updates, spot_price
from spotd.ops.metrics import Metrics
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort

_RETRY_S = 0.1
_FLUSH_CHECKS_EVERY_S = 0.05
_DUE_AT = attrgetter("due_at")

log = structlog.get_logger("spotd.publish")


class PublishLoop:
    """The one loop that writes prices. ``not_leader`` wakes the loop that asks for the key."""

    def __init__(
        self,
        port: RedisPort,
        prices: Prices,
        *,
        leadership: Value[Leadership],
        health: Value[RedisHealth],
        metrics: Metrics,
        not_leader: WakeUp,
    ) -> None:
        self._port = port
        self._prices = prices
        self._leadership = leadership
        self._health = health
        self._metrics = metrics
        self._not_leader = not_leader
        self._batch = BatchSize()
        self._returns = health.get().returns  # the last return of Redis that was dealt with
        leadership.wakes(prices.due)
        health.wakes(prices.due)

    async def run(self) -> None:
        """Publish while we lead."""
        prices = self._prices
        while True:
            if not self._leadership.get().may_publish(time.monotonic()):
                await prices.due.wait()
                continue
            if self._returns != self._health.get().returns:
                self._returns = self._health.get().returns
                prices.republish()
            if prices.dropping:
                await self._drop()
            else:
                await self._wait_until_due()
            await self._publish()

    async def flush(self, deadline: float) -> None:
        """Publish pending prices, each when its window ends, if that is before ``deadline``.

        ``deadline`` is monotonic seconds. Prices that are pending then go out without the throttle.
        """
        conflator = self._prices.conflator
        while self._leadership.get().may_publish(time.monotonic()) and self._prices.pending():
            now = time.monotonic()
            if now >= deadline:
                conflator.end_all_windows()
            elif not conflator.ready:
                next_at = conflator.next_at() or 0.0
                await asyncio.sleep(min(max(0.0, next_at - now), _FLUSH_CHECKS_EVERY_S))
            if not await self._publish() and time.monotonic() >= deadline:
                return

    async def _wait_until_due(self) -> None:
        conflator, now = self._prices.conflator, time.monotonic()
        pause_s = wait_s(conflator.next_at(), conflator.next_together(), now)
        if pause_s is None or pause_s > 0.0:
            await self._prices.due.wait(None if pause_s is None else now + pause_s)

    async def _publish(self) -> bool:
        """Publish one batch, if any price is ready. Return False where Redis did not take it."""
        now = time.monotonic()
        leadership = self._leadership.get()
        if not leadership.may_publish(now):
            return False
        taken = self._prices.conflator.take(now, self._batch.limit)
        if not taken:
            return True
        due_at = min(map(_DUE_AT, taken))
        # From here to the call's first await no other task runs. As a consequence, the prices, the
        # right to publish and the token belong together.
        lines, highest_seq = render(taken, self._prices.seq)
        delivered = False
        self._prices.under_way = taken
        sent_at = time.monotonic()
        try:
            await self._port.publish(leadership.token, lines, highest_seq)
            delivered = True
        except NotLeaderError:
            # The key was lost with Redis' data, or is another's: the leader loop finds out which.
            log.warning("the leader key is not ours: nothing was published")
            self._not_leader.set()
            await asyncio.sleep(_RETRY_S)
        except RedisUnavailableError as error:
            if isinstance(error.__cause__, TimeoutError):
                self._batch.failed()
            await asyncio.sleep(_RETRY_S)
        finally:
            # A call that was cancelled half way is settled too: it may or may not have arrived.
            now = time.monotonic()
            self._prices.conflator.settle(taken, now, delivered=delivered)
            self._prices.tell_settled()
        if delivered:
            self._prices.seq.stored_up_to(highest_seq)
            self._batch.answered(len(taken), now - sent_at)
            self._metrics.updates_published += len(taken)
            self._metrics.updates_per_call.observe(len(taken))
            # Updates of windows that were ended before their time were not due yet.
            self._metrics.publish_latency.observe(max(0.0, now - due_at))
        return delivered

    async def _drop(self) -> None:
        prices = self._prices
        # At most one call is made, so that a market that leaves does not delay other prices.
        dropping = list(islice(prices.dropping, MAX_FIELDS_PER_CALL))
        try:
            await self._port.drop_last(self._leadership.get().token, dropping)
        except NotLeaderError:
            self._not_leader.set()
            await asyncio.sleep(_RETRY_S)
        except RedisUnavailableError:
            await asyncio.sleep(_RETRY_S)
        else:
            prices.dropping.difference_update(dropping)
            prices.tell_settled()


def render(taken: Sequence[Slot], counter: SeqCounter) -> tuple[bytes, int]:
    """Return the JSON of the newest prices, one a line, and the highest seq among them."""
    seq = counter.next(len(taken), int(time.time() * 1_000_000))
    updates = [
        spot_price(slot.symbol, slot.bid, slot.ask, slot.last_price, reflected_at(slot), n)
        for n, slot in enumerate(taken, seq)
    ]
    return encode_updates(updates), counter.highest
