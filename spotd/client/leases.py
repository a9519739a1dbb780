"""Demand that dies with its owner: ``SPY@owner`` in ``spotd:leases``, renewed while it is held.

Talks to Redis, from one task, so that a renewal cannot arrive after the removal and bring the
lease back. A lease lapses by Redis' own clock, which each renewal of all asks for. Must not know
for what the symbols are wanted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress

from spotd.client.calls import Calls
from spotd.client.clock import RedisClock
from spotd.client.tasks import raise_if_cancelled, stop
from spotd.errors import RedisUnavailableError
from spotd.keys import Keys
from spotd.redis.errors import translated

_RETRY_S = 1.0
_RENEW_EVERY_S = 5.0  # at most: Redis may lose leases, and nobody tells a lease without a follower
_RESTORE_EVERY_S = 1.0  # at most, where the states of symbols end that are held
_SETTLE_S = 2.0  # where Redis hangs, an end waits for the removal of leases no longer than this
_AT_ONCE = float("-inf")
_CLOSED = "the client is closed"
_MAX_PER_CALL = 1_000  # members; a longer call would hold up the server

log = logging.getLogger("spotd.client")


class Leases:
    """The leases of one owner. A symbol that is held twice is released after its second release.

    ``hold`` and ``release`` return at once, and the writer tells Redis. Where Redis is away, it
    tries again each second; what it cannot renew or remove lapses ``ttl_s`` seconds later. All
    leases are renewed after a third of that, at the latest after ``renew_every_s``. A renewal
    also restores leases that Redis has lost.
    """

    def __init__(
        self,
        call: Calls,
        keys: Keys,
        owner: str,
        ttl_s: float,
        *,
        renew_every_s: float = _RENEW_EVERY_S,
    ) -> None:
        self.ttl_s = ttl_s
        self._renew_every_s = renew_every_s
        self._call = call
        self._clock = RedisClock(call)
        self._keys = keys
        self._owner = owner
        self._held: Counter[str] = Counter()
        self._unwritten: set[str] = set()  # held, and not yet written
        self._released: set[str] = set()  # not held any more, and not yet removed
        self._waiting: list[asyncio.Future[None]] = []
        self._wake_up = asyncio.Event()
        self._renew_at = 0.0  # monotonic seconds
        self._renewed_at = _AT_ONCE
        self._doubted = False  # whether Redis may have lost leases since the last renewal began
        self._writer: asyncio.Task[None] | None = None
        self._failing = False
        self._closed = False

    def hold(self, symbols: Collection[str]) -> None:
        """Count the symbols as held from now on."""
        new = [symbol for symbol in symbols if symbol not in self._held]
        self._held.update(symbols)
        self._unwritten.update(new)
        self._released.difference_update(new)
        self._wake()

    def release(self, symbols: Collection[str]) -> None:
        """Count the symbols as held once less. One that is not held is passed over."""
        for symbol in symbols:
            if symbol not in self._held:
                continue
            self._held[symbol] -= 1
            if not self._held[symbol]:
                del self._held[symbol]
                self._unwritten.discard(symbol)
                self._released.add(symbol)
        self._wake()

    async def confirm(self, symbols: Collection[str]) -> None:
        """Wait until the leases of held symbols are written. Raises RedisUnavailableError."""
        if not self._unwritten.isdisjoint(symbols):
            await self._next_write()

    async def rewrite(self) -> None:
        """Write all leases again, and wake the daemon up. Raises RedisUnavailableError."""
        if self._held:
            self.renew()
            await self._next_write()

    def restore(self, symbol: str) -> None:
        """Write all leases again soon, since the state of a symbol has ended.

        We demand it. That nobody does any more means that Redis has lost our lease. This is done
        at most once a second. A symbol that is not held is passed over.
        """
        if symbol in self._held:
            self._doubted = True
            self._wake()

    def renew(self) -> None:
        """Write all leases again, and wake the daemon up, without waiting for it."""
        if self._held:
            self._unwritten.update(self._held)
            self._renew_at = _AT_ONCE  # the server may be another one, with another clock
            self._wake()

    async def settle(self) -> None:
        """Wait until what was released is removed, or a try of that has failed, 2 s at most.

        Where the last try has failed already, this returns at once: the writer tries again.
        """
        if not self._released or self._closed or self._failing:
            return
        try:
            async with asyncio.timeout(_SETTLE_S):
                await self._next_write()
        except TimeoutError:
            self._failing = True
        except (RedisUnavailableError, RuntimeError):
            pass

    async def aclose(self) -> None:
        """Release everything, and end the writer, in 2 s where Redis hangs. May be called twice."""
        self._released.update(self._held)
        self._held.clear()
        self._unwritten.clear()
        await self.settle()
        self._closed = True
        if self._writer is not None:
            await stop(self._writer)
        self._answer(self._waiting, RuntimeError(_CLOSED))

    async def _next_write(self) -> None:
        """Wait for a write that begins after this call. Raises RedisUnavailableError."""
        if self._closed:
            raise RuntimeError(_CLOSED)
        answer = asyncio.get_running_loop().create_future()
        self._waiting.append(answer)
        self._wake()
        await answer

    def _wake(self) -> None:
        if self._closed:
            return
        self._wake_up.set()
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_on(), name="spotd-client-leases")

    @property
    def _renew_in_s(self) -> float:
        return min(self.ttl_s / 3, self._renew_every_s)

    @property
    def _all_due_at(self) -> float:
        if not self._doubted:
            return self._renew_at
        return min(self._renew_at, self._renewed_at + _RESTORE_EVERY_S)

    async def _write_on(self) -> None:
        now = asyncio.get_running_loop().time
        logged = False
        next_at = self._renew_at = now() + self._renew_in_s
        while self._held or self._released or self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout_at(next_at):
                    await self._wake_up.wait()
            self._wake_up.clear()
            waiting, self._waiting = self._waiting, []
            failure: Exception | None = RuntimeError(_CLOSED)
            try:
                failure = await self._write(everything=self._failing or now() >= self._all_due_at)
            finally:
                self._answer(waiting, failure)
            raise_if_cancelled()
            failing = self._failing = failure is not None
            next_at = now() + min(_RETRY_S, self.ttl_s / 3) if failing else self._all_due_at
            if failing and not waiting and not logged:  # who waited was told
                log.warning("leases not written, trying again: %s", failure)
                logged = True
            elif logged and not failing:
                log.info("leases written again")
                logged = False

    async def _write(self, *, everything: bool) -> RedisUnavailableError | None:
        """Remove what was released, write what is new or, with ``everything``, all that is held.

        What changes meanwhile is left to the next write. Return the failure.
        """
        if everything:
            self._doubted = False
        released, unwritten = list(self._released), list(self._unwritten)
        renewed = list(self._held) if everything else unwritten
        written_at, restored = asyncio.get_running_loop().time(), 0
        try:
            with translated(self._call.redis, self._keys.leases):
                # Not in a pipeline: that of a cluster takes no PUBLISH.
                for members in self._members(released):
                    await self._call("ZREM", self._keys.leases, *members)
                if renewed:
                    unix_s = await (self._clock.ask() if everything else self._clock.unix_s())
                    lapses_at = unix_s + self.ttl_s
                for members in self._members(renewed):
                    scored = [part for member in members for part in (lapses_at, member)]
                    restored += await self._call("ZADD", self._keys.leases, *scored)
                if released or unwritten or restored:
                    await self._call.wake(self._keys.wake, self._owner)
        except RedisUnavailableError as error:
            return error
        self._released.difference_update(released)
        self._unwritten.difference_update(unwritten)
        if everything:
            self._renewed_at, self._renew_at = written_at, written_at + self._renew_in_s
        return None

    def _members(self, symbols: list[str]) -> Iterable[list[str]]:
        for start in range(0, len(symbols), _MAX_PER_CALL):
            yield [f"{symbol}@{self._owner}" for symbol in symbols[start : start + _MAX_PER_CALL]]

    def _answer(self, waiting: list[asyncio.Future[None]], failure: Exception | None) -> None:
        for answer in waiting:
            if answer.done():
                continue  # its caller was cancelled
            if failure is None:
                answer.set_result(None)
            else:
                answer.set_exception(failure)
