"""Publishes what the conflator lets out: one call under way, the next batch gathers meanwhile.

Newest wins here too: a batch is made of the prices at the moment it is sent, and what Redis did
not take stays ready, once per symbol. How large it may be is learned from how fast Redis answers.
Owns ``spotd:last``: fields are written and dropped by this loop alone, so a removed symbol cannot
come back by a call that was under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from operator import attrgetter

import structlog

from spotd.core.batch import BatchSize
from spotd.core.conflate import Slot
from spotd.core.market import reflected_at
from spotd.daemon.shared import Shared
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.models import encode_updates, spot_price
from spotd.redis.port import RedisPort

_RETRY_S = 0.1
_GATHER_S = 0.005  # of the 50 ms that a trailing edge may be late
_DUE_AT = attrgetter("due_at")
_ENOUGH = 100  # updates in a call: so many that what the call itself costs does not matter

log = structlog.get_logger("spotd.publish")


class PublishLoop:
    """The one loop that writes prices."""

    def __init__(self, shared: Shared, redis: RedisPort) -> None:
        self._shared = shared
        self._redis = redis
        self._batch = BatchSize()

    async def run(self) -> None:
        """Publish for ever, while we lead."""
        shared = self._shared
        while True:
            if not shared.leads():
                await shared.bells.publish.wait(1.0)
                continue
            if shared.to_drop:
                await self._drop()
            await self._wait_until_due()
            await self._publish()

    async def flush(self, deadline: float) -> None:
        """Publish what is pending, each symbol in its window if that ends before ``deadline``.

        ``deadline`` is monotonic seconds; what is pending then goes out without its throttle.
        """
        shared = self._shared
        while shared.leads() and self._pending():
            if time.monotonic() >= deadline:
                shared.conflator.end_all_windows()
            elif not shared.conflator.ready:
                next_at = shared.conflator.next_at() or 0.0
                await asyncio.sleep(min(max(0.0, next_at - time.monotonic()), 0.05))
            if not await self._publish() and time.monotonic() >= deadline:
                return

    def _pending(self) -> bool:
        return any(slot.changed for slot in self._shared.market.slots.values())

    async def _wait_until_due(self) -> None:
        shared = self._shared
        next_at = shared.conflator.next_at()
        if next_at is None:
            await shared.bells.publish.wait(1.0)
            return
        # Small batches whose windows end soon after one another share a call. A leading edge rings,
        # and waits for none of this.
        gather_s = 0.0 if shared.conflator.next_together() >= _ENOUGH else _GATHER_S
        wait_s = next_at - time.monotonic()
        if wait_s > 0.0:
            await shared.bells.publish.wait(min(wait_s + gather_s, 1.0))

    async def _publish(self) -> bool:
        """One call at most. Gives whether nothing is wrong with Redis."""
        shared = self._shared
        now = time.monotonic()
        if not shared.lease.holds(now):
            return False
        taken = shared.conflator.take(now, self._batch.limit)
        if not taken:
            return True
        due_at = min(map(_DUE_AT, taken))
        # From here to the call's first await nothing else runs: the prices, the lease check and
        # the token belong together.
        lines = self._render(taken)
        delivered = False
        sent_at = time.monotonic()
        try:
            await self._redis.publish(shared.token, lines, shared.seq)
            delivered = True
        except NotLeaderError:
            # Lost with the rest of Redis' data, or another's: the leader loop finds out which.
            log.warning("the leader key is not ours: nothing was published")
            shared.bells.leader.ring()
            await asyncio.sleep(_RETRY_S)
        except RedisUnavailableError as error:
            if isinstance(error.__cause__, TimeoutError):
                self._batch.failed()
            if shared.redis_failed(str(error)):
                log.warning(
                    "cannot publish: keeping the newest price of each symbol", why=str(error)
                )
            await asyncio.sleep(_RETRY_S)
        finally:
            # Also when cancelled in the middle of the call: it may or may not have arrived.
            now = time.monotonic()
            shared.conflator.settle(taken, now, delivered=delivered)
        if delivered:
            self._batch.answered(len(taken), now - sent_at)
            shared.metrics.updates_published += len(taken)
            shared.metrics.updates_per_call.observe(len(taken))
            # Windows that were ended before their time were not due yet.
            shared.metrics.publish_latency.observe(max(0.0, now - due_at))
        return delivered

    def _render(self, taken: Sequence[Slot]) -> bytes:
        """The JSON of the newest prices, one a line, with rising seq."""
        shared = self._shared
        seq = max(shared.seq, int(time.time() * 1_000_000))
        updates = []
        for slot in taken:
            seq += 1
            updates.append(
                spot_price(
                    slot.symbol, slot.bid, slot.ask, slot.last_price, reflected_at(slot), seq
                )
            )
        shared.seq = seq
        return encode_updates(updates)

    async def _drop(self) -> None:
        shared = self._shared
        dropping = frozenset(shared.to_drop)
        try:
            await self._redis.drop_last(shared.token, sorted(dropping))
        except NotLeaderError:
            shared.bells.leader.ring()
            await asyncio.sleep(_RETRY_S)
        except RedisUnavailableError as error:
            if shared.redis_failed(str(error)):
                log.warning("cannot drop last prices yet", why=str(error))
            await asyncio.sleep(_RETRY_S)
        else:
            shared.to_drop -= dropping
