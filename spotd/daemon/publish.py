"""Publishes what the conflator emits: one call under way, the next batch gathers meanwhile.

A batch is made of the prices at the moment it is sent. A symbol that Redis did not take stays
ready, once, so the newest price wins here too. This part alone writes and drops fields of
``spotd:last``. As a consequence, a call that is under way cannot bring a dropped symbol back.

A batch goes out in the turn of the event loop in which its frame came in, or in which the call
before it was answered: nothing is awaited on that way. The task of the loop does only what has to
be awaited: it drops fields.

Must not decide when a call begins, how large a batch may be, or what a ``seq`` is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from functools import partial
from itertools import islice

import structlog

from spotd.core.conflate import Batch, Slot
from spotd.core.leadership import Leadership
from spotd.core.prices import reflected_at
from spotd.core.publishing import BatchSize, Gathering, SeqCounter, Succession, next_call_at
from spotd.core.redis_health import RedisHealth
from spotd.daemon.prices import Prices
from spotd.daemon.value import Value, WakeUp
from spotd.errors import NotLeaderError, RedisUnavailableError
from spotd.models import encode_updates, spot_price
from spotd.ops.metrics import Metrics
from spotd.redis.port import MAX_FIELDS_PER_CALL, RedisPort

_RETRY_S = 0.1
_FLUSH_CHECKS_EVERY_S = 0.01

log = structlog.get_logger("spotd.publish")


class PublishLoop:
    """The one part that writes prices. ``not_leader`` wakes the loop that asks for the key."""

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
        self._batch_size = BatchSize()
        self._gathering = Gathering()
        self._succession = Succession(prices.conflator.window_s)
        self._returns = health.get().returns  # the last return of Redis that was dealt with
        self._busy = False  # a call is under way, of either kind
        self._next_try_at = self._next_drop_at = float("-inf")  # after a call that failed
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._task = WakeUp()
        self._defect: Exception | None = None
        prices.due.calls(self.look)
        leadership.wakes(prices.due)
        health.wakes(prices.due)

    async def run(self) -> None:
        """Drop fields, one call at a time with the batches. Raise what went wrong elsewhere."""
        while True:
            await self._task.wait()
            if self._defect is not None:
                raise self._defect
            if self._busy or not self._may_publish():
                continue
            if self._prices.dropping:  # else it came back since ``_look`` let it go first
                await self._drop()
            # Prices that are due go out before the next drop.
            now = time.monotonic()
            self._look(now, drop=False)
            if self._prices.dropping and now >= max(self._next_try_at, self._next_drop_at):
                self._task.set()

    def look(self) -> None:
        """Begin a call if one is due, or set the timer to the moment at which one is."""
        try:
            self._look(time.monotonic())
        except Exception as defect:  # noqa: BLE001 - it ends the daemon, not the stream it came by
            self._defect = defect
            self._task.set()

    async def flush(self, deadline: float) -> None:
        """Publish pending prices, each when its window ends, if that is before ``deadline``.

        ``deadline`` is monotonic seconds. Prices that are pending then go out without the throttle.
        """
        while self._may_publish() and (self._busy or self._prices.pending()):
            now = time.monotonic()
            if now >= deadline:
                if now < self._next_try_at:
                    return  # Redis did not take it
                self._prices.conflator.end_all_windows()
                if not self._busy:
                    self._begin(self._leadership.get(), now)
            self._look(now, drop=False)
            await asyncio.sleep(_FLUSH_CHECKS_EVERY_S)

    def _may_publish(self) -> bool:
        return self._leadership.get().may_publish(time.monotonic())

    def _look(self, now: float, *, drop: bool = True) -> None:
        if self._busy:
            return  # its end looks again
        leadership = self._leadership.get()
        if not leadership.may_publish(now):
            return  # a change of the value looks again
        prices = self._prices
        if self._returns != self._health.get().returns:
            self._returns = self._health.get().returns
            prices.republish()
        not_before = self._succession.first_call_at(leadership.reign, now)
        if now < not_before or now < self._next_try_at:
            self._set_timer(max(not_before, self._next_try_at))
            return
        if prices.dropping and drop and now >= self._next_drop_at:
            self._task.set()
            return
        at = self._next_call_at(now)
        if at is not None and at <= now:
            self._begin(leadership, now)
            return
        if prices.dropping and now < self._next_drop_at:
            at = self._next_drop_at if at is None else min(at, self._next_drop_at)
        if at is not None:
            self._set_timer(at)

    def _next_call_at(self, now: float) -> float | None:
        conflator = self._prices.conflator
        conflator.end_windows(now)
        ready = conflator.ready
        if ready:
            return next_call_at(
                ready=len(ready),
                ready_at=ready[0].due_at,
                edge_at=conflator.edge_at,
                gathers=self._gathering.gathers(now),
            )
        window_at = conflator.next_at()
        if window_at is None:
            return None
        return next_call_at(window_at=window_at, together=conflator.next_together())

    def _set_timer(self, at: float) -> None:
        timer = self._timer
        if timer is not None:
            if timer.when() <= at:
                return  # it looks in time, and sets itself anew
            timer.cancel()
        if self._loop is None:  # in Python 3.11, to ask for it is a system call
            self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_at(at, self._time_passed)

    def _time_passed(self) -> None:
        self._timer = None
        self.look()

    def _begin(self, leadership: Leadership, now: float) -> None:
        taken = self._prices.conflator.take(now, self._batch_size.limit)
        if not taken:
            return
        self._gathering.published(len(taken), now)
        self._metrics.edges_gather = self._gathering.gathers(now)
        due_at = taken[0].due_at  # of the longest waiting one
        lines, highest_seq = render(taken, self._prices.seq)
        self._busy = True
        self._prices.under_way = taken
        self._port.begin_publishing(
            leadership.token,
            lines,
            highest_seq,
            partial(self._ended, taken, highest_seq, due_at, now),
        )

    def _ended(
        self,
        taken: Batch,
        highest_seq: int,
        due_at: float,
        sent_at: float,
        error: Exception | None,
    ) -> None:
        """Take in that a call ended. It may or may not have arrived, unless Redis said so."""
        now = time.monotonic()
        self._busy = False
        self._prices.conflator.settle(taken, now, delivered=error is None)
        self._prices.tell_settled()
        if error is None:
            self._prices.seq.stored_up_to(highest_seq)
            self._batch_size.answered(len(taken), now - sent_at)
            self._metrics.updates_published += len(taken)
            self._metrics.updates_per_call.observe(len(taken))
            # Updates of windows that were ended before their time were not due yet.
            self._metrics.publish_latency.observe(max(0.0, now - due_at))
        else:
            self._failed(error, now)
        self.look()

    def _failed(self, error: Exception, now: float) -> None:
        self._next_try_at = now + _RETRY_S
        if isinstance(error, NotLeaderError):
            # The key was lost with Redis' data, or is another's: the leader loop finds out which.
            log.warning("the leader key is not ours: nothing was published")
            self._not_leader.set()
        elif isinstance(error.__cause__, TimeoutError):
            self._batch_size.failed()

    async def _drop(self) -> None:
        prices = self._prices
        # At most one call is made, so that a market that leaves does not delay other prices.
        dropping = list(islice(prices.dropping, MAX_FIELDS_PER_CALL))
        self._busy = True
        try:
            await self._port.drop_last(self._leadership.get().token, dropping)
        except NotLeaderError:
            self._not_leader.set()
            self._next_drop_at = time.monotonic() + _RETRY_S
        except RedisUnavailableError:
            self._next_drop_at = time.monotonic() + _RETRY_S
        else:
            prices.dropping.difference_update(dropping)
            prices.tell_settled()
        finally:
            self._busy = False


def render(taken: Sequence[Slot], counter: SeqCounter) -> tuple[bytes, int]:
    """Return the JSON of the newest prices, one a line, and the highest seq among them."""
    seq = counter.next(len(taken), int(time.time() * 1_000_000))
    updates = [
        spot_price(slot.symbol, slot.bid, slot.ask, slot.last_price, reflected_at(slot), n)
        for n, slot in enumerate(taken, seq)
    ]
    return encode_updates(updates), counter.highest
