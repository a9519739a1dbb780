"""Publishes what the conflator lets out: one call under way, the next batch gathers meanwhile.

Newest wins here too: a batch is made of the prices at the moment it is sent, and what Redis did
not take stays ready, once per symbol. Owns ``spotd:last``: fields are written and dropped by
this loop alone, so a removed symbol cannot come back by a call that was under way.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from spotd.adapters.redis import MAX_UPDATES_PER_CALL, RedisPort
from spotd.core.conflate import Slot
from spotd.core.market import reflected_at
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.loops.shared import Shared
from spotd.models import encode_update

_RETRY_S = 0.1
_GATHER_S = 0.005  # of the 50 ms that a trailing edge may be late

log = structlog.get_logger("spotd.publish")


class PublishLoop:
    """The one loop that writes prices."""

    def __init__(self, shared: Shared, redis: RedisPort) -> None:
        self._shared = shared
        self._redis = redis

    async def run(self) -> None:
        """Publish for ever, while we lead."""
        shared = self._shared
        while True:
            if not shared.leads():
                shared.ready_since = None
                await shared.bells.publish.wait(1.0)
                continue
            if shared.to_drop:
                await self._drop()
            await self._wait_until_due()
            await self._publish(MAX_UPDATES_PER_CALL)

    async def flush(self, deadline: float) -> None:
        """Publish what is pending, each symbol in its window if that ends before ``deadline``.

        ``deadline`` is monotonic seconds; what is pending then goes out without its throttle.
        """
        shared = self._shared
        while shared.leads() and self._pending():
            if time.monotonic() >= deadline:
                shared.conflator.end_all_windows()
            elif not len(shared.conflator):
                next_at = shared.conflator.next_at() or 0.0
                await asyncio.sleep(min(max(0.0, next_at - time.monotonic()), 0.05))
            if not await self._publish(MAX_UPDATES_PER_CALL) and time.monotonic() >= deadline:
                return

    def _pending(self) -> bool:
        return any(slot.changed for slot in self._shared.market.slots.values())

    async def _wait_until_due(self) -> None:
        shared = self._shared
        next_at = shared.conflator.next_at()
        if next_at is None:
            await shared.bells.publish.wait(1.0)
            return
        # Windows that end soon after one another share a call. A leading edge rings, and waits for
        # none of this.
        wait_s = next_at - time.monotonic() + _GATHER_S
        if wait_s > _GATHER_S and not await shared.bells.publish.wait(min(wait_s, 1.0)):
            # A window ended: what it held back became due just now.
            shared.ready_since = shared.ready_since or time.monotonic()

    async def _publish(self, limit: int) -> bool:
        """One call at most. Gives whether nothing is wrong with Redis."""
        shared = self._shared
        now = time.monotonic()
        if not shared.lease.holds(now):
            return False
        taken = shared.conflator.take(now, limit)
        if not taken:
            return True
        ready_since = shared.ready_since
        if not len(shared.conflator):  # else: the rest of them goes out with the next call
            shared.ready_since = None
        # From here to the call's first await nothing else runs: the prices, the lease check and
        # the token belong together.
        updates = self._render(taken)
        delivered = False
        try:
            await self._redis.publish(shared.token, updates, shared.seq)
            delivered = True
        except NotLeaderError:
            log.warning("not the leader any more: nothing was published")
            shared.lease.refused()
            shared.bells.leader.ring()
        except RedisUnavailableError as error:
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
            shared.metrics.updates_published += len(taken)
            if ready_since is not None:
                shared.metrics.publish_latency.observe(now - ready_since)
        return delivered

    def _render(self, taken: Sequence[Slot]) -> list[str | bytes]:
        """``[symbol, json, …]`` of the newest prices, with rising seq."""
        shared = self._shared
        seq = max(shared.seq, int(time.time() * 1_000_000))
        updates: list[str | bytes] = []
        for slot in taken:
            seq += 1
            at = reflected_at(slot)
            updates += (
                slot.symbol,
                encode_update(slot.symbol, slot.bid, slot.ask, slot.last_price, at, seq),
            )
        shared.seq = seq
        return updates

    async def _drop(self) -> None:
        shared = self._shared
        dropping = frozenset(shared.to_drop)
        try:
            await self._redis.drop_last(shared.token, sorted(dropping))
        except NotLeaderError:
            shared.lease.refused()
            shared.bells.leader.ring()
        except RedisUnavailableError as error:
            if shared.redis_failed(str(error)):
                log.warning("cannot drop last prices yet", why=str(error))
            await asyncio.sleep(_RETRY_S)
        else:
            shared.to_drop -= dropping
