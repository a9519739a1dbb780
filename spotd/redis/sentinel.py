"""The master that Sentinels name. Talks to Sentinels; must not talk to the master itself.

All Sentinels are listened to. One that announces another master causes a drop of all connections,
long before the old master refuses to write: during a planned fail-over that takes 8 s and more,
and what is written to it meanwhile is lost.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, NoReturn, TypeVar

import redis.exceptions
from redis.exceptions import RedisError

from spotd.redis.connections import progress
from spotd.redis.dial import AllFailedError, Connect, Discard, dial, race
from spotd.redis.master import Master
from spotd.redis.tries import TRY_S

T = TypeVar("T")

_SWITCHED, _PROMOTED = b"+switch-master", b"+promoted-slave"
_LISTEN_AGAIN_S = (0.5, 1.0)  # after a Sentinel was lost, between these, at random
_PING_AFTER_S = 5.0  # of silence; a Sentinel that does not answer as long again is given up


class _Announced(NamedTuple):
    host: str
    port: int


class _Reached(NamedTuple):
    """A connection to a master. ``by`` is the Sentinel that named it, or the announcement."""

    connection: Any
    address: tuple[str, int]
    by: Any
    drops: int


class SentinelMaster(Master):
    """The master of ``service``, as any of the Sentinels names it.

    ``sentinels`` are clients of redis-py, one per Sentinel. They are closed by ``aclose``, which
    also ends the listening that the first ``open`` began.
    """

    def __init__(
        self,
        service: str,
        sentinels: Sequence[Any],
        *,
        try_s: float = TRY_S,
        answer_s: float | None = None,
    ) -> None:
        super().__init__("", 0, try_s=try_s, answer_s=answer_s)
        self.address = None
        self.service = service
        self.sentinels = list(sentinels)  # in the order in which they are asked
        self._announced: _Announced | None = None
        self._former: set[tuple[str, int]] = set()  # masters before the announced one
        self._named_before: dict[Any, tuple[str, int]] = {}  # by each Sentinel
        self._named_by: Any = None
        self._verified = -1  # the value of ``drops`` when the role was last asked for
        self._listening: asyncio.Task[None] | None = None

    async def open(self, connect: Connect[T], discard: Discard[T]) -> T:
        """Return a new connection to the master; see ``Master.open``."""
        self._listen()
        while True:
            reached = await self._race(connect, discard)
            if reached.drops == self.drops:
                self.address, self._named_by = reached.address, reached.by
                if reached.address != self._announced:
                    self._forget_announced()  # the Sentinels have named a newer one
                connection: T = reached.connection
                return connection
            discard(reached.connection)  # another master was announced meanwhile

    async def verify(self, role: Callable[[], Awaitable[str]]) -> None:
        """Ask the server for its role, once after each drop."""
        drops, address, named_by = self.drops, self.address, self._named_by
        if self._verified == drops:
            return
        if await role() == "master":
            self._verified = drops
            return
        if address == self._announced:
            self._forget_announced()
        if named_by in self.sentinels:  # it is asked last from now on
            self.sentinels.remove(named_by)
            self.sentinels.append(named_by)
        raise redis.exceptions.ConnectionError(f"{_text(address)} is no master")

    async def aclose(self) -> None:
        """End the listening, and close the connections to the Sentinels; see ``Master.aclose``."""
        await super().aclose()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening.cancel()
            await asyncio.wait([listening])
        for sentinel in self.sentinels:
            await sentinel.aclose()

    # Finding the master

    async def _race(self, connect: Connect[T], discard: Discard[T]) -> _Reached:
        def tries(by: Any) -> Callable[[], Awaitable[_Reached]]:
            return lambda: self._reach(by, connect, discard)

        asked: list[Any] = list(self.sentinels)
        before = self._announced
        if before is not None:
            asked.insert(0, before)
        try:
            return await race(
                [tries(by) for by in asked],
                lambda reached: discard(reached.connection),
                # A try asks a Sentinel, over a new connection perhaps, and connects to the master.
                try_s=2 * self.try_s,
            )
        except AllFailedError as error:
            if self._announced == before:
                self._forget_announced()  # the next try believes each Sentinel
            told = zip(asked, error.failures, strict=True)
            words = "; ".join(dict.fromkeys(_words(by, failure) for by, failure in told))
            raise redis.exceptions.ConnectionError(words) from error

    async def _reach(self, by: Any, connect: Connect[T], discard: Discard[T]) -> _Reached:
        drops = self.drops
        address = by if isinstance(by, _Announced) else await self._ask(by)
        if address in self._former:
            # It has not heard of the switch yet, and its master still takes writes, for 8 s and
            # more. What is written there is lost.
            raise redis.exceptions.ConnectionError(
                f"still names the former master {_text(address)}"
            )
        try:
            connection = await dial(*address, connect, discard, try_s=self.try_s)
        except AllFailedError as error:
            why = next((f"{each}" for each in error.failures if f"{each}"), "no answer")
            raise redis.exceptions.ConnectionError(
                f"the master {_text(address)} cannot be reached: {why}"
            ) from error
        return _Reached(connection, address, by, drops)

    async def _ask(self, sentinel: Any) -> tuple[str, int]:
        call, command = progress.get(), "SENTINEL GET-MASTER-ADDR-BY-NAME"
        progress.set(None)  # the call waits for the master, not for this connection
        try:
            named = await sentinel.execute_command(command, self.service)
        finally:
            progress.set(call)
        if named is None:
            raise redis.exceptions.ConnectionError(f"knows no master named {self.service}")
        host, port = named
        return host.decode() if isinstance(host, bytes) else str(host), int(port)

    # Hearing of another master

    def _listen(self) -> None:
        if self._listening is None:
            self._listening = asyncio.create_task(self._listen_to_all(), name="spotd-sentinels")
        elif self._listening.done():
            self._listening.result()  # raises the defect that ended it
            raise RuntimeError("listening to the Sentinels ended by itself")

    async def _listen_to_all(self) -> None:
        progress.set(None)  # this task is begun by some call, and outlives it
        async with asyncio.TaskGroup() as listening:
            for sentinel in self.sentinels:
                listening.create_task(self._listen_on(sentinel), name=f"listen-{_name(sentinel)}")

    async def _listen_on(self, sentinel: Any) -> NoReturn:
        while True:
            # Without this Sentinel the others are heard, and a master that has become a replica
            # refuses to write in the end.
            with suppress(OSError, RedisError):
                await self._listen_once(sentinel)
            await asyncio.sleep(random.uniform(*_LISTEN_AGAIN_S))  # noqa: S311 - no secret

    async def _listen_once(self, sentinel: Any) -> NoReturn:
        pubsub = sentinel.pubsub()
        try:
            async with asyncio.timeout(2 * self.try_s):
                await pubsub.subscribe(_SWITCHED, _PROMOTED)
                self._take_in(sentinel, await self._ask(sentinel))
            pinged = False
            while True:
                message = await pubsub.get_message(timeout=_PING_AFTER_S)
                if message is not None:
                    pinged = False
                    if message["type"] == "message":
                        self._hear(message["channel"], message["data"])
                elif pinged:
                    raise redis.exceptions.ConnectionError("no answer to PING")
                else:
                    await pubsub.ping()
                    pinged = True
        finally:
            await pubsub.aclose()

    def _take_in(self, sentinel: Any, address: tuple[str, int]) -> None:
        """Take in whom a Sentinel names that may have announced it while nobody listened.

        It may also be the one that is wrong, since it was cut off. So it is only a reason to ask
        all again, and only once.
        """
        before = self._named_before.get(sentinel)
        if self.address is not None and address not in (self.address, before):
            self.drop(f"Sentinel {_name(sentinel)} names another master, {_text(address)}")
        self._named_before[sentinel] = address

    def _hear(self, channel: bytes, data: bytes) -> None:
        address = announced(channel, data, self.service)
        if address is None or address == self._announced:
            return
        known = {each for each in (self.address, self._announced) if each is not None}
        self._announced = _Announced(*address)
        self._former = (self._former | known) - {address}
        if known - {address}:
            self.drop(f"the Sentinels name another master, {_text(address)}")

    def _forget_announced(self) -> None:
        self._announced = None
        self._former.clear()


def announced(channel: bytes, data: bytes, service: str) -> tuple[str, int] | None:
    """Return the new master that an event of a Sentinel names, None for another service.

    Source: https://redis.io/docs/latest/operate/oss_and_stack/management/sentinel, Pub/Sub
    messages. ``+promoted-slave`` comes once the chosen replica has become the master. Where others
    must be reconfigured first, ``+switch-master`` comes later.
    """
    words = data.decode("utf-8", "replace").split()
    if channel == _SWITCHED and len(words) == 5 and words[0] == service:
        return words[3], int(words[4])
    if channel == _PROMOTED and len(words) >= 6 and words[4:6] == ["@", service]:
        return words[2], int(words[3])
    return None


def _name(sentinel: Any) -> str:
    where = sentinel.connection_pool.connection_kwargs
    return f"{where['host']}:{where['port']}"


def _text(address: tuple[str, int] | None) -> str:
    return "the master" if address is None else f"{address[0]}:{address[1]}"


def _words(by: Any, failure: Exception) -> str:
    words = str(failure) or "no answer in time"
    return words if isinstance(by, _Announced) else f"Sentinel {_name(by)}: {words}"
